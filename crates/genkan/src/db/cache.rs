//! A cache of database values that the changes feed keeps valid.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Equivalent;

use super::feed::{Change, Feed};
use super::subjects::Subjects;
use crate::base::{ByteCache, CacheSize, Weigh};

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
    /// For a cache that is not keyed by the subject.
    subjects: Option<BySubject<K, V>>,
}

/// The subject of a value, and the entries of each subject.
type BySubject<K, V> = (fn(&V) -> &str, Subjects<K>);

/// The start of a reading.
#[derive(Clone, Copy, Debug)]
#[must_use = "keep what was read with it"]
pub(crate) struct Reading(u64);

impl<K, V> FeedCache<K, V>
where
    K: Weigh + Eq + Hash + Clone + Send + Sync + 'static,
    V: Weigh + Clone + Send + Sync + 'static,
{
    /// Creates a cache. `forget` drops the entries that a `change` of the given subject makes wrong.
    /// When notes of the feed may have been missed, all entries are dropped.
    pub(crate) fn new(
        feed: &Feed,
        change: Change,
        size: CacheSize,
        forget: impl Fn(&ByteCache<K, V>, &str) + Send + Sync + 'static,
    ) -> Self {
        Self::with(feed, change, Inner::new(size, None), move |inner, subject| {
            forget(&inner.entries, subject);
        })
    }

    /// Creates a cache whose entries belong to subjects, and finds those of a subject by an index.
    /// `forget_others` drops entries for a subject that has none.
    pub(crate) fn by_subject(
        feed: &Feed,
        change: Change,
        size: CacheSize,
        subject_of: fn(&V) -> &str,
        forget_others: impl Fn(&ByteCache<K, V>, &str) + Send + Sync + 'static,
    ) -> Self {
        let inner = Inner::new(size, Some((subject_of, Subjects::new())));
        Self::with(feed, change, inner, move |inner, subject| {
            let Some((_, subjects)) = &inner.subjects else { return };
            let keys = subjects.take(subject);
            if keys.is_empty() {
                forget_others(&inner.entries, subject);
            }
            for key in &keys {
                inner.entries.remove(key);
            }
        })
    }

    fn with(
        feed: &Feed,
        change: Change,
        inner: Inner<K, V>,
        forget: impl Fn(&Inner<K, V>, &str) + Send + Sync + 'static,
    ) -> Self {
        let inner = Arc::new(inner);
        // Weak, because the feed may outlive the service that owns this cache.
        let weak = Arc::downgrade(&inner);
        feed.subscribe(change, move |subject| {
            if let Some(inner) = weak.upgrade() {
                inner.forget_with(|inner| forget(inner, subject));
            }
        });
        let weak = Arc::downgrade(&inner);
        feed.subscribe_to_gaps(move || {
            if let Some(inner) = weak.upgrade() {
                inner.forget_with(|inner| inner.entries.clear());
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
        let entries = &self.inner.entries;
        if let Some((subject_of, subjects)) = &self.inner.subjects {
            let subject: Box<str> = subject_of(&value).into();
            entries.insert(key.clone(), value);
            subjects.add(&subject, key.clone(), |key| entries.peek(key).is_some());
        } else {
            entries.insert(key.clone(), value);
        }
        // Checked after the insertion: a change in between either finds the entry, or is seen here.
        // It does not matter which entry was dropped. Changes are rare, so the lost cache entry
        // costs one more query.
        if self.inner.forgotten.load(Ordering::SeqCst) != began_at {
            self.inner.entries.remove(&key);
        }
    }
}

impl<K, V> Inner<K, V>
where
    K: Weigh + Eq + Hash + Send + Sync + 'static,
    V: Weigh + Clone + Send + Sync + 'static,
{
    fn new(size: CacheSize, subjects: Option<BySubject<K, V>>) -> Self {
        Self { entries: size.build(), forgotten: AtomicU64::new(0), subjects }
    }

    fn forget_with(&self, forget: impl FnOnce(&Self)) {
        // Counted first, because `keep` relies on this order.
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        forget(self);
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

    on_each_database!(
        a_value_read_before_a_change_is_not_kept_after_it,
        the_entries_of_a_subject_are_dropped_together
    );

    async fn the_entries_of_a_subject_are_dropped_together(db: Db) {
        let feed = Feed::new(db);
        let cache: FeedCache<Box<str>, Box<str>> = FeedCache::by_subject(
            &feed,
            Change::Grant,
            CacheSize { name: "test", bytes: 1 << 20, typical: 100 },
            |grant| grant,
            |entries, _| entries.clear(),
        );
        let keep = |token: &str, grant: &str| {
            let reading = cache.begin();
            cache.keep(token.into(), grant.into(), reading);
        };
        for (token, grant) in [("a", "one"), ("b", "one"), ("c", "two")] {
            keep(token, grant);
        }
        let early = cache.begin();
        feed.tell(Change::Grant, "one");
        assert_eq!((cache.get("a"), cache.get("b"), cache.get("c")), (None, None, Some("two".into())));
        cache.keep("a".into(), "one".into(), early);
        assert_eq!(cache.get("a"), None, "it was read before the end");
        keep("a", "one");
        feed.tell(Change::Grant, "one");
        assert_eq!(cache.get("a"), None, "once more");
        feed.tell(Change::Grant, "client x");
        assert_eq!(cache.get("c"), None, "no grant has this name");
    }

    async fn a_value_read_before_a_change_is_not_kept_after_it(db: Db) {
        let feed = Feed::new(db);
        let cache: FeedCache<Box<str>, u8> = FeedCache::new(
            &feed,
            Change::Account,
            CacheSize { name: "test", bytes: 1 << 16, typical: 100 },
            |entries, did| {
                entries.remove(did);
            },
        );
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
