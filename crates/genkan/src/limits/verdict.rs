//! Verdicts of a limit, and the windows that it counts in.

use std::time::Duration;

use crate::base::Timestamp;
use crate::config::Rate;

/// The result of counting one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) rate: Rate,
    pub(crate) allowed: bool,
    pub(crate) remaining: u32,
    pub(crate) reset: Timestamp,
}

/// A client, an account or a server is over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more requests than the limit allows")]
pub(crate) struct OverLimit {
    pub(crate) verdict: Verdict,
    /// Seconds until another try can succeed.
    pub(crate) retry_after: u64,
}

impl Verdict {
    pub(super) fn of(rate: Rate, count: u64, window_start: Timestamp) -> Self {
        let most = u64::from(rate.count);
        Self {
            rate,
            // `count` includes the present attempt, so the last allowed one equals the limit.
            allowed: count <= most,
            // Zero once the limit is exceeded, while the count keeps growing in the window.
            remaining: u32::try_from(most.saturating_sub(count)).unwrap_or(u32::MAX),
            reset: window_start.plus(rate.per),
        }
    }

    /// Refuses what the limit does not allow.
    pub(crate) fn check(self, now: Timestamp) -> Result<(), OverLimit> {
        if self.allowed {
            Ok(())
        } else {
            Err(OverLimit { verdict: self, retry_after: self.retry_after(now) })
        }
    }

    /// Whole seconds until another attempt can succeed, at least one: the value of `Retry-After`.
    pub(super) fn retry_after(&self, now: Timestamp) -> u64 {
        // Rounded up, so that a client that waits exactly this long is not refused again.
        self.reset.since(now).as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)
    }

    /// Returns the limit that a client should watch: the one that it will reach first.
    pub(super) fn tighter(self, other: Self) -> Self {
        match (self.allowed, other.allowed) {
            (true, false) => other,
            (false, true) => self,
            // If both refuse, the later reset counts. If both allow, the one nearer to its limit.
            (false, false) => {
                if other.reset > self.reset {
                    other
                } else {
                    self
                }
            }
            (true, true) => {
                if other.remaining < self.remaining {
                    other
                } else {
                    self
                }
            }
        }
    }
}

/// Returns the start of the window that contains `now`.
pub(super) fn window_start(now: Timestamp, per: Duration) -> Timestamp {
    let per = i64::try_from(per.as_millis()).unwrap_or(i64::MAX).max(1);
    // Windows are multiples of their length since 1970, so all replicas agree on them without
    // talking to each other.
    Timestamp::from_millis(now.as_millis().div_euclid(per) * per)
}
