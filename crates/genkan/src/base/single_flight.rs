//! Single flight: one lookup for all concurrent callers that ask for the same key.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

/// A running lookup. Its outcome is `None` if it panicked.
type SharedLookUp<V> = Shared<BoxFuture<'static, Option<V>>>;

/// The running lookups, by key. Cheap to clone.
pub(crate) struct SingleFlight<V> {
    under_way: Arc<Mutex<UnderWay<V>>>,
}

struct UnderWay<V> {
    /// Each lookup has a number, which tells it from a later one for the same key.
    by_key: HashMap<String, (u64, SharedLookUp<V>)>,
    next: u64,
}

impl<V: Clone + Send + Sync + 'static> SingleFlight<V> {
    /// Returns the outcome of the running lookup for `key`, or starts `look_up` if there is none.
    ///
    /// The lookup continues if the caller that started it is dropped, because others may wait for
    /// it. Returns `None` if it panicked.
    pub(crate) async fn join<F>(&self, key: &str, look_up: F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let shared = {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, shared)) = under_way.by_key.get(key) {
                shared.clone()
            } else {
                // A task of its own, so that dropping a caller's future does not cancel the
                // lookup.
                under_way.next += 1;
                let number = under_way.next;
                let unregister = Unregister { single_flight: self.clone(), key: key.to_owned(), number };
                // Moved into the task: its `drop` removes the entry on success, panic and abort
                // alike.
                let task = tokio::spawn(async move {
                    let _unregister = unregister;
                    look_up.await
                });
                let shared = task.map(Result::ok).boxed().shared();
                under_way.by_key.insert(key.to_owned(), (number, shared.clone()));
                shared
            }
        };
        // Awaited after the lock is released, which must never be held across an await.
        shared.await
    }

    /// Returns the outcome of the running lookup for `key`, as [`join`](Self::join) does, or of one
    /// that this caller makes alone if the running one never began.
    ///
    /// A lookup has the share of places of the caller that started it. If that share is used up, the
    /// other callers must not suffer for it.
    pub(crate) async fn share<F>(
        &self,
        key: &str,
        look_up: impl Fn() -> F,
        has_not_begun: impl Fn(&V) -> bool,
    ) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let is_own = Arc::new(AtomicBool::new(false));
        // Boxed: every caller's future would contain the lookup, and twice.
        let (started, own) = (Arc::clone(&is_own), Box::pin(look_up()));
        let starting = async move {
            started.store(true, Ordering::Relaxed);
            own.await
        };
        let outcome = self.join(key, starting).await;
        match outcome {
            Some(outcome) if has_not_begun(&outcome) && !is_own.load(Ordering::Relaxed) => {
                Some(Box::pin(look_up()).await)
            }
            outcome => outcome,
        }
    }

    /// Makes later callers start a lookup of their own: the outcome of the running one is
    /// outdated.
    pub(crate) fn forget(&self, key: &str) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).by_key.remove(key);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.under_way.lock().unwrap().by_key.len()
    }
}

/// Removes a lookup from the list, however it ends.
struct Unregister<V> {
    single_flight: SingleFlight<V>,
    key: String,
    number: u64,
}

impl<V> Drop for Unregister<V> {
    fn drop(&mut self) {
        let mut under_way = self.single_flight.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // After `forget`, the key may name a newer lookup, which has to stay.
        if under_way.by_key.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            under_way.by_key.remove(&self.key);
        }
    }
}

impl<V> Default for SingleFlight<V> {
    fn default() -> Self {
        Self { under_way: Arc::new(Mutex::new(UnderWay { by_key: HashMap::new(), next: 0 })) }
    }
}

impl<V> Clone for SingleFlight<V> {
    fn clone(&self) -> Self {
        Self { under_way: Arc::clone(&self.under_way) }
    }
}

impl<V> std::fmt::Debug for SingleFlight<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SingleFlight").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn many_at_once_ask_once_and_leave_nothing_behind() {
        let single_flight = SingleFlight::default();
        let asked = Arc::new(AtomicUsize::new(0));
        let look_up = |outcome: usize| {
            let asked = Arc::clone(&asked);
            async move {
                asked.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                outcome
            }
        };
        let all =
            futures_util::future::join_all((0..20).map(|number| single_flight.join("key", look_up(number))))
                .await;
        assert!(all.iter().all(|outcome| *outcome == Some(0)), "{all:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(single_flight.join("other", async { panic!("on purpose") }).await, None);
        assert_eq!(single_flight.len(), 0);
    }

    #[tokio::test]
    async fn a_lookup_that_did_not_begin_is_shared_with_no_one() {
        let single_flight = SingleFlight::default();
        let share = |number: usize, outcome: Option<usize>| {
            let single_flight = single_flight.clone();
            async move {
                let look_up = || async move {
                    tokio::task::yield_now().await;
                    outcome.map(|outcome| outcome + number)
                };
                single_flight.share("key", look_up, Option::is_none).await.unwrap()
            }
        };
        // The first starts the lookup, and the others join it.
        let busy = [share(0, None), share(1, Some(10)), share(2, Some(10))];
        assert_eq!(futures_util::future::join_all(busy).await, [None, Some(11), Some(12)]);
        let begun = [share(0, Some(10)), share(1, Some(20))];
        assert_eq!(futures_util::future::join_all(begun).await, [Some(10), Some(10)]);
        assert_eq!(single_flight.len(), 0);
    }

    #[tokio::test]
    async fn no_caller_joins_a_lookup_that_was_forgotten() {
        let single_flight = SingleFlight::default();
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let early = single_flight.join("key", async {
            let _ = wait.await;
            "before"
        });
        let late = async {
            tokio::task::yield_now().await;
            single_flight.forget("key");
            let late = single_flight.join("key", async { "after" }).await;
            let _ = go.send(());
            late
        };
        assert_eq!(futures_util::future::join(early, late).await, (Some("before"), Some("after")));
    }
}
