//! The addresses of a server's name: one lookup at a time, and the last answer while DNS has trouble.
//!
//! A lookup by the system cannot be cancelled: it occupies a thread until the system's resolver gives
//! up. While DNS is silent, a lookup for each new connection would occupy all threads there are.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::clock::monotonic_now;
use crate::error::Cause;

/// The addresses of one server's name, as one thread knows them.
#[derive(Default)]
pub(crate) struct Addresses {
    /// The lookup under way. It stays here when the call that waits for it ends, and the next call
    /// waits for it instead of beginning another one.
    running: Mutex<Option<LookUp>>,
    /// When that lookup began.
    began: Cell<Option<Instant>>,
    /// The last lookup that ended.
    ended: RefCell<Option<Ended>>,
    /// The last addresses, and when they were looked up.
    last: RefCell<Option<(Instant, Rc<[SocketAddr]>)>>,
}

type LookUp = Pin<Box<dyn Future<Output = Found>>>;
type Found = io::Result<Vec<SocketAddr>>;

struct Ended {
    at: Instant,
    /// Why it found no address, if it did not.
    failure: Option<(io::ErrorKind, String)>,
}

impl Addresses {
    /// Looks the name up, or waits for the lookup that is under way. Returns the last addresses if it
    /// fails or is slow.
    ///
    /// # Errors
    ///
    /// [`Cause::Name`] when no address is known and the lookup finds none within the limit.
    pub(crate) async fn find<F>(
        &self,
        limit: Duration,
        look_up: impl Fn() -> F,
    ) -> Result<Rc<[SocketAddr]>, Cause>
    where
        F: Future<Output = Found> + 'static,
    {
        let now = monotonic_now();
        let known = self.known(now);
        let patience = match (&known, self.began.get()) {
            (None, _) => limit,
            // One call waits for a slow lookup, and those that come later do not.
            (Some(_), Some(began)) => (began + PATIENCE).saturating_duration_since(now).min(limit),
            (Some(_), None) => PATIENCE.min(limit),
        };
        let mut finding = pin!(self.look_up(now, look_up));
        let found = if patience.is_zero() {
            // It may have ended.
            poll_fn(|context| match finding.as_mut().poll(context) {
                Poll::Ready(found) => Poll::Ready(Some(found)),
                Poll::Pending => Poll::Ready(None),
            })
            .await
        } else {
            tokio::time::timeout(patience, finding).await.ok()
        };
        let failure = match found {
            Some(Ok(addresses)) => return Ok(addresses),
            Some(Err(error)) => error,
            None => io::ErrorKind::TimedOut.into(),
        };
        known.ok_or(Cause::Name(failure))
    }

    async fn look_up<F>(&self, asked_at: Instant, look_up: impl Fn() -> F) -> io::Result<Rc<[SocketAddr]>>
    where
        F: Future<Output = Found> + 'static,
    {
        let mut running = self.running.lock().await;
        loop {
            // Another call may have waited for the lookup that this one waited for as well.
            if let Some(ended) = self.ended.borrow().as_ref().filter(|ended| ended.at >= asked_at) {
                return self.outcome(ended);
            }
            let began = self.began.get().unwrap_or_else(|| monotonic_now().max(asked_at));
            self.began.set(Some(began));
            let found = running.get_or_insert_with(|| Box::pin(look_up())).as_mut().await;
            *running = None;
            self.began.set(None);
            // A lookup that calls have given up may have ended long ago. Its addresses are better than
            // none, but they are no answer to this call.
            let is_old = asked_at.saturating_duration_since(began) > JOINED_FOR;
            self.end(found, began, if is_old { began } else { monotonic_now().max(asked_at) });
        }
    }

    fn end(&self, found: Found, began: Instant, at: Instant) {
        let failure = match found {
            Ok(found) if !found.is_empty() => {
                self.last.replace(Some((began, found.into())));
                None
            }
            Ok(_) => Some((io::ErrorKind::NotFound, "it has no address".to_owned())),
            Err(error) => Some((error.kind(), error.to_string())),
        };
        self.ended.replace(Some(Ended { at, failure }));
    }

    fn outcome(&self, ended: &Ended) -> io::Result<Rc<[SocketAddr]>> {
        if let Some((kind, text)) = &ended.failure {
            return Err(io::Error::new(*kind, text.clone()));
        }
        let last = self.last.borrow();
        last.as_ref().map(|(_, last)| Rc::clone(last)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The last addresses, if they are not too old.
    fn known(&self, now: Instant) -> Option<Rc<[SocketAddr]>> {
        let last = self.last.borrow();
        let (_, last) = last.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < KNOWN_FOR)?;
        Some(Rc::clone(last))
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addresses").field("last", &self.last).finish_non_exhaustive()
    }
}

/// How long a lookup may take before the last addresses are used.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long after its beginning a lookup still answers new calls.
const JOINED_FOR: Duration = Duration::from_secs(10);
/// How long addresses are used without an answer of DNS.
const KNOWN_FOR: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::sync::Notify;

    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    fn failed() -> Found {
        Err(io::Error::other("no name server answers"))
    }

    #[tokio::test]
    async fn a_failed_lookup_uses_the_last_addresses() {
        let addresses = Addresses::default();
        let first = addresses.find(LIMIT, || ready(failed())).await;
        assert!(matches!(&first, Err(Cause::Name(error)) if error.to_string().contains("no name server")));
        for (found, last) in
            [(Ok(vec![address(1)]), 1), (failed(), 1), (Ok(Vec::new()), 1), (Ok(vec![address(2)]), 2)]
        {
            let found = Cell::new(Some(found));
            let outcome = addresses.find(LIMIT, || ready(found.take().unwrap())).await.unwrap();
            assert_eq!(*outcome, [address(last)]);
        }
        assert!(addresses.known(monotonic_now() + KNOWN_FOR).is_none(), "for a day");
    }

    #[tokio::test]
    async fn a_slow_lookup_delays_one_call_of_a_known_name_and_is_the_only_one() {
        let addresses = Addresses::default();
        let slow = addresses.find(Duration::from_millis(10), pending::<Found>).await;
        assert!(matches!(&slow, Err(Cause::Name(error)) if error.kind() == io::ErrorKind::TimedOut));

        let addresses = Addresses::default();
        assert!(addresses.find(LIMIT, || ready(Ok(vec![address(1)]))).await.is_ok());
        let (begun, end) = (Cell::new(0), Rc::new(Notify::new()));
        let look_up = || {
            begun.set(begun.get() + 1);
            let end = Rc::clone(&end);
            async move {
                end.notified().await;
                Ok(vec![address(2)])
            }
        };
        let asked_at = monotonic_now();
        assert_eq!(*addresses.find(LIMIT, look_up).await.unwrap(), [address(1)]);
        assert!((PATIENCE..LIMIT).contains(&asked_at.elapsed()));
        let at_once = async |addresses: &Addresses| {
            let mut finding = pin!(addresses.find(LIMIT, look_up));
            poll_fn(|context| Poll::Ready(finding.as_mut().poll(context))).await
        };
        for _ in 0..2 {
            let Poll::Ready(known) = at_once(&addresses).await else { panic!("it waits") };
            assert_eq!(*known.unwrap(), [address(1)]);
        }
        assert_eq!(begun.get(), 1, "it is still under way");
        end.notify_one();
        let Poll::Ready(known) = at_once(&addresses).await else { panic!("it waits") };
        assert_eq!(*known.unwrap(), [address(2)]);
        assert_eq!(begun.get(), 1);
    }

    #[tokio::test]
    async fn calls_at_once_share_a_lookup() {
        let (addresses, begun, end) = (Addresses::default(), Cell::new(0), Rc::new(Notify::new()));
        let look_up = || {
            begun.set(begun.get() + 1);
            let end = Rc::clone(&end);
            async move {
                end.notified().await;
                Ok(vec![address(1)])
            }
        };
        // The first call gives up, and its lookup goes on for the others.
        let first = async {
            let first = addresses.find(Duration::from_millis(10), look_up).await;
            end.notify_one();
            first
        };
        let others = async { tokio::join!(addresses.find(LIMIT, look_up), addresses.find(LIMIT, look_up)) };
        let (first, (second, third)) = tokio::join!(first, others);
        assert!(first.is_err());
        assert_eq!((&*second.unwrap(), &*third.unwrap()), (&[address(1)][..], &[address(1)][..]));
        assert_eq!(begun.get(), 1);
        end.notify_one();
        assert!(addresses.find(LIMIT, look_up).await.is_ok());
        assert_eq!(begun.get(), 2, "each later call looks the name up");
    }

    #[tokio::test]
    async fn a_lookup_that_was_given_up_long_ago_is_no_answer() {
        let (addresses, begun) = (Addresses::default(), Cell::new(0));
        let look_up = || {
            begun.set(begun.get() + 1);
            let number = begun.get();
            async move {
                if number == 1 {
                    tokio::task::yield_now().await;
                }
                Ok(vec![address(number)])
            }
        };
        assert!(addresses.find(Duration::ZERO, look_up).await.is_err());
        let later = monotonic_now() + JOINED_FOR + Duration::from_secs(1);
        assert_eq!(*addresses.look_up(later, look_up).await.unwrap(), [address(2)]);
    }
}
