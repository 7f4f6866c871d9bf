//! Connections to a server with several addresses: attempts that overlap, and the first that
//! connects wins (RFC 8305).
//!
//! An address that swallows packets reports nothing for minutes. Attempts one after the other would
//! spend the caller's whole limit on it, although the next address answers at once.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::timeout_at;

use crate::clock::monotonic_now;

/// Connects to the first of `addresses` that answers. Returns `None` if there is no address, and
/// the last error if every attempt failed.
///
/// An attempt starts 250 ms after the one before it, or at once when one fails (RFC 8305 §5).
/// The other attempts are dropped, which closes them. The caller limits the whole.
pub async fn race<T, E, F>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> Option<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut left = interleaved(addresses).into_iter();
    let mut running: Vec<Pin<Box<F>>> = Vec::new();
    let mut last = None;
    loop {
        if let Some(address) = left.next() {
            running.push(Box::pin(connect(address)));
        } else if running.is_empty() {
            return last.map(Err);
        }
        let next_start = monotonic_now() + DELAY;
        // Until the next attempt is due, or one attempt has failed.
        loop {
            let ended = poll_fn(|context| poll_any(&mut running, context));
            let ended = if left.len() == 0 { Ok(ended.await) } else { timeout_at(next_start, ended).await };
            match ended {
                Ok(Ok(connected)) => return Some(Ok(connected)),
                Ok(Err(error)) => {
                    last = Some(error);
                    if left.len() > 0 || running.is_empty() {
                        break;
                    }
                }
                Err(_due) => break,
            }
        }
    }
}

/// Polls all attempts and removes the one that has ended. The oldest one goes first.
fn poll_any<F: Future>(running: &mut Vec<Pin<Box<F>>>, context: &mut Context<'_>) -> Poll<F::Output> {
    let polled = running.iter_mut().enumerate().find_map(|(index, attempt)| {
        if let Poll::Ready(outcome) = attempt.as_mut().poll(context) { Some((index, outcome)) } else { None }
    });
    let Some((index, outcome)) = polled else { return Poll::Pending };
    drop(running.remove(index));
    Poll::Ready(outcome)
}

/// Returns the addresses with both families in turn, the family of the first address first
/// (RFC 8305 §4), and at most [`MOST`] of them.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_first_family =
        |address: &&SocketAddr| addresses.first().is_some_and(|first| first.is_ipv4() == address.is_ipv4());
    let (mut first, mut second) =
        (addresses.iter().filter(is_first_family), addresses.iter().filter(|it| !is_first_family(it)));
    let mut all = Vec::with_capacity(addresses.len().min(MOST));
    while all.len() < MOST {
        let before = all.len();
        all.extend(first.next().into_iter().chain(second.next()).copied());
        if all.len() == before {
            break;
        }
    }
    all.truncate(MOST);
    all
}

/// The "Connection Attempt Delay" that RFC 8305 §8 recommends.
const DELAY: Duration = Duration::from_millis(250);
/// Maximum number of attempts. The owner of a name chooses how many addresses it has.
const MOST: usize = 16;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// An attempt that notes its end, however it ends.
    struct Attempt(SocketAddr, Rc<RefCell<Vec<SocketAddr>>>);

    impl Drop for Attempt {
        fn drop(&mut self) {
            self.1.borrow_mut().push(self.0);
        }
    }

    #[tokio::test]
    async fn an_address_that_swallows_packets_costs_one_delay_and_is_given_up() {
        let all = addresses(&["192.0.2.1:443", "192.0.2.2:443", "192.0.2.3:443"]);
        let (started, closed) = (Rc::new(RefCell::new(Vec::new())), Rc::default());
        let begun = monotonic_now();
        let connected = race(&all, |address| {
            started.borrow_mut().push((address, begun.elapsed()));
            let attempt = Attempt(address, Rc::clone(&closed));
            async move {
                if attempt.0.ip().to_string() != "192.0.2.2" {
                    std::future::pending::<()>().await;
                }
                Ok::<_, ()>(attempt)
            }
        });
        let winner = connected.await.unwrap().unwrap();
        assert_eq!(winner.0, all[1]);
        let started = started.borrow();
        assert_eq!(started.iter().map(|(address, _)| *address).collect::<Vec<_>>(), all[..2]);
        assert!(started[1].1.saturating_sub(started[0].1) >= DELAY, "attempts are apart");
        assert_eq!(*closed.borrow(), [all[0]], "the loser is closed");
    }

    #[tokio::test]
    async fn a_refused_attempt_starts_the_next_at_once_and_the_last_error_is_reported() {
        let all = addresses(&["192.0.2.1:443", "192.0.2.2:443"]);
        let refused = race(&all, |address| async move { Err::<(), _>(address) }).await;
        assert_eq!(refused, Some(Err(all[1])));
        // One attempt fails late, while the other one still runs.
        let late = race(&all, |address| async move {
            // The first needs longer than the delay, so that the second starts and fails meanwhile.
            if address == all_of(2) {
                return Err(());
            }
            tokio::time::sleep(2 * DELAY).await;
            Ok(address)
        });
        assert_eq!(late.await, Some(Ok(all[0])));
        assert_eq!(race(&[], |_| async { Ok::<(), ()>(()) }).await, None);
    }

    fn all_of(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    #[test]
    fn families_take_turns() {
        let mixed =
            addresses(&["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "[2001:db8::1]:1", "[2001:db8::2]:1"]);
        let order: Vec<String> = interleaved(&mixed).iter().map(|address| address.ip().to_string()).collect();
        assert_eq!(order, ["192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2", "192.0.2.3"]);
        assert_eq!(interleaved(&vec![all_of(1); 40]).len(), MOST);
    }
}
