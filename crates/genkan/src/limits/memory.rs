//! Counts in the memory of this process: fast, and bounded in size.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};

use super::verdict::{Verdict, window_start};
use crate::base::Timestamp;
use crate::config::Rate;

/// Number of locks, so that worker threads seldom wait for each other.
const SHARDS: usize = 64;
/// Maximum number of clients in a shard: about a million in total, which take some 32 MiB.
const MOST_IN_SHARD: usize = 16_384;

#[derive(Debug)]
pub(super) struct CountsInMemory {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    most: usize,
}

#[derive(Debug, Default)]
struct Shard {
    counts: HashMap<u64, Count, BuildHasherDefault<PrehashedKey>>,
    /// The second in which counts of earlier windows were last removed.
    swept: i64,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    window_start: Timestamp,
    window_end: Timestamp,
    number: u64,
}

impl CountsInMemory {
    pub(super) fn new() -> Self {
        Self::of_size(SHARDS, MOST_IN_SHARD)
    }

    fn of_size(shards: usize, most: usize) -> Self {
        let shards = (0..shards).map(|_| Mutex::default()).collect();
        Self { hasher: RandomState::new(), shards, most }
    }

    /// Returns the verdict that the next event of `key` would get, without counting it.
    pub(super) fn next<K: Hash + ?Sized>(&self, key: &K, rate: Rate, now: Timestamp) -> Verdict {
        let hash = self.hasher.hash_one(key);
        let start = window_start(now, rate.per);
        let number = self.shard(hash).map_or(0, |shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let count = shard.counts.get(&hash).filter(|count| count.window_start == start);
            count.map_or(0, |count| count.number)
        });
        Verdict::of(rate, number + 1, start)
    }

    fn shard(&self, hash: u64) -> Option<&Mutex<Shard>> {
        // The high half picks the shard. The map inside uses the low bits.
        self.shards.get(usize::try_from(hash >> 32).ok()? % self.shards.len())
    }

    /// Counts one event of `key`.
    pub(super) fn count<K: Hash + ?Sized>(&self, key: &K, rate: Rate, now: Timestamp) -> Verdict {
        // Only the hash of the key is stored. Its seed is random, so no client can choose an
        // address whose count another client shares.
        let hash = self.hasher.hash_one(key);
        let start = window_start(now, rate.per);
        let Some(shard) = self.shard(hash) else { return Verdict::of(rate, 1, start) };
        // Many shards, so that threads rarely wait for one lock.
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = shard.counts.get_mut(&hash) {
            // A count is not removed when its window ends, but starts again when it is next used.
            if count.window_start != start {
                *count = Count { window_start: start, window_end: start.plus(rate.per), number: 0 };
            }
            count.number += 1;
            return Verdict::of(rate, count.number, start);
        }
        if shard.counts.len() >= self.most {
            shard.make_room(self.most, now);
        }
        shard.counts.insert(hash, Count { window_start: start, window_end: start.plus(rate.per), number: 1 });
        Verdict::of(rate, 1, start)
    }
}

impl Shard {
    /// Removes counts of windows that have ended. If a flood comes from more addresses than fit,
    /// that is not enough, and the lower half of the rest is removed too: the clients that ask most
    /// stay counted.
    fn make_room(&mut self, most: usize, now: Timestamp) {
        // At most once a second, because in a flood every new client reaches this line.
        if now.as_seconds() != self.swept {
            self.swept = now.as_seconds();
            self.counts.retain(|_, count| count.window_end > now);
        }
        if self.counts.len() >= most {
            let mut counts: Vec<u64> = self.counts.values().map(|count| count.number).collect();
            let middle = counts.len() / 2;
            // Small counts go first: the clients with large ones are those that the limit is for.
            let median = *counts.select_nth_unstable(middle).1;
            // `spare` limits the removal to half, even if most counts equal the median.
            let mut spare = middle;
            self.counts.retain(|_, count| {
                if count.number > median || spare == 0 {
                    return true;
                }
                spare -= 1;
                false
            });
        }
    }
}

/// A hasher for keys that are already hashes.
#[derive(Debug, Default)]
struct PrehashedKey(u64);

impl Hasher for PrehashedKey {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are numbers of 64 bits");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_of_addresses_neither_grows_without_bound_nor_frees_the_loudest() {
        let memory = CountsInMemory::of_size(4, 256);
        let rate = Rate { count: 5, per: Duration::from_mins(5) };
        let now = Timestamp::from_seconds(1_000_000_000);
        for _ in 0..10 {
            memory.count("loud", rate, now);
        }
        for number in 0..10_000 {
            memory.count(&number, rate, now);
        }
        let kept: usize = memory.shards.iter().map(|shard| shard.lock().unwrap().counts.len()).sum();
        assert!(kept <= 4 * 256, "{kept}");
        assert!(!memory.count("loud", rate, now).allowed);
    }
}
