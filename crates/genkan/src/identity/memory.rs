//! A cache of lookups, bounded by bytes, with one lookup at a time per key. "Not found" is cached for a short
//! time, a failure is not.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Error;
use crate::base::single_flight::SingleFlight;
use crate::base::{ByteCache, CacheSize, Clock, Timestamp, Weigh};

/// Whether an answer may come from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// From the cache if it is young enough. If a new lookup fails, an older answer is used.
    Remembered,
    /// From a lookup that begins now, for decisions that must see the latest change.
    Asked,
}

type Outcome<V> = Result<V, Error>;

/// The outcomes of lookups, by key. Cheap to clone.
pub(super) struct LookupCache<V> {
    inner: Arc<Inner<V>>,
    single_flight: SingleFlight<Outcome<V>>,
}

struct Inner<V> {
    clock: Clock,
    kept: ByteCache<Box<str>, Entry<V>>,
    /// Grows with each [`LookupCache::forget`]. A lookup that began earlier may have read the old state,
    /// so its outcome is not cached.
    forgotten: AtomicU64,
}

#[derive(Clone)]
struct Entry<V> {
    outcome: Outcome<V>,
    at: Timestamp,
}

impl<V: Weigh + Clone + Send + Sync + 'static> LookupCache<V> {
    pub(super) fn new(clock: Clock, size: CacheSize) -> Self {
        let inner = Inner { clock, kept: size.build(), forgotten: AtomicU64::new(0) };
        Self { inner: Arc::new(inner), single_flight: SingleFlight::default() }
    }

    /// Returns the outcome for `key`, from the cache or from one `look_up` that all concurrent
    /// callers share.
    ///
    /// A shared lookup continues when its first caller leaves, because others wait for it. It has the
    /// first caller's share of the places. If it found none, the others look up by themselves.
    pub(super) async fn get<F>(&self, key: &str, freshness: Freshness, look_up: impl Fn() -> F) -> Outcome<V>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        let kept = self.inner.kept.get(key);
        let now = self.inner.clock.now();
        if freshness == Freshness::Asked {
            // Joining a lookup that began earlier could miss the change that the caller wants to
            // see.
            return Box::pin(self.inner.look_up(key, look_up())).await;
        }
        if let Some(kept) = &kept
            && kept.is_young(now)
        {
            return kept.outcome.clone();
        }
        let keeping = || {
            let (inner, name, look_up) = (Arc::clone(&self.inner), key.to_owned(), look_up());
            async move { inner.look_up(&name, look_up).await }
        };
        let shared = self.single_flight.share(key, keeping, |outcome| matches!(outcome, Err(Error::Busy)));
        let outcome = shared.await.unwrap_or_else(|| Err(Error::Passing("the lookup was cancelled".into())));
        match (outcome, kept) {
            // An old answer is better than none while a server is away. A definite "not found"
            // replaces it.
            (Err(trouble), Some(old)) if trouble.is_passing() && old.is_good_enough(now) => old.outcome,
            (outcome, _) => outcome,
        }
    }

    /// Returns the outcome, if it is cached and young enough. Asks no server.
    pub(super) fn recall(&self, key: &str) -> Option<Outcome<V>> {
        let kept = self.inner.kept.get(key)?;
        kept.is_young(self.inner.clock.now()).then_some(kept.outcome)
    }

    pub(super) fn forget(&self, key: &str) {
        // The count grows first, so that a lookup that ends from here on does not keep its
        // outcome.
        self.inner.forgotten.fetch_add(1, Ordering::SeqCst);
        self.single_flight.forget(key);
        self.inner.kept.remove(key);
    }
}

impl<V: Weigh + Clone> Inner<V> {
    async fn look_up(&self, key: &str, look_up: impl Future<Output = Outcome<V>>) -> Outcome<V> {
        let before = self.forgotten.load(Ordering::SeqCst);
        let outcome = look_up.await;
        self.keep(key, &outcome, before);
        outcome
    }

    fn keep(&self, key: &str, outcome: &Outcome<V>, forgotten_before: u64) {
        let unchanged = self.forgotten.load(Ordering::SeqCst) == forgotten_before;
        if unchanged && !outcome.as_ref().is_err_and(Error::is_passing) {
            self.kept.insert(key.into(), Entry { outcome: outcome.clone(), at: self.clock.now() });
        }
    }
}

impl<V> Entry<V> {
    fn is_young(&self, now: Timestamp) -> bool {
        now.is_within(if self.outcome.is_ok() { POSITIVE } else { NEGATIVE }, self.at)
    }

    /// Whether it may be used while a fresh lookup fails.
    fn is_good_enough(&self, now: Timestamp) -> bool {
        self.outcome.is_ok() && now.since(self.at) < STALE
    }
}

impl<V: Weigh> Weigh for Entry<V> {
    fn heap_bytes(&self) -> usize {
        self.outcome.heap_bytes()
    }
}

impl<V> Clone for LookupCache<V> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), single_flight: self.single_flight.clone() }
    }
}

impl<V> std::fmt::Debug for LookupCache<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LookupCache").finish_non_exhaustive()
    }
}

/// How long a success is used.
const POSITIVE: Duration = Duration::from_mins(10);
/// How long "not found" is used. It is short, because people set up a handle and try it at once.
const NEGATIVE: Duration = Duration::from_mins(1);
/// How long a success may stand in for a failed lookup.
const STALE: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::base::{ManualClock, assert_weighs};

    struct Trial {
        memory: LookupCache<u32>,
        clock: ManualClock,
        asked: Arc<AtomicUsize>,
    }

    impl Trial {
        fn new() -> Self {
            let clock = ManualClock::at(Timestamp::from_seconds(1000));
            let memory =
                LookupCache::new(clock.clock(), CacheSize { name: "test", bytes: 1 << 16, typical: 100 });
            Self { memory, clock, asked: Arc::default() }
        }

        fn wait(&self, duration: Duration) {
            self.clock.advance(duration);
        }

        async fn ask(&self, freshness: Freshness, outcome: Outcome<u32>) -> Outcome<u32> {
            let look_up = || {
                let (asked, outcome) = (Arc::clone(&self.asked), outcome.clone());
                async move {
                    asked.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    outcome
                }
            };
            self.memory.get("key", freshness, look_up).await
        }

        fn asked(&self) -> usize {
            self.asked.swap(0, Ordering::SeqCst)
        }
    }

    fn trouble() -> Outcome<u32> {
        Err(Error::Passing("away".into()))
    }

    #[test]
    fn an_entry_weighs_what_was_found_or_why_nothing_was() {
        let entry = |outcome| Entry { outcome, at: Timestamp::from_seconds(1) };
        let text = |length| Arc::<str>::from("x".repeat(length));
        assert_weighs(|length| entry(Ok(text(length))));
        assert_weighs(|length| entry(Err(Error::Unsupported(text(length)))));
        assert_weighs(|length| entry(Err(Error::Unusable(text(length)))));
        assert_weighs(|length| entry(Err(Error::Passing(text(length)))));
    }

    #[tokio::test]
    async fn successes_are_cached_for_minutes_and_not_found_for_one() {
        let trial = Trial::new();
        assert_eq!(trial.ask(Freshness::Remembered, Ok(1)).await, Ok(1));
        trial.wait(POSITIVE.saturating_sub(Duration::from_millis(1)));
        assert_eq!(trial.ask(Freshness::Remembered, Ok(2)).await, Ok(1));
        assert_eq!(trial.memory.recall("key"), Some(Ok(1)));
        trial.wait(Duration::from_millis(1));
        assert_eq!(trial.memory.recall("key"), None);
        assert_eq!(
            trial.ask(Freshness::Remembered, Err(Error::NotFound("DID"))).await,
            Err(Error::NotFound("DID"))
        );
        trial.wait(NEGATIVE.saturating_sub(Duration::from_millis(1)));
        assert!(trial.ask(Freshness::Remembered, Ok(3)).await.is_err());
        trial.wait(Duration::from_millis(1));
        assert_eq!(trial.ask(Freshness::Remembered, Ok(3)).await, Ok(3));
        assert_eq!(trial.asked(), 3);
    }

    #[tokio::test]
    async fn trouble_is_not_remembered_and_an_older_answer_bridges_it() {
        let trial = Trial::new();
        assert_eq!(trial.ask(Freshness::Remembered, trouble()).await, trouble());
        assert_eq!(trial.ask(Freshness::Remembered, Ok(1)).await, Ok(1));
        trial.wait(POSITIVE);
        assert_eq!(trial.ask(Freshness::Remembered, trouble()).await, Ok(1));
        assert_eq!(trial.ask(Freshness::Asked, trouble()).await, trouble());
        trial.wait(STALE);
        assert_eq!(trial.ask(Freshness::Remembered, trouble()).await, trouble());
        assert_eq!(trial.asked(), 5);
    }

    #[tokio::test]
    async fn callers_of_a_lookup_that_did_not_begin_look_up_by_themselves() {
        let trial = Trial::new();
        let first = trial.ask(Freshness::Remembered, Err(Error::Busy));
        let second = trial.ask(Freshness::Remembered, Ok(2));
        let outcomes = futures_util::future::join(first, second).await;
        assert_eq!(outcomes, (Err(Error::Busy), Ok(2)));
        assert_eq!((trial.asked(), trial.memory.recall("key")), (2, Some(Ok(2))));
    }

    #[tokio::test]
    async fn a_clock_that_was_ahead_keeps_no_answer_for_longer() {
        let trial = Trial::new();
        trial.wait(Duration::from_hours(1));
        assert_eq!(trial.ask(Freshness::Remembered, Ok(1)).await, Ok(1));
        trial.clock.shared().fetch_sub(3_600_000, Ordering::SeqCst);
        assert_eq!(trial.ask(Freshness::Remembered, Ok(2)).await, Ok(2));
    }

    #[tokio::test]
    async fn an_asked_answer_replaces_the_remembered_one() {
        let trial = Trial::new();
        assert_eq!(trial.ask(Freshness::Remembered, Ok(1)).await, Ok(1));
        assert_eq!(trial.ask(Freshness::Asked, Ok(2)).await, Ok(2));
        assert_eq!(trial.ask(Freshness::Remembered, Ok(3)).await, Ok(2));
        trial.memory.forget("key");
        assert_eq!(trial.ask(Freshness::Remembered, Ok(3)).await, Ok(3));
    }
}
