//! One window of calls as a PDS counts them: it begins with the first call and lasts for its time.
//!
//! A PDS counts the calls of all replicas together, so each replica has its share of the PDS's
//! limit. Anyone may ask for reads, so a quarter of the share is reserved for linked accounts, or as
//! much as they are expected to need.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::rules::{BudgetError, CallClass};
use crate::base::Timestamp;
use crate::config::Rate;

/// Calls in a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    rate: Rate,
    /// The PDS's limit, or Genkan's own setting until the PDS has named one.
    whole: u32,
    /// The number of replicas that share the limit.
    replicas: u32,
    used: u32,
    /// The part of `used` that linked accounts had.
    linked: u32,
    /// The calls that linked accounts are expected to make until the window ends.
    expected: u32,
    /// Counts the windows.
    number: u32,
    /// The calls that were counted here. Unlike `used`, the PDS cannot correct it.
    sent: u32,
    ends: Instant,
    /// The PDS refuses reads until this time.
    reads_resume: Instant,
}

/// What an answer says about one rate-limit window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateLimitReport {
    /// Whether the answer refuses its call.
    is_refusal: bool,
    most: Option<u32>,
    remaining: u32,
    /// How long the window still lasts.
    left: Duration,
    /// The length of the whole window, if the answer names it.
    length: Option<Duration>,
}

impl Window {
    pub(super) const fn new(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            whole: rate.count,
            replicas: 1,
            used: 0,
            linked: 0,
            expected: 0,
            number: 0,
            sent: 0,
            ends: now,
            reads_resume: now,
        }
    }

    /// Takes the number of replicas that are alive.
    ///
    /// A share shrinks at once and grows with the next window: a replica that left may have used its
    /// share of this one.
    pub(super) fn share(&mut self, replicas: u32, now: Instant) {
        self.replicas = if self.is_over(now) { replicas } else { self.replicas.max(replicas) }.max(1);
    }

    /// This process's share of the limit.
    fn most(&self) -> u32 {
        (self.whole / self.replicas).max(1)
    }

    /// A quarter of the calls, which is for linked accounts: one of two or three. A single call is
    /// for everyone.
    fn quarter(&self) -> u32 {
        if self.most() < 2 { 0 } else { self.most().div_ceil(4) }
    }

    /// The calls that are reserved for linked accounts and that they have not used.
    fn reserved(&self) -> u32 {
        // A quarter is not reserved for them, however fast they called lately.
        let most = self.most().saturating_sub(self.quarter()).saturating_sub(self.linked);
        self.quarter().saturating_sub(self.linked).max(self.expected.min(most))
    }

    /// Takes how many calls linked accounts are expected to make until the window ends. Reads leave as
    /// many.
    pub(super) const fn expect(&mut self, calls: u32) {
        self.expected = calls;
    }

    /// Which window it is since it is counted.
    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// The calls that are left for this class.
    pub(super) fn remaining(&self, class: CallClass) -> u32 {
        let kept = match class {
            CallClass::Linked => 0,
            CallClass::Read => self.reserved(),
        };
        self.most().saturating_sub(self.used).saturating_sub(kept)
    }

    pub(super) fn rate(&self) -> Rate {
        Rate { count: self.most(), per: self.rate.per }
    }

    pub(super) const fn length(&self) -> Duration {
        self.rate.per
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.ends
    }

    pub(super) fn is_untouched(&self, now: Instant) -> bool {
        (self.is_over(now) || self.used == 0) && now >= self.reads_resume
    }

    pub(super) fn is_used_up(&self, class: CallClass, now: Instant) -> bool {
        self.resumes(class, now) > now
    }

    /// When a call of this class may leave. It is the past or now if there are calls left.
    pub(super) fn resumes(&self, class: CallClass, now: Instant) -> Instant {
        let window = if self.remaining(class) == 0 { self.ends } else { now };
        match class {
            CallClass::Linked => window,
            CallClass::Read => window.max(self.reads_resume),
        }
    }

    /// Whether at least a quarter of the calls is used.
    ///
    /// For linked accounts this includes half of the calls that are reserved for them, so that no
    /// number of reads makes their first calls wait.
    pub(super) fn is_scarce(&self, class: CallClass, now: Instant) -> bool {
        let has_used_own = class == CallClass::Read || self.linked >= self.quarter().div_ceil(2);
        !self.is_over(now) && has_used_own && self.used >= self.most().div_ceil(4)
    }

    /// How many calls were sent in this window: of linked accounts, and all.
    pub(super) fn sent(&self, now: Instant) -> (u32, u32) {
        if self.is_over(now) { (0, 0) } else { (self.linked, self.sent) }
    }

    /// The time until the window ends.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.ends.saturating_duration_since(now)
    }

    /// The refusal of a call of this class, for which no call is left.
    pub(super) fn refusal(&self, class: CallClass, now: Instant) -> BudgetError {
        BudgetError { rate: self.rate(), wait: self.resumes(class, now).saturating_duration_since(now) }
    }

    /// The interval between calls of a class at which its remaining calls, without those that are
    /// `kept`, last until the end.
    pub(super) fn pace(&self, class: CallClass, kept: u32, now: Instant) -> Duration {
        self.left(now) / self.remaining(class).saturating_sub(kept).max(1)
    }

    /// Counts a call.
    pub(super) fn take(&mut self, class: CallClass, now: Instant) {
        if self.is_over(now) {
            self.begin(0);
            self.ends = now + self.rate.per;
        }
        self.used = self.used.saturating_add(1);
        self.sent = self.sent.saturating_add(1);
        if class == CallClass::Linked {
            self.linked = self.linked.saturating_add(1);
        }
    }

    /// Corrects the count by what the PDS says.
    pub(super) fn correct(&mut self, told: &RateLimitReport, now: Instant) {
        if let Some(most) = told.most {
            self.whole = most.max(1);
        }
        let ends = now + told.left.min(self.rate.per);
        // The PDS counts all replicas, so what remains is shared like the limit. The higher count is
        // the newer one: an answer that travelled for longer misses the calls since.
        let used = self.most().saturating_sub(told.remaining / self.replicas);
        if self.is_over(now) {
            self.begin(used);
        } else {
            self.used = self.used.max(used);
        }
        self.ends = ends;
    }

    /// Closes the window to everyone, because the PDS refuses calls for this time.
    pub(super) fn close(&mut self, wait: Duration, now: Instant) {
        if self.is_over(now) {
            self.begin(0);
        }
        self.used = self.most();
        self.ends = now + wait.min(self.rate.per);
    }

    const fn begin(&mut self, used: u32) {
        (self.used, self.linked, self.sent) = (used, 0, 0);
        self.number = self.number.wrapping_add(1);
    }

    /// Closes the window to reads, because the PDS refuses them for this time.
    pub(super) fn close_to_reads(&mut self, wait: Duration, now: Instant) {
        self.reads_resume = now + wait.min(self.rate.per);
    }

    /// Whether a report names this window. A lower limit of the same length may be one of a single
    /// method.
    pub(super) fn is_named_by(&self, told: &RateLimitReport) -> bool {
        told.length == Some(self.rate.per) && self.lower_limit(told).is_none()
    }

    /// Returns the limit of a report for a window as long as this one, if it is lower than the known
    /// limit.
    pub(super) fn lower_limit(&self, told: &RateLimitReport) -> Option<u32> {
        told.most.filter(|most| told.length == Some(self.rate.per) && *most < self.whole)
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
        // The policy begins with the limit, for answers without `ratelimit-limit`.
        let quota = policy.and_then(|policy| policy.split([';', ',']).next()?.trim().parse().ok());
        let most = number("ratelimit-limit").or(quota);
        Some(Self {
            is_refusal: is_over,
            most: most.map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
            remaining: u32::try_from(remaining?).unwrap_or(u32::MAX),
            left: wait.or(reset).or_else(|| is_over.then_some(UNSAID))?.min(LONGEST),
            length,
        })
    }

    pub(super) const fn is_refusal(&self) -> bool {
        self.is_refusal
    }

    /// Whether the report names no window.
    pub(super) const fn is_bare(&self) -> bool {
        self.length.is_none()
    }

    /// Whether the report names this length.
    pub(super) fn says(&self, length: Duration) -> bool {
        self.length == Some(length)
    }

    /// How long the window still lasts.
    pub(super) const fn left(&self) -> Duration {
        self.left
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
            is_refusal: false,
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

    fn window(count: u32, now: Instant) -> Window {
        Window::new(Rate { count, per: Duration::from_secs(10) }, now)
    }

    const LINKED: CallClass = CallClass::Linked;
    const READ: CallClass = CallClass::Read;

    #[test]
    fn a_window_begins_with_its_first_call_and_ends_in_time() {
        let now = monotonic_now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut window = window(4, now);
        assert!(!window.is_scarce(LINKED, at(5)));
        window.take(LINKED, at(5));
        assert!(window.is_scarce(LINKED, at(5)) && !window.is_used_up(LINKED, at(5)));
        window.take(LINKED, at(5));
        assert_eq!(window.pace(LINKED, 0, at(5)), Duration::from_secs(5));
        assert_eq!(window.pace(LINKED, 1, at(5)), Duration::from_secs(10));
        assert_eq!(window.pace(LINKED, 9, at(5)), Duration::from_secs(10));
        window.take(LINKED, at(6));
        window.take(LINKED, at(7));
        assert!(window.is_used_up(LINKED, at(14)));
        assert_eq!(window.left(at(7)), Duration::from_secs(8));
        assert!(!window.is_used_up(LINKED, at(15)) && !window.is_scarce(LINKED, at(15)));
        let told = RateLimitReport {
            is_refusal: false,
            most: Some(10),
            remaining: 1,
            left: Duration::from_secs(3),
            length: None,
        };
        window.correct(&told, at(20));
        assert!(!window.is_used_up(LINKED, at(20)));
        window.take(LINKED, at(20));
        assert!(window.is_used_up(LINKED, at(20)) && window.is_over(at(23)));
    }

    #[test]
    fn reads_leave_a_quarter_to_linked_accounts() {
        let now = monotonic_now();
        let mut window = window(40, now);
        for _ in 0..30 {
            assert!(!window.is_used_up(READ, now));
            window.take(READ, now);
        }
        assert!(window.is_used_up(READ, now) && window.is_scarce(READ, now));
        for number in 0..10 {
            assert_eq!(window.is_scarce(LINKED, now), number >= 5, "{number}");
            assert!(!window.is_used_up(LINKED, now));
            window.take(LINKED, now);
        }
        assert!(window.is_used_up(LINKED, now));
        // Linked accounts may use what reads leave.
        let mut window = tests::window(40, now);
        (0..40).for_each(|_| window.take(LINKED, now));
        assert!(window.is_used_up(LINKED, now) && window.is_used_up(READ, now));
    }

    #[test]
    fn reads_leave_what_linked_accounts_are_expected_to_need_and_go_on() {
        let now = monotonic_now();
        let mut window = window(40, now);
        window.expect(24);
        let mut reads = 0;
        while !window.is_used_up(READ, now) {
            window.take(READ, now);
            reads += 1;
        }
        assert_eq!(reads, 16);
        assert!(!window.is_used_up(LINKED, now));
        let mut window = tests::window(40, now);
        window.expect(4000);
        (0..20).for_each(|_| window.take(LINKED, now));
        assert_eq!(window.remaining(READ), 10);
        assert_eq!(window.remaining(LINKED), 20);
    }

    #[test]
    fn reads_leave_one_of_few_calls() {
        let now = monotonic_now();
        for (count, reads) in [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3)] {
            let mut window = window(count, now);
            for _ in 0..reads {
                assert!(!window.is_used_up(READ, now), "{count}");
                window.take(READ, now);
            }
            assert!(window.is_used_up(READ, now), "{count}");
            assert_eq!(window.is_used_up(LINKED, now), count == 1, "{count}");
        }
        // A share of three calls: four replicas at a PDS that allows twelve.
        let mut window = window(12, now);
        window.share(4, now);
        (0..2).for_each(|_| window.take(READ, now));
        assert!(window.is_used_up(READ, now) && !window.is_scarce(LINKED, now));
    }

    #[test]
    fn what_a_pds_says_is_left_is_left_to_linked_accounts_first() {
        let now = monotonic_now();
        let mut window = window(40, now);
        window.take(READ, now);
        let told = RateLimitReport {
            is_refusal: false,
            most: Some(40),
            remaining: 10,
            left: Duration::from_secs(3),
            length: None,
        };
        window.correct(&told, now);
        assert!(window.is_used_up(READ, now) && !window.is_scarce(LINKED, now));
    }

    #[test]
    fn replicas_share_a_limit_and_a_share_grows_with_the_next_window_only() {
        let now = monotonic_now();
        let mut window = window(40, now);
        window.share(1, now);
        (0..10).for_each(|_| window.take(LINKED, now));
        window.share(4, now);
        assert!(window.is_used_up(LINKED, now), "a quarter is used");
        window.share(1, now);
        assert!(window.is_used_up(LINKED, now), "those that left may have used the rest");
        let next = now + Duration::from_secs(10);
        window.share(2, next);
        (0..20).for_each(|_| {
            assert!(!window.is_used_up(LINKED, next));
            window.take(LINKED, next);
        });
        assert!(window.is_used_up(LINKED, next));
        // What remains at the PDS is shared as well.
        let mut window = tests::window(40, now);
        window.share(2, now);
        let told = RateLimitReport {
            is_refusal: false,
            most: Some(60),
            remaining: 20,
            left: Duration::from_secs(3),
            length: None,
        };
        window.correct(&told, now);
        assert_eq!((window.rate().count, window.remaining(LINKED)), (30, 10));
    }
}
