//! The shares of accounts in the calls to one PDS, in bounded memory.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::recent::Recent;
use super::rules::CallClass;
use super::rules::{CallBudgetRules, CallOwner};
use super::window::Window;

/// An account or client by the hash of its name. The seed is random, so that no stranger can choose
/// a name that shares another's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct OwnerKey(u64);

#[cfg(test)]
impl OwnerKey {
    pub(super) fn of(number: u64) -> Self {
        Self(number)
    }
}

/// Makes keys of owners, and counts the shares of all PDSes together. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Owners {
    hasher: RandomState,
    in_all: Arc<AtomicUsize>,
}

impl Owners {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::new(), in_all: Arc::default() }
    }

    pub(super) fn key(&self, owner: &CallOwner) -> OwnerKey {
        OwnerKey(self.hasher.hash_one(owner))
    }

    #[cfg(test)]
    pub(super) fn in_all(&self) -> usize {
        self.in_all.load(Ordering::SeqCst)
    }
}

/// One account's share of the calls to a PDS.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) calls: Window,
    pub(super) writes: Window,
    pub(super) recent: Recent,
    /// The last window of the PDS in which it called.
    pub(super) called_in: Option<u32>,
    /// The PDS refuses this account until this time.
    until: Option<Instant>,
    /// The PDS refuses the writes of this account until this time.
    writes_until: Option<Instant>,
}

impl Share {
    const fn new(rules: &CallBudgetRules, now: Instant) -> Self {
        Self {
            calls: Window::new(rules.account_calls, now),
            writes: Window::new(rules.account_writes, now),
            recent: Recent::new(now),
            called_in: None,
            until: None,
            writes_until: None,
        }
    }

    /// Whether dropping it changes a decision.
    fn counts(&self, now: Instant) -> bool {
        !self.calls.is_over(now) || !self.writes.is_over(now) || self.is_refused(now)
    }

    fn is_refused(&self, now: Instant) -> bool {
        self.refused_until(true, now).is_some()
    }

    /// The time until which the PDS refuses a call of the account, if it does.
    pub(super) fn refused_until(&self, is_write: bool, now: Instant) -> Option<Instant> {
        let writes = self.writes_until.filter(|_| is_write);
        self.until.max(writes).filter(|until| *until > now)
    }
}

/// The shares of one class of calls to one PDS.
#[derive(Debug)]
pub(super) struct Shares {
    by_owner: HashMap<OwnerKey, Share>,
    /// From this time on no account is refused.
    refused_until: Option<Instant>,
    in_all: Arc<AtomicUsize>,
}

impl Shares {
    pub(super) fn new(owners: &Owners) -> Self {
        Self { by_owner: HashMap::new(), refused_until: None, in_all: Arc::clone(&owners.in_all) }
    }

    pub(super) fn get(&mut self, owner: OwnerKey) -> Option<&mut Share> {
        self.by_owner.get_mut(&owner)
    }

    /// Returns the share of an account, and begins one for a new account. `None` if memory is full:
    /// such a call counts against the PDS's own limits only.
    pub(super) fn of(
        &mut self,
        owner: OwnerKey,
        rules: &CallBudgetRules,
        now: Instant,
    ) -> Option<&mut Share> {
        if !self.by_owner.contains_key(&owner) {
            let is_full = || self.in_all.load(Ordering::Relaxed) >= MOST_IN_ALL;
            if self.by_owner.len() >= MOST_OF_PDS || is_full() {
                self.make_room(now);
            }
            if self.in_all.load(Ordering::Relaxed) >= MOST_IN_ALL {
                return None;
            }
            self.in_all.fetch_add(1, Ordering::Relaxed);
            self.by_owner.insert(owner, Share::new(rules, now));
        }
        self.by_owner.get_mut(&owner)
    }

    /// Takes the time until which the PDS refuses an account, or only its writes.
    pub(super) fn refuse(&mut self, owner: OwnerKey, only_writes: bool, until: Instant) {
        if let Some(share) = self.by_owner.get_mut(&owner) {
            let refused = if only_writes { &mut share.writes_until } else { &mut share.until };
            *refused = Some(until);
            self.refused_until = self.refused_until.max(Some(until));
        }
    }

    /// Whether the PDS may refuse one of the accounts at the moment.
    pub(super) fn has_refused(&self, now: Instant) -> bool {
        self.refused_until.is_some_and(|until| until > now)
    }

    /// Drops shares that no longer count. If that is not enough, drops the smaller half of the
    /// others: the limits are for accounts with many calls.
    fn make_room(&mut self, now: Instant) {
        let before = self.by_owner.len();
        self.by_owner.retain(|_, share| share.counts(now));
        if self.by_owner.len() >= MOST_OF_PDS / 2 {
            let used = |share: &Share| if share.is_refused(now) { u32::MAX } else { share.calls.sent(now).1 };
            let mut all: Vec<u32> = self.by_owner.values().map(used).collect();
            let middle = all.len() / 2;
            let median = *all.select_nth_unstable(middle).1;
            // `spare` limits the removal to half, even if most counts equal the median.
            let mut spare = middle;
            self.by_owner.retain(|_, share| {
                if used(share) > median || spare == 0 {
                    return true;
                }
                spare -= 1;
                false
            });
        }
        // A map keeps its memory when entries leave, and there is a map for each PDS.
        self.by_owner.shrink_to_fit();
        self.in_all.fetch_sub(before - self.by_owner.len(), Ordering::Relaxed);
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        self.in_all.fetch_sub(self.by_owner.len(), Ordering::Relaxed);
    }
}

/// The shares of a PDS, of the class of a call.
#[derive(Debug)]
pub(super) struct SharesByClass {
    linked: Shares,
    /// Apart, since anyone can cause these.
    reads: Shares,
}

impl SharesByClass {
    pub(super) fn new(owners: &Owners) -> Self {
        Self { linked: Shares::new(owners), reads: Shares::new(owners) }
    }

    pub(super) const fn of_class(&mut self, class: CallClass) -> &mut Shares {
        match class {
            CallClass::Linked => &mut self.linked,
            CallClass::Read => &mut self.reads,
        }
    }

    pub(super) fn has_refused(&self, now: Instant) -> bool {
        self.linked.has_refused(now) || self.reads.has_refused(now)
    }
}

/// The most shares of one class at one PDS: some 2 MiB, since a map may have twice as many places.
const MOST_OF_PDS: usize = 8192;
/// The most shares at all PDSes together: some 50 MiB.
const MOST_IN_ALL: usize = 200_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::monotonic_now;
    use crate::config::Rate;

    const RATE: Rate = Rate { count: 5, per: Duration::from_secs(100) };
    const RULES: CallBudgetRules = CallBudgetRules {
        calls: RATE,
        repos: RATE,
        uploads: RATE,
        account_calls: RATE,
        account_writes: RATE,
        wait: Duration::from_secs(1),
    };

    #[test]
    fn a_flood_of_accounts_neither_grows_without_bound_nor_frees_the_loudest() {
        let (owners, now) = (Owners::new(), monotonic_now());
        let mut shares = Shares::new(&owners);
        for _ in 0..5 {
            shares.of(OwnerKey(u64::MAX), &RULES, now).unwrap().calls.take(CallClass::Linked, now);
        }
        let _ = shares.of(OwnerKey(u64::MAX - 1), &RULES, now);
        shares.refuse(OwnerKey(u64::MAX - 1), false, now + Duration::from_secs(9));
        for number in 0..100_000 {
            shares.of(OwnerKey(number), &RULES, now).unwrap().calls.take(CallClass::Linked, now);
            assert!(shares.by_owner.len() <= MOST_OF_PDS);
        }
        assert!(shares.get(OwnerKey(u64::MAX)).unwrap().calls.is_used_up(CallClass::Linked, now));
        assert!(shares.get(OwnerKey(u64::MAX - 1)).unwrap().is_refused(now) && shares.has_refused(now));
        assert_eq!(owners.in_all(), shares.by_owner.len());
        let bytes = shares.by_owner.capacity() * (size_of::<OwnerKey>() + size_of::<Share>() + 1);
        assert!(bytes < 4 << 20, "{bytes}");
        drop(shares);
        assert_eq!(owners.in_all(), 0);
    }

    #[test]
    fn all_pdses_together_have_so_many_shares() {
        let (owners, now) = (Owners::new(), monotonic_now());
        let mut all = Vec::new();
        for pds in 0..100 {
            let mut shares = Shares::new(&owners);
            for number in 0..4000 {
                let _ = shares.of(OwnerKey(pds * 10_000 + number), &RULES, now);
            }
            all.push(shares);
        }
        assert!(owners.in_all() <= MOST_IN_ALL);
    }
}
