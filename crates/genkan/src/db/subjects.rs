//! Which entries of a cache belong to a subject, such as the tokens of a grant.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The keys of cached entries by subject. Without it, each change would visit all entries.
///
/// The cache evicts entries and does not tell. So when there are many keys, those are dropped whose
/// entry is gone, which costs little for each key that was added.
pub(super) struct Subjects<K> {
    inner: Mutex<Inner<K>>,
}

struct Inner<K> {
    keys: HashMap<Box<str>, Vec<K>>,
    /// The number of keys.
    number: usize,
    /// The number of keys from which those without an entry are dropped.
    clean_at: usize,
}

impl<K: Eq> Subjects<K> {
    pub(super) fn new() -> Self {
        Self { inner: Mutex::new(Inner { keys: HashMap::new(), number: 0, clean_at: FEW }) }
    }

    /// Adds the key of an entry that is in the cache already.
    ///
    /// In this order: a key that a cleaning drops has no entry at that time, and an entry that comes
    /// afterwards adds its key again.
    pub(super) fn add(&self, subject: &str, key: K, has_entry: impl Fn(&K) -> bool) {
        let mut inner = self.lock();
        let keys = inner.keys.entry(subject.into()).or_default();
        if keys.contains(&key) {
            return;
        }
        keys.push(key);
        inner.number += 1;
        if inner.number >= inner.clean_at {
            inner.keys.retain(|_, keys| {
                keys.retain(&has_entry);
                !keys.is_empty()
            });
            inner.number = inner.keys.values().map(Vec::len).sum();
            inner.clean_at = (2 * inner.number).max(FEW);
        }
    }

    /// Removes a subject and returns its keys.
    pub(super) fn take(&self, subject: &str) -> Vec<K> {
        let mut inner = self.lock();
        let keys = inner.keys.remove(subject).unwrap_or_default();
        inner.number = inner.number.saturating_sub(keys.len());
        keys
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const FEW: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_its_keys_once() {
        let subjects = Subjects::new();
        for key in [1, 2, 1] {
            subjects.add("grant", key, |_| true);
        }
        subjects.add("other", 3, |_| true);
        assert_eq!(subjects.take("grant"), [1, 2]);
        assert!(subjects.take("grant").is_empty());
        assert_eq!(subjects.take("other"), [3]);
    }

    #[test]
    fn keys_of_evicted_entries_are_dropped() {
        let subjects = Subjects::new();
        for key in 0..10 * FEW {
            // The cache has the last hundred entries.
            subjects.add(&format!("grant {key}"), key, |other| other + 100 > key);
        }
        let inner = subjects.lock();
        assert!(inner.number <= FEW, "{}", inner.number);
        assert_eq!(inner.keys.len(), inner.number);
        drop(inner);
        let last = 10 * FEW - 1;
        assert_eq!(subjects.take(&format!("grant {last}")), [last]);
    }
}
