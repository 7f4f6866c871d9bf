//! A circuit breaker: requests to a server that keeps failing are refused for a moment.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::monotonic_now;
use tokio::time::Instant;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct BreakerRules {
    /// The number of failures in a row, all within `window`, that open the breaker.
    pub failures: u32,
    /// The time within which those failures have to come.
    pub window: Duration,
    /// How long an open breaker refuses requests.
    pub pause: Duration,
}

/// Counts the failures in a row of one server, for all threads.
///
/// Enough failures within the window open the breaker. It then refuses requests for the pause, lets
/// one request try, and closes again when that request, or any other, is answered.
///
/// All orderings are relaxed. The counters guard no other memory, and a race costs at most one
/// request too many or one failure that is not counted.
#[derive(Debug)]
pub struct Breaker {
    rules: BreakerRules,
    /// The times below are milliseconds since this instant, plus one, so that zero means "never".
    started: Instant,
    /// Failures since the last success, or since `first_failure` left the window.
    failures: AtomicU32,
    first_failure: AtomicU64,
    /// The time until which no request may try. Zero while the breaker is closed.
    open_until: AtomicU64,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(rules: BreakerRules) -> Self {
        Self {
            rules,
            started: monotonic_now(),
            failures: AtomicU32::new(0),
            first_failure: AtomicU64::new(0),
            open_until: AtomicU64::new(0),
        }
    }

    /// Whether the breaker is closed. This is the usual case, and it reads no clock.
    pub fn is_closed(&self) -> bool {
        self.open_until.load(Ordering::Relaxed) == 0
    }

    /// Whether a request may try now.
    pub fn admits(&self, now: Instant) -> bool {
        let open_until = self.open_until.load(Ordering::Relaxed);
        if open_until == 0 {
            return true;
        }
        let now = self.millis(now);
        // Of all requests that find the pause over, only the one that moves the mark forward tries.
        // The others see the new mark and are refused for another pause.
        now >= open_until
            && self
                .open_until
                .compare_exchange(
                    open_until,
                    now + millis(self.rules.pause),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// Counts an answered request, which closes the breaker.
    pub fn succeeded(&self) {
        // The usual case writes nothing, so that threads do not fight over the cache line.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            // Any success closes the breaker, not only that of the trial: the server evidently
            // answers.
            self.open_until.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a failed request, which may open the breaker.
    pub fn failed(&self, now: Instant) {
        let now = self.millis(now);
        if self.open_until.load(Ordering::Relaxed) != 0 {
            // The trial failed, or a request that began before: the pause starts again.
            self.open_until.store(now + millis(self.rules.pause), Ordering::Relaxed);
            return;
        }
        let first = self.first_failure.load(Ordering::Relaxed);
        // A failure outside of the window starts the count again: rare failures over hours must not
        // add up.
        if self.failures.load(Ordering::Relaxed) == 0 || now.saturating_sub(first) > millis(self.rules.window)
        {
            self.first_failure.store(now, Ordering::Relaxed);
            self.failures.store(1, Ordering::Relaxed);
        } else {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        // Read again after the addition: of two threads that fail at the same moment, at least one
        // sees the full count.
        if self.failures.load(Ordering::Relaxed) >= self.rules.failures {
            self.open_until.store(now + millis(self.rules.pause), Ordering::Relaxed);
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        // Never zero, which means "never" in the fields above.
        millis(now.duration_since(self.started)) + 1
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: BreakerRules =
        BreakerRules { failures: 5, window: Duration::from_secs(10), pause: Duration::from_secs(10) };

    #[test]
    fn five_failures_in_a_row_open_it_and_one_request_tries_again() {
        let breaker = Breaker::new(RULES);
        let start = monotonic_now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for _ in 0..4 {
            breaker.failed(at(0));
            assert!(breaker.admits(at(0)));
        }
        breaker.succeeded();
        for _ in 0..4 {
            breaker.failed(at(0));
        }
        assert!(breaker.admits(at(0)), "the success between counts");
        breaker.failed(at(0));
        assert!(!breaker.admits(at(0)), "five in a row");
        assert!(!breaker.admits(at(9)));
        assert!(breaker.admits(at(11)), "one may try");
        assert!(!breaker.admits(at(11)), "only one");
        breaker.failed(at(11));
        assert!(!breaker.admits(at(20)), "the trial failed, so it rests again");
        assert!(breaker.admits(at(22)));
        breaker.succeeded();
        assert!(breaker.admits(at(22)) && breaker.admits(at(22)), "closed again");
    }

    #[test]
    fn its_rules_are_the_operators() {
        let rules =
            BreakerRules { failures: 1, window: Duration::from_secs(1), pause: Duration::from_secs(3) };
        let breaker = Breaker::new(rules);
        let start = monotonic_now();
        breaker.failed(start);
        assert!(!breaker.admits(start + Duration::from_secs(2)), "one failure is enough");
        assert!(breaker.admits(start + Duration::from_secs(4)), "the pause is over");
        let rules = BreakerRules { failures: 2, ..rules };
        let breaker = Breaker::new(rules);
        breaker.failed(start);
        breaker.failed(start + Duration::from_secs(2));
        assert!(breaker.admits(start + Duration::from_secs(2)), "two, but not within the window");
    }

    #[test]
    fn rare_failures_do_not_add_up() {
        let breaker = Breaker::new(RULES);
        let start = monotonic_now();
        for count in 0..12 {
            let now = start + Duration::from_secs(3 * count);
            breaker.failed(now);
            assert!(breaker.admits(now));
        }
    }
}
