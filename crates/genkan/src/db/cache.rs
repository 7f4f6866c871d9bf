//! A cache of database values that the changes feed keeps valid.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Equivalent;

use super::feed::{Change, Feed};
use crate::base::{ByteCache, Weigh, byte_cache};

/// A cache, bounded by bytes, whose entries are dropped when the feed reports a change. Cheap to clone; all
/// clones share one cache.
///
/// A value that was read before a change must not be cached after it. So a reading begins with
/// [`FeedCache::begin`], and [`FeedCache::keep`] caches its result only if nothing was dropped
/// since.
pub(crate) struct FeedCache<K, V> {
    inner: Arc<Inner<K, V>>,
}

struct Inner<K, V> {
    entries: ByteCache<K, V>,
    /// The number of times that entries were dropped.
    forgotten: AtomicU64,
}

/// The start of a reading.
#[derive(Clone, Copy, Debug)]
#[must_use = "keep what was read with it"]
pub(crate) struct Reading(u64);

impl<K, V> FeedCache<K, V>
where
    K: Weigh + Eq + Hash + Clone + Send + Sync + 'static,
    V: Weigh + Clone + Send + Sync + 'static,
{
    /// Creates a cache of at most `bytes`, whose entries have `typical` bytes. `forget` drops the
    /// entries that a `change` of the given subject makes wrong. When notes of the feed may have
    /// been missed, all entries are dropped.
    pub(crate) fn new(
        feed: &Feed,
        change: Change,
        (bytes, typical): (usize, usize),
        forget: impl Fn(&ByteCache<K, V>, &str) + Send + Sync + 'static,
    ) -> Self {
        let inner = Arc::new(Inner { entries: byte_cache(bytes, typical), forgotten: AtomicU64::new(0) });
        // Weak, because the feed may outlive the service that owns this cache.
        let weak = Arc::downgrade(&inner);
        feed.subscribe(change, move |subject| {
            if let Some(inner) = weak.upgrade() {
                inner.forget_with(|entries| forget(entries, subject));
            }
        });
        let weak = Arc::downgrade(&inner);
        feed.subscribe_to_gaps(move || {
            if let Some(inner) = weak.upgrade() {
                inner.forget_with(ByteCache::clear);
            }
        });
        Self { inner }
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.inner.entries.get(key)
    }

    /// Begins a reading of the database.
    pub(crate) fn begin(&self) -> Reading {
        Reading(self.inner.forgotten.load(Ordering::SeqCst))
    }

    /// Caches the result of a reading, unless entries were dropped since it began.
    #[expect(clippy::needless_pass_by_value, reason = "callers make the key for this call")]
    pub(crate) fn keep(&self, key: K, value: V, Reading(began_at): Reading) {
        self.inner.entries.insert(key.clone(), value);
        // Checked after the insertion: a change in between either finds the entry, or is seen here.
        // It does not matter which entry was dropped. Changes are rare, so the lost cache entry
        // costs one more query.
        if self.inner.forgotten.load(Ordering::SeqCst) != began_at {
            self.inner.entries.remove(&key);
        }
    }
}

impl<K: Weigh + Eq + Hash, V: Weigh + Clone> Inner<K, V> {
    fn forget_with(&self, forget: impl FnOnce(&ByteCache<K, V>)) {
        // Counted first, because `keep` relies on this order.
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        forget(&self.entries);
    }
}

impl<K, V> Clone for FeedCache<K, V> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K, V> fmt::Debug for FeedCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Db, on_each_database};

    on_each_database!(a_value_read_before_a_change_is_not_kept_after_it);

    async fn a_value_read_before_a_change_is_not_kept_after_it(db: Db) {
        let feed = Feed::new(db);
        let cache: FeedCache<Box<str>, u8> =
            FeedCache::new(&feed, Change::Account, (1 << 16, 100), |entries, did| {
                entries.remove(did);
            });
        let reading = cache.begin();
        cache.keep("ann".into(), 1, reading);
        assert_eq!(cache.get("ann"), Some(1));
        feed.tell(Change::Session, "ann");
        assert_eq!(cache.get("ann"), Some(1), "another kind of change");
        feed.tell(Change::Account, "ann");
        assert_eq!(cache.get("ann"), None);
        cache.keep("ann".into(), 1, reading);
        assert_eq!(cache.get("ann"), None, "it was read before the change");
    }
}
