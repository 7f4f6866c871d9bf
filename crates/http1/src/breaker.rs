//! A circuit breaker: requests to a server that keeps failing are refused for a moment.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::monotonic_now;
use tokio::time::Instant;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct BreakerRules {
    /// The fewest failures within `window` that open the breaker. They also have to be half of all
    /// requests within it.
    pub failures: u32,
    /// The time over which failures and answers are counted.
    pub window: Duration,
    /// How long an open breaker refuses requests.
    pub pause: Duration,
}

/// Who answers a request, as far as the caller knows. It decides whose failure a missing answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    /// The server alone. Its silence and a broken connection are failures of the server.
    Server,
    /// Perhaps another server behind it, or one that a client chose. Only what cannot come from
    /// there counts as a failure: no connection, and bytes that are not HTTP.
    Behind,
}

/// Measures how often one server fails, for all threads.
///
/// The breaker opens when enough requests within a sliding window failed, and they are at least
/// half of all. It then refuses requests for the pause and lets one request try. An answer to that
/// request closes the breaker, and its failure starts another pause. A trial without an outcome,
/// such as a cancelled one, gives its turn to the next request.
///
/// All orderings are relaxed. The counters guard no other memory, and a race costs at most a count
/// or one request too many.
#[derive(Debug)]
pub struct Breaker {
    rules: BreakerRules,
    /// The times below are milliseconds since this instant, plus one, so that zero means "never".
    started: Instant,
    buckets: [AtomicU64; 10],
    /// From when the next trial may begin, for each [`Answerer`]. Zero while the breaker is closed.
    ///
    /// The two have turns of their own. A request that waits for a silent server behind this one
    /// shows nothing about this one, so a client that sends many of them could otherwise use up
    /// every trial and keep the breaker open.
    next_trial: [AtomicU64; 2],
}

/// The one request that tries whether the server is well again.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    answerer: Answerer,
    /// The mark that this trial has set in `next_trial`.
    mark: u64,
}

/// The breaker is open, and it is not the time for a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open;

impl Breaker {
    /// A closed breaker.
    pub fn new(rules: BreakerRules) -> Self {
        Self {
            rules,
            started: monotonic_now(),
            buckets: array::from_fn(|_| AtomicU64::new(0)),
            next_trial: array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Whether the breaker is closed. This is the usual case, and it reads no clock.
    pub fn is_closed(&self) -> bool {
        self.next_trial[0].load(Ordering::Relaxed) == 0
    }

    /// Admits a request, if it may try now.
    ///
    /// # Errors
    ///
    /// [`Open`] when the server failed too often and another request has the turn to try.
    pub fn admit(&self, answerer: Answerer, now: Instant) -> Result<Option<Trial>, Open> {
        let next = self.next_trial(answerer);
        let from = next.load(Ordering::Relaxed);
        if from == 0 {
            return Ok(None);
        }
        let now = self.millis(now);
        let mark = now + millis(self.rules.pause);
        // Of all requests that find the pause over, only the one that moves the mark forward tries.
        // The others see the new mark and are refused for another pause.
        let is_first =
            now >= from && next.compare_exchange(from, mark, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_first { Ok(Some(Trial { answerer, mark })) } else { Err(Open) }
    }

    /// Counts an answered request. An answered trial closes the breaker. `now` may be up to a
    /// second old.
    pub fn succeeded(&self, trial: Option<Trial>, now: Instant) {
        if trial.is_some() {
            // The old failures would open the breaker again at the next one.
            for bucket in &self.buckets {
                bucket.store(0, Ordering::Relaxed);
            }
            for next in &self.next_trial {
                next.store(0, Ordering::Relaxed);
            }
        }
        self.count(self.millis(now), false);
    }

    /// Counts a failed request, which may open the breaker. A failed trial starts another pause.
    pub fn failed(&self, trial: Option<Trial>, now: Instant) {
        let now = self.millis(now);
        let until = now + millis(self.rules.pause);
        if let Some(trial) = trial {
            self.next_trial(trial.answerer).store(until, Ordering::Relaxed);
            return;
        }
        self.count(now, true);
        // Requests that began before the breaker opened do not prolong the pause when they fail.
        if self.is_closed() && self.fails_too_often(now) {
            for next in &self.next_trial {
                next.store(until, Ordering::Relaxed);
            }
        }
    }

    /// Gives the turn of a trial without an outcome to the next request.
    pub fn give_back(&self, trial: Trial) {
        // Not when another trial has begun since, or the breaker has closed.
        let next = self.next_trial(trial.answerer);
        let _ = next.compare_exchange(trial.mark, 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    const fn next_trial(&self, answerer: Answerer) -> &AtomicU64 {
        match answerer {
            Answerer::Server => &self.next_trial[0],
            Answerer::Behind => &self.next_trial[1],
        }
    }

    fn count(&self, now: u64, is_failure: bool) {
        let age = self.age(now);
        let place = usize::try_from(age % BUCKETS).unwrap_or_default();
        let Some(bucket) = self.buckets.get(place) else { return };
        let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
            let known = Counts::unpack(packed);
            // The clock of one thread may be behind that of another. A count that comes too late is
            // dropped.
            let known = match known.age.cmp(&age) {
                std::cmp::Ordering::Greater => return None,
                std::cmp::Ordering::Equal => known,
                std::cmp::Ordering::Less => Counts { age, failures: 0, all: 0 },
            };
            Some(known.plus(is_failure).pack())
        });
    }

    /// Whether enough requests failed, and at least half of all.
    fn fails_too_often(&self, now: u64) -> bool {
        let age = self.age(now);
        let (mut failures, mut all) = (0, 0);
        for bucket in &self.buckets {
            let counts = Counts::unpack(bucket.load(Ordering::Relaxed));
            // A bucket that was not used for longer than the window still has old counts.
            if counts.age + BUCKETS > age {
                failures += counts.failures;
                all += counts.all;
            }
        }
        failures >= u64::from(self.rules.failures) && 2 * failures >= all
    }

    /// The number of the bucket since the start.
    fn age(&self, now: u64) -> u64 {
        // 40 bits of buckets last for 348 years with buckets of 10 ms.
        (now / (millis(self.rules.window) / BUCKETS).max(1)) & AGE_MASK
    }

    fn millis(&self, now: Instant) -> u64 {
        // Never zero, which means "never" in the fields above.
        millis(now.duration_since(self.started)) + 1
    }
}

/// The requests of one bucket, which is a tenth of the window. Packed into one word, so that age
/// and counts change together.
#[derive(Clone, Copy)]
struct Counts {
    age: u64,
    failures: u64,
    all: u64,
}

impl Counts {
    const fn unpack(packed: u64) -> Self {
        Self {
            age: packed >> (2 * COUNT_BITS),
            failures: (packed >> COUNT_BITS) & COUNT_MASK,
            all: packed & COUNT_MASK,
        }
    }

    const fn pack(self) -> u64 {
        (self.age << (2 * COUNT_BITS)) | (self.failures << COUNT_BITS) | self.all
    }

    fn plus(self, is_failure: bool) -> Self {
        // A full bucket counts in halves from then on. The rate stays what it was.
        let half = u32::from(self.all == COUNT_MASK);
        Self {
            age: self.age,
            failures: (self.failures >> half) + u64::from(is_failure),
            all: (self.all >> half) + 1,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The buckets of a window.
const BUCKETS: u64 = 10;
/// The bits of each of the two counts of a bucket. The rest of the word is its age.
const COUNT_BITS: u32 = 12;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const AGE_MASK: u64 = u64::MAX >> (2 * COUNT_BITS);

#[cfg(test)]
mod tests {
    use super::Answerer::{Behind, Server};
    use super::*;

    const RULES: BreakerRules =
        BreakerRules { failures: 5, window: Duration::from_secs(10), pause: Duration::from_secs(10) };

    fn breaker(rules: BreakerRules) -> (Breaker, impl Fn(u64) -> Instant) {
        let start = monotonic_now();
        (Breaker::new(rules), move |seconds| start + Duration::from_secs(seconds))
    }

    fn is_refused(breaker: &Breaker, now: Instant) -> bool {
        breaker.admit(Server, now).is_err()
    }

    #[test]
    fn it_opens_by_the_rate_of_failures_and_not_by_those_in_a_row() {
        let (breaker, at) = breaker(RULES);
        for _ in 0..100 {
            breaker.succeeded(None, at(0));
        }
        for count in 0..99 {
            breaker.failed(None, at(3));
            assert!(!is_refused(&breaker, at(3)), "{count}: less than half");
        }
        breaker.failed(None, at(3));
        assert!(is_refused(&breaker, at(3)), "half of 200");
        let (breaker, at) = self::breaker(RULES);
        for count in 0..9 {
            assert!(!is_refused(&breaker, at(0)), "{count}");
            if count % 2 == 0 {
                breaker.failed(None, at(0));
            } else {
                breaker.succeeded(None, at(0));
            }
        }
        assert!(is_refused(&breaker, at(0)), "five of nine, although never two in a row");
    }

    #[test]
    fn what_left_the_window_no_longer_counts() {
        let (breaker, at) = breaker(RULES);
        for count in 0..12 {
            breaker.failed(None, at(3 * count));
            assert!(!is_refused(&breaker, at(3 * count)), "rare failures do not add up");
        }
        let (breaker, at) = self::breaker(RULES);
        for _ in 0..1000 {
            breaker.succeeded(None, at(0));
        }
        for _ in 0..5 {
            breaker.failed(None, at(12));
        }
        assert!(is_refused(&breaker, at(12)), "the answers are too old to count");
    }

    #[test]
    fn the_window_slides() {
        let (breaker, at) = breaker(RULES);
        for second in [7, 8, 9, 12, 13] {
            assert!(!is_refused(&breaker, at(second)));
            breaker.failed(None, at(second));
        }
        assert!(is_refused(&breaker, at(13)), "five within seven seconds");
    }

    #[test]
    fn a_busy_server_is_counted_without_overflow() {
        let (breaker, at) = breaker(RULES);
        for _ in 0..3 * COUNT_MASK {
            breaker.succeeded(None, at(0));
        }
        for _ in 0..COUNT_MASK / 4 {
            breaker.failed(None, at(0));
        }
        assert!(!is_refused(&breaker, at(0)));
        for _ in 0..3 * COUNT_MASK {
            breaker.failed(None, at(0));
        }
        assert!(is_refused(&breaker, at(0)));
    }

    #[test]
    fn one_request_tries_after_the_pause() {
        let (breaker, at) = breaker(RULES);
        for _ in 0..5 {
            breaker.failed(None, at(0));
        }
        assert!(is_refused(&breaker, at(9)));
        // A request that began before, and an answer to one, change nothing.
        breaker.failed(None, at(9));
        breaker.succeeded(None, at(9));
        let trial = breaker.admit(Server, at(11)).unwrap();
        assert!(trial.is_some() && is_refused(&breaker, at(11)), "only one");
        breaker.failed(trial, at(12));
        assert!(is_refused(&breaker, at(21)), "the trial failed, so it rests again");
        let trial = breaker.admit(Server, at(23)).unwrap();
        breaker.succeeded(trial, at(23));
        assert!(breaker.is_closed() && breaker.admit(Server, at(23)).unwrap().is_none(), "closed again");
        for _ in 0..4 {
            breaker.failed(None, at(24));
        }
        assert!(breaker.is_closed(), "the failures from before no longer count");
    }

    #[test]
    fn a_trial_without_an_outcome_goes_to_the_next() {
        let (breaker, at) = breaker(RULES);
        for _ in 0..5 {
            breaker.failed(None, at(0));
        }
        let cancelled = breaker.admit(Server, at(11)).unwrap().unwrap();
        assert!(is_refused(&breaker, at(11)));
        breaker.give_back(cancelled);
        let trial = breaker.admit(Server, at(12)).unwrap();
        assert!(trial.is_some());
        breaker.give_back(cancelled);
        assert!(is_refused(&breaker, at(12)), "another has the turn now");
        breaker.succeeded(trial, at(12));
        breaker.give_back(cancelled);
        assert!(breaker.is_closed());
    }

    #[test]
    fn requests_that_others_answer_use_up_no_trial_of_the_server() {
        let (breaker, at) = breaker(RULES);
        for _ in 0..5 {
            breaker.failed(None, at(0));
        }
        assert!(breaker.admit(Behind, at(9)).is_err());
        assert!(breaker.admit(Behind, at(11)).unwrap().is_some());
        assert!(breaker.admit(Behind, at(11)).is_err());
        let trial = breaker.admit(Server, at(11)).unwrap();
        breaker.succeeded(trial, at(11));
        assert!(breaker.admit(Behind, at(11)).unwrap().is_none(), "closed for both");
    }

    #[test]
    fn its_rules_are_the_operators() {
        let rules =
            BreakerRules { failures: 1, window: Duration::from_secs(1), pause: Duration::from_secs(3) };
        let (breaker, at) = breaker(rules);
        breaker.failed(None, at(0));
        assert!(is_refused(&breaker, at(2)), "one failure is enough");
        assert!(!is_refused(&breaker, at(4)), "the pause is over");
        let (breaker, at) = self::breaker(BreakerRules { failures: 2, ..rules });
        breaker.failed(None, at(0));
        breaker.failed(None, at(2));
        assert!(!is_refused(&breaker, at(2)), "two, but not within the window");
    }
}
