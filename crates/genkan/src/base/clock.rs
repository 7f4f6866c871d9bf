//! The wall clock, for points in time.

use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::AtomicI64;

use super::shared_clock::SharedClock;
use super::timestamp::Timestamp;

/// The time of day. Read it once per request and pass the [`Timestamp`] down.
///
/// Rooms get the database's clock (`Db::clock`), by which all replicas go. Its answer
/// costs no request.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Process,
    Shared(Arc<SharedClock>),
    /// Milliseconds since the Unix epoch. Stands still until a test moves it.
    #[cfg(test)]
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The clock of this machine, which may differ from the clocks of other replicas.
    ///
    /// Nothing that another process may see goes by it, so a test refuses it in every room.
    pub(crate) const fn of_process() -> Self {
        Self(Source::Process)
    }

    pub(crate) const fn shared(clock: Arc<SharedClock>) -> Self {
        Self(Source::Shared(clock))
    }

    #[cfg(test)]
    pub(crate) const fn manual(millis: Arc<AtomicI64>) -> Self {
        Self(Source::Manual(millis))
    }

    /// Returns the present time, to the millisecond.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::Process => {
                let since_epoch =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Shared(clock) => clock.now().unwrap_or_else(|| Self::of_process().now()),
            #[cfg(test)]
            Source::Manual(millis) => {
                Timestamp::from_millis(millis.load(std::sync::atomic::Ordering::SeqCst))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_manual_clock_stands_still_until_moved() {
        let hand = Arc::new(AtomicI64::new(5));
        let clock = Clock::manual(Arc::clone(&hand));
        assert_eq!(clock.now(), Timestamp::from_millis(5));
        hand.store(9, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(clock.now().since(Timestamp::from_millis(5)), Duration::from_millis(4));
        assert_eq!(Timestamp::from_millis(1).since(clock.now()), Duration::ZERO);
    }
}
