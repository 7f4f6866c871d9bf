//! Caches that are bounded by the bytes that they hold, keys included.
//!
//! Strangers cause most entries of Genkan's caches, and choose their texts. So a bound on the number
//! of entries would bound no memory.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use genkan_protocol::syntax::{Did, Handle};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::{Origin, Timestamp};

/// A cache of at most so many bytes; see [`CacheSize::build`]. Cheap to clone; all clones share one
/// cache.
pub(crate) struct ByteCache<K, V>(Arc<Cache<K, V, ByBytes>>);

/// The name of a cache, and its bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheSize {
    /// The label of its metric.
    pub(crate) name: &'static str,
    /// The most bytes that it takes.
    pub(crate) bytes: usize,
    /// The usual bytes of an entry. It only sizes the record of entries that were evicted.
    pub(crate) typical: usize,
}

impl CacheSize {
    /// Creates the cache. An entry of more than a shard, which has 1 MiB or the whole of a smaller
    /// cache, is not kept.
    pub(crate) fn build<K, V>(self) -> ByteCache<K, V>
    where
        K: Weigh + Eq + Hash + Send + Sync + 'static,
        V: Weigh + Clone + Send + Sync + 'static,
    {
        let cache = Arc::new(quick_cache(self.bytes, self.typical));
        let weighed: Weak<dyn Weighed> = Arc::downgrade(&(Arc::clone(&cache) as Arc<dyn Weighed>));
        let mut caches = CACHES.lock().unwrap_or_else(PoisonError::into_inner);
        caches.retain(|(_, cache)| cache.strong_count() > 0);
        caches.push((self.name, weighed));
        ByteCache(cache)
    }
}

/// The bytes that the caches of this process take now, by name.
pub(crate) fn cache_bytes() -> BTreeMap<&'static str, u64> {
    let mut bytes = BTreeMap::new();
    for (name, cache) in CACHES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        *bytes.entry(*name).or_default() += cache.upgrade().map_or(0, |cache| cache.bytes());
    }
    bytes
}

/// Every cache of this process, for the metrics. Memory belongs to the process, so this list does too.
static CACHES: Mutex<Vec<(&str, Weak<dyn Weighed>)>> = Mutex::new(Vec::new());

trait Weighed: Send + Sync {
    fn bytes(&self) -> u64;
}

impl<K, V> Weighed for Cache<K, V, ByBytes>
where
    K: Weigh + Eq + Hash + Send + Sync,
    V: Weigh + Clone + Send + Sync,
{
    fn bytes(&self) -> u64 {
        self.weight()
    }
}

impl<K, V> Deref for ByteCache<K, V> {
    type Target = Cache<K, V, ByBytes>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K, V> Clone for ByteCache<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> fmt::Debug for ByteCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByteCache")
    }
}

fn quick_cache<K: Weigh + Eq + Hash, V: Weigh + Clone>(bytes: usize, typical: usize) -> Cache<K, V, ByBytes> {
    let options = OptionsBuilder::new()
        .shards((bytes / SHARD).clamp(1, MOST_SHARDS).next_power_of_two())
        .estimated_items_capacity((bytes / typical.max(1)).max(1))
        // Each evicted key that is remembered takes the place of an entry.
        .ghost_allocation(0.1)
        .weight_capacity(bytes as u64)
        .build()
        .expect("both capacities are set");
    Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default())
}

/// The memory of a value.
pub(crate) trait Weigh: Sized {
    /// The bytes that the value has on the heap, beyond its own size.
    fn heap_bytes(&self) -> usize;
}

/// Weighs an entry by its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByBytes;

impl<K: Weigh, V: Weigh> Weighter<K, V> for ByBytes {
    fn weight(&self, key: &K, value: &V) -> u64 {
        // The cache keeps entries in vectors that grow by doubling, so a slot may be taken twice.
        let slots = 2 * (size_of::<K>() + size_of::<V>() + SLOT);
        (slots + key.heap_bytes() + value.heap_bytes()) as u64
    }
}

/// The bytes of an allocation, with what the allocator needs for it.
pub(crate) const fn allocation(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes + ALLOCATION }
}

/// Bytes of the cache's own for each entry.
const SLOT: usize = 24;
const ALLOCATION: usize = 16;
/// Each shard has a lock. A larger entry than a shard is not kept, so shards must not be small.
const SHARD: usize = 1 << 20;
const MOST_SHARDS: usize = 64;

/// Requires that a value weighs at least what a text in it takes. `with` makes the value with a text
/// of so many bytes.
#[cfg(test)]
#[track_caller]
pub(crate) fn assert_weighs<V: Weigh>(with: impl Fn(usize) -> V) {
    let (short, long) = (with(1).heap_bytes(), with(201).heap_bytes());
    assert!(long >= short + 200, "with a text of one byte {short}, and with one of 201 bytes {long}");
}

/// Implements [`Weigh`] for types without memory on the heap.
macro_rules! on_the_stack {
    ($($type:ty),*) => { $(
        impl Weigh for $type {
            fn heap_bytes(&self) -> usize {
                0
            }
        }
    )* };
}

on_the_stack!((), u8, u32, i64, u64, [u8; 32], Timestamp, tokio::time::Instant);

/// Implements [`Weigh`] for types that are one text.
macro_rules! texts {
    ($($type:ty),*) => { $(
        impl Weigh for $type {
            fn heap_bytes(&self) -> usize {
                allocation(AsRef::<str>::as_ref(self).len())
            }
        }
    )* };
}

texts!(Box<str>, Arc<str>, Did, Handle);

impl Weigh for String {
    fn heap_bytes(&self) -> usize {
        allocation(self.capacity())
    }
}

impl Weigh for Origin {
    fn heap_bytes(&self) -> usize {
        // The text, and the authority in an allocation of its own.
        2 * allocation(self.as_str().len())
    }
}

impl Weigh for Arc<[std::net::IpAddr]> {
    fn heap_bytes(&self) -> usize {
        allocation(size_of_val(&**self))
    }
}

impl<T: Weigh> Weigh for Option<T> {
    fn heap_bytes(&self) -> usize {
        self.as_ref().map_or(0, Weigh::heap_bytes)
    }
}

impl<T: Weigh, E: Weigh> Weigh for Result<T, E> {
    fn heap_bytes(&self) -> usize {
        self.as_ref().map_or_else(Weigh::heap_bytes, Weigh::heap_bytes)
    }
}

impl<T: Weigh> Weigh for Arc<T> {
    /// Shared values count for each holder.
    fn heap_bytes(&self) -> usize {
        allocation(size_of::<T>() + 2 * size_of::<usize>()) + (**self).heap_bytes()
    }
}

impl<T: Weigh, U: Weigh> Weigh for (T, U) {
    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes() + self.1.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory that a cache takes: its own, and that of its entries.
    fn taken<K: Weigh + Eq + Hash + Clone, V: Weigh + Clone>(cache: &Cache<K, V, ByBytes>) -> usize {
        let entries: usize = cache.iter().map(|(key, value)| key.heap_bytes() + value.heap_bytes()).sum();
        cache.memory_used().total() + entries
    }

    #[test]
    fn no_entries_make_a_cache_larger_than_its_bound() {
        const BOUND: usize = 4 << 20;
        for size in [0, 1, 100, 2000, 30_000, 1 << 20, 3 << 20] {
            let cache: Cache<Box<str>, Arc<str>, ByBytes> = quick_cache(BOUND, 200);
            for number in 0..(3 * BOUND / (size + 100)).max(20) {
                // Read once, so that entries are not only of the kind that is evicted first.
                let key: Box<str> = number.to_string().into();
                cache.insert(key.clone(), "x".repeat(size).into());
                let _ = cache.get(&key);
            }
            assert!(cache.weight() <= BOUND as u64);
            let taken = taken(&cache);
            assert!(taken <= BOUND, "{size}: {taken}");
            // It is used, too, but for entries of more than a shard.
            assert!(taken >= BOUND / 4 || size >= 1 << 20, "{size}: {taken}");
        }
    }

    /// A text of about this length, of short labels.
    fn labels(length: usize) -> String {
        format!("{}example.com", "a.".repeat(length / 2))
    }

    #[test]
    fn texts_weigh_what_they_take_wherever_they_are() {
        assert_weighs(|length| "x".repeat(length));
        assert_weighs(|length| Box::<str>::from("x".repeat(length)));
        assert_weighs(|length| Arc::<str>::from("x".repeat(length)));
        assert_weighs(|length| format!("did:web:{}", labels(length)).parse::<Did>().unwrap());
        assert_weighs(|length| labels(length).parse::<Handle>().unwrap());
        // The text and the authority.
        assert_weighs(|length| format!("https://{}", labels(length / 2)).parse::<Origin>().unwrap());
        assert_weighs(|length| Some("x".repeat(length)));
        assert_weighs(|length| Ok::<_, u8>("x".repeat(length)));
        assert_weighs(|length| Err::<u8, _>("x".repeat(length)));
        assert_weighs(|length| Arc::new("x".repeat(length)));
        assert_weighs(|length| ("x".repeat(length), 0_u8));
        assert_weighs(|length| (0_u8, "x".repeat(length)));
        let address = std::net::IpAddr::from([127, 0, 0, 1]);
        assert_weighs(|length| Arc::<[std::net::IpAddr]>::from(vec![address; length / 16]));
        let room_to_spare = String::with_capacity(1000);
        assert!(room_to_spare.heap_bytes() >= 1000);
    }

    #[test]
    fn bytes_of_caches_are_told_by_name_as_long_as_they_live() {
        let size = CacheSize { name: "told", bytes: 1 << 20, typical: 100 };
        let told = || cache_bytes().get("told").copied();
        let (one, other) = (size.build::<Box<str>, Arc<str>>(), size.build::<Box<str>, Arc<str>>());
        assert_eq!(told(), Some(0));
        one.insert("key".into(), "x".repeat(1000).into());
        other.insert("key".into(), "x".repeat(2000).into());
        let both = told().unwrap();
        assert!(both > 3000 && both == one.weight() + other.weight());
        drop(one.clone());
        drop(other);
        assert_eq!(told(), Some(one.weight()));
    }

    #[test]
    fn a_large_entry_is_not_kept_and_takes_the_place_of_none() {
        let cache: Cache<Box<str>, Arc<str>, ByBytes> = quick_cache(1 << 20, 200);
        cache.insert("small".into(), "x".into());
        cache.insert("large".into(), "x".repeat(2 << 20).into());
        assert!(cache.get("small").is_some() && cache.get("large").is_none());
        cache.insert("small".into(), "x".repeat(2 << 20).into());
        assert!(cache.get("small").is_none(), "an outdated value does not stay");
    }
}
