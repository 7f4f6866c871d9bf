//! Another machine's clock, without asking that machine each time.
//!
//! Replicas compare times with each other, so all of them go by one clock. A process measures it
//! now and then, and adds the monotonic time since. A step of the process's wall clock therefore
//! moves neither a lease nor a nonce.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;

use super::monotonic::monotonic_now;
use super::timestamp::Timestamp;

/// An estimate of another machine's time. Reading it takes no lock.
#[derive(Debug)]
pub(crate) struct SharedClock {
    /// The beginning of this process's monotonic time.
    origin: Instant,
    /// The other clock's time at `origin`, in milliseconds since the Unix epoch, or [`UNKNOWN`].
    at_origin: AtomicI64,
}

const UNKNOWN: i64 = i64::MIN;

impl Default for SharedClock {
    fn default() -> Self {
        Self { origin: monotonic_now(), at_origin: AtomicI64::new(UNKNOWN) }
    }
}

impl SharedClock {
    /// Takes up the answer to a question for the time, which was asked at `asked`.
    ///
    /// The other clock showed `time` between the question and now. An estimate that agrees with this
    /// stays, so that a slow answer makes a good estimate no worse. Otherwise the estimate moves by
    /// the least that makes it agree.
    pub(crate) fn measured(&self, asked: Instant, time: Timestamp) {
        self.measured_between(asked, monotonic_now(), time);
    }

    fn measured_between(&self, asked: Instant, answered: Instant, time: Timestamp) {
        let latest = time.as_millis() - self.millis_at(asked);
        let earliest = time.as_millis() - self.millis_at(answered);
        let estimate = match self.at_origin.load(Ordering::Relaxed) {
            UNKNOWN => earliest.midpoint(latest),
            // Both ends are rounded to milliseconds.
            known => known.clamp(earliest - 1, latest + 1),
        };
        self.at_origin.store(estimate, Ordering::Relaxed);
    }

    /// The other clock's time, or `None` before the first measurement.
    pub(super) fn now(&self) -> Option<Timestamp> {
        self.at(monotonic_now())
    }

    fn at(&self, moment: Instant) -> Option<Timestamp> {
        match self.at_origin.load(Ordering::Relaxed) {
            UNKNOWN => None,
            at_origin => Some(Timestamp::from_millis(at_origin.saturating_add(self.millis_at(moment)))),
        }
    }

    fn millis_at(&self, moment: Instant) -> i64 {
        i64::try_from(moment.saturating_duration_since(self.origin).as_millis()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOON: Timestamp = Timestamp::from_seconds(1_700_000_000);

    #[test]
    fn a_slow_answer_spoils_no_good_estimate_and_a_step_is_followed() {
        let clock = SharedClock::default();
        let moment = |seconds| clock.origin + Duration::from_secs(seconds);
        let shown = |seconds| NOON.plus(Duration::from_secs(seconds));
        assert_eq!(clock.now(), None);
        clock.measured_between(moment(0), moment(0), NOON);
        assert_eq!(clock.at(moment(10)), Some(shown(10)));
        // The other clock was read right after the question, and its answer took 5 s to arrive.
        clock.measured_between(moment(5), moment(10), shown(5));
        assert_eq!(clock.at(moment(10)), Some(shown(10)));
        // A failover to a machine whose clock is 90 s ahead, and back.
        for ahead in [90, 0] {
            clock.measured_between(moment(10), moment(10), shown(10 + ahead));
            let now = clock.at(moment(10)).unwrap();
            assert!(now.as_millis().abs_diff(shown(10 + ahead).as_millis()) <= 1, "{now}");
        }
    }

    #[test]
    fn the_first_answer_counts_however_slow_it_is() {
        let clock = SharedClock::default();
        let answered = clock.origin + Duration::from_secs(8);
        clock.measured_between(clock.origin, answered, NOON);
        assert_eq!(clock.at(answered), Some(NOON.plus(Duration::from_secs(4))));
    }
}
