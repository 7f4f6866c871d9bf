//! A host that keeps failing is left alone for a moment.

use crate::fleet::HostId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When a host is left alone, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BreakerRules {
    /// So many failures in a row,
    pub(crate) failures: u32,
    /// within this time, are enough.
    pub(crate) window: Duration,
    /// How long nobody tries then.
    pub(crate) pause: Duration,
}

impl BreakerRules {
    pub(crate) const fn of(config: &crate::config::Config) -> Self {
        let fleet = &config.fleet;
        Self { failures: fleet.breaker_failures, window: fleet.breaker_window, pause: fleet.breaker_pause }
    }
}

/// The breakers of all hosts, shared by the edge's threads.
#[derive(Clone, Debug)]
pub(crate) struct Breakers {
    rules: BreakerRules,
    started: Instant,
    by_host: Arc<Mutex<HashMap<HostId, Arc<Breaker>>>>,
}

impl Breakers {
    pub(crate) fn new(rules: BreakerRules) -> Self {
        Self { rules, started: Instant::now(), by_host: Arc::default() }
    }

    /// One for a host that nobody shares.
    pub(crate) fn another(&self) -> Arc<Breaker> {
        Arc::new(Breaker::new(self.rules, self.started))
    }

    pub(crate) fn of(&self, host: &HostId) -> Arc<Breaker> {
        let mut by_host = self.by_host.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            by_host.entry(host.clone()).or_insert_with(|| Arc::new(Breaker::new(self.rules, self.started))),
        )
    }
}

/// Counts a host's failures in a row.
///
/// Enough of them within the window open it; it then refuses for the pause, lets one request try, and closes again
/// when that one, or any other, is answered.
#[derive(Debug)]
pub(crate) struct Breaker {
    rules: BreakerRules,
    /// Times below are milliseconds since this, plus one.
    started: Instant,
    /// Failures since the last success, or since `first_failure` grew old.
    failures: AtomicU32,
    first_failure: AtomicU64,
    /// Until when nobody may try; zero while closed.
    open_until: AtomicU64,
}

impl Breaker {
    const fn new(rules: BreakerRules, started: Instant) -> Self {
        Self {
            rules,
            started,
            failures: AtomicU32::new(0),
            first_failure: AtomicU64::new(0),
            open_until: AtomicU64::new(0),
        }
    }

    /// Whether nothing is amiss: the usual case, which costs no look at the clock.
    pub(crate) fn is_closed(&self) -> bool {
        self.open_until.load(Ordering::Relaxed) == 0
    }

    /// Whether a request may try now.
    pub(crate) fn admits(&self, now: Instant) -> bool {
        let open_until = self.open_until.load(Ordering::Relaxed);
        if open_until == 0 {
            return true;
        }
        let now = self.millis(now);
        // Whoever moves the mark forward is the one that tries.
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

    pub(crate) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.open_until.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn failed(&self, now: Instant) {
        let now = self.millis(now);
        if self.open_until.load(Ordering::Relaxed) != 0 {
            self.open_until.store(now + millis(self.rules.pause), Ordering::Relaxed);
            return;
        }
        let first = self.first_failure.load(Ordering::Relaxed);
        if self.failures.load(Ordering::Relaxed) == 0 || now.saturating_sub(first) > millis(self.rules.window)
        {
            self.first_failure.store(now, Ordering::Relaxed);
            self.failures.store(1, Ordering::Relaxed);
        } else {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        if self.failures.load(Ordering::Relaxed) >= self.rules.failures {
            self.open_until.store(now + millis(self.rules.pause), Ordering::Relaxed);
        }
    }

    fn millis(&self, now: Instant) -> u64 {
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
        let breaker = Breakers::new(RULES).of(&"one".into());
        let start = Instant::now();
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
        let breaker = Breakers::new(rules).of(&"one".into());
        let start = Instant::now();
        breaker.failed(start);
        assert!(!breaker.admits(start + Duration::from_secs(2)), "one failure is enough");
        assert!(breaker.admits(start + Duration::from_secs(4)), "the pause is over");
        let rules = BreakerRules { failures: 2, ..rules };
        let breaker = Breakers::new(rules).of(&"two".into());
        breaker.failed(start);
        breaker.failed(start + Duration::from_secs(2));
        assert!(breaker.admits(start + Duration::from_secs(2)), "two, but not within the window");
    }

    #[test]
    fn rare_failures_do_not_add_up() {
        let breaker = Breakers::new(RULES).of(&"one".into());
        let start = Instant::now();
        for count in 0..12 {
            let now = start + Duration::from_secs(3 * count);
            breaker.failed(now);
            assert!(breaker.admits(now));
        }
    }
}
