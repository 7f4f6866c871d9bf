//! One window of calls as a PDS counts them: it begins with the first call and lasts for its time.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use crate::base::Timestamp;
use crate::config::Rate;

/// Calls in a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    rate: Rate,
    /// The PDS's limit, or Genkan's own setting until the PDS has named one.
    most: u32,
    used: u32,
    ends: Instant,
}

/// What an answer says about one rate-limit window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateLimitReport {
    most: Option<u32>,
    remaining: u32,
    /// How long the window still lasts.
    left: Duration,
    /// The length of the whole window, if the answer names it.
    length: Option<Duration>,
}

impl Window {
    pub(super) const fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, most: rate.count, used: 0, ends: now }
    }

    pub(super) const fn rate(&self) -> Rate {
        Rate { count: self.most, per: self.rate.per }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.ends
    }

    pub(super) fn is_untouched(&self, now: Instant) -> bool {
        self.is_over(now) || self.used == 0
    }

    pub(super) fn is_used_up(&self, now: Instant) -> bool {
        !self.is_over(now) && self.used >= self.most
    }

    /// Whether at least half of the calls are used.
    pub(super) fn is_scarce(&self, now: Instant) -> bool {
        !self.is_over(now) && self.used >= self.most.div_ceil(2)
    }

    /// The time until the window ends.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.ends.saturating_duration_since(now)
    }

    /// The interval between calls at which the remaining calls last until the end.
    pub(super) fn pace(&self, now: Instant) -> Duration {
        self.left(now) / self.most.saturating_sub(self.used).max(1)
    }

    /// Counts a call.
    pub(super) fn take(&mut self, now: Instant) {
        if self.is_over(now) {
            self.used = 0;
            self.ends = now + self.rate.per;
        }
        self.used = self.used.saturating_add(1);
    }

    /// Corrects the count by what the PDS says.
    pub(super) fn correct(&mut self, told: &RateLimitReport, now: Instant) {
        if let Some(most) = told.most {
            self.most = most.max(1);
        }
        let ends = now + told.left.min(self.rate.per);
        // The higher count is the newer one: an answer that travelled for longer misses the calls
        // since.
        let used = self.most.saturating_sub(told.remaining);
        self.used = if self.is_over(now) { used } else { self.used.max(used) };
        self.ends = ends;
    }
}

impl RateLimitReport {
    /// Reads the rate-limit headers of an answer. Returns `None` if it has no such headers.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, clock: Timestamp) -> Option<Self> {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
        let is_over = status == StatusCode::TOO_MANY_REQUESTS;
        let remaining = if is_over { Some(0) } else { number("ratelimit-remaining") };
        let reset = number("ratelimit-reset").map(|reset| until(reset, clock));
        // `Retry-After` counts only on a refusal. On other answers it says when the resource may
        // change.
        let wait = number("retry-after").filter(|_| is_over).map(Duration::from_secs);
        let policy = headers.get("ratelimit-policy").and_then(|policy| policy.to_str().ok());
        let length = policy.and_then(|policy| {
            let seconds = policy.split([';', ',']).find_map(|part| part.trim().strip_prefix("w="))?;
            Some(Duration::from_secs(seconds.parse().ok()?))
        });
        Some(Self {
            most: number("ratelimit-limit").map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
            remaining: u32::try_from(remaining?).unwrap_or(u32::MAX),
            left: wait.or(reset).or_else(|| is_over.then_some(UNSAID))?.min(LONGEST),
            length,
        })
    }

    /// Whether the report may describe a window of this length.
    pub(super) fn is_as_long_as(&self, length: Duration) -> bool {
        self.length.is_none_or(|said| said == length)
    }

    /// Whether the report names this length.
    pub(super) fn says(&self, length: Duration) -> bool {
        self.length == Some(length)
    }

    /// How long no further call is allowed.
    pub(super) fn exhausted_for(&self) -> Option<Duration> {
        (self.remaining == 0).then_some(self.left)
    }
}

/// `ratelimit-reset` is in seconds from now in the IETF drafts, and since the epoch at the
/// reference PDS.
fn until(reset: u64, clock: Timestamp) -> Duration {
    if reset < 1_000_000_000 {
        return Duration::from_secs(reset);
    }
    Timestamp::from_seconds(i64::try_from(reset).unwrap_or(i64::MAX)).since(clock)
}

/// The pause after a refusal that names no time.
const UNSAID: Duration = Duration::from_secs(10);
/// The longest pause that a PDS can impose.
const LONGEST: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monotonic_now;

    const CLOCK: Timestamp = Timestamp::from_seconds(1_700_000_000);

    fn told(status: u16, fields: &[(&'static str, &'static str)]) -> Option<RateLimitReport> {
        let headers = fields
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect();
        RateLimitReport::of(StatusCode::from_u16(status).unwrap(), &headers, CLOCK)
    }

    #[test]
    fn the_reference_and_the_drafts_are_both_understood() {
        let reference = [
            ("ratelimit-limit", "3000"),
            ("ratelimit-remaining", "2999"),
            ("ratelimit-reset", "1700000300"),
            ("ratelimit-policy", "3000;w=300"),
        ];
        let expected = RateLimitReport {
            most: Some(3000),
            remaining: 2999,
            left: Duration::from_mins(5),
            length: Some(Duration::from_mins(5)),
        };
        assert_eq!(told(200, &reference), Some(expected));
        let draft = told(200, &[("ratelimit-remaining", "5"), ("ratelimit-reset", "30")]).unwrap();
        assert_eq!((draft.remaining, draft.left, draft.length), (5, Duration::from_secs(30), None));
        assert_eq!(told(429, &[("retry-after", "7")]).unwrap().exhausted_for(), Some(Duration::from_secs(7)));
        assert_eq!(told(429, &[]).unwrap().exhausted_for(), Some(UNSAID));
        assert_eq!(told(200, &[("retry-after", "7")]), None);
        assert_eq!(told(200, &[("ratelimit-remaining", "many"), ("ratelimit-reset", "30")]), None);
        assert_eq!(told(429, &[("retry-after", "99999999")]).unwrap().left, LONGEST);
    }

    #[test]
    fn a_window_begins_with_its_first_call_and_ends_in_time() {
        let now = monotonic_now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut window = Window::new(Rate { count: 4, per: Duration::from_secs(10) }, now);
        for _ in 0..2 {
            assert!(!window.is_scarce(at(5)));
            window.take(at(5));
        }
        assert!(window.is_scarce(at(5)) && !window.is_used_up(at(5)));
        assert_eq!(window.pace(at(5)), Duration::from_secs(5));
        window.take(at(6));
        window.take(at(7));
        assert!(window.is_used_up(at(14)));
        assert_eq!(window.left(at(7)), Duration::from_secs(8));
        assert!(!window.is_used_up(at(15)) && !window.is_scarce(at(15)));
        let told =
            RateLimitReport { most: Some(10), remaining: 1, left: Duration::from_secs(3), length: None };
        window.correct(&told, at(20));
        assert!(window.is_scarce(at(20)) && !window.is_used_up(at(20)) && window.is_over(at(23)));
        window.take(at(20));
        assert!(window.is_used_up(at(20)));
    }
}
