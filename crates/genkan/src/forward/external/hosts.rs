//! The budgets of the PDSes that were called recently, in bounded memory.
//!
//! Anyone may cause reads from any number of PDSes, and a PDS decides what it says about its limits.
//! Neither decides which budgets are kept. PDSes that are only read have three quarters of the
//! places, and the rest is for PDSes of linked accounts. A new PDS always finds a place: the budgets
//! with the fewest calls sent make room for it, whatever their PDSes say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::host::HostCalls;
use super::rules::CallClass;
use crate::base::Origin;

/// The calls to one PDS, and the signal that its queue or windows have changed.
///
/// A PDS whose budget is shared with a call or a task is in use.
#[derive(Debug)]
pub(super) struct HostBudget {
    calls: Mutex<HostCalls>,
    pub(super) changed: Notify,
}

impl HostBudget {
    pub(super) fn lock(&self) -> MutexGuard<'_, HostCalls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Budgets by PDS.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    by_origin: HashMap<Origin, KnownHost>,
    /// How many of them no linked account has called.
    only_read: usize,
}

#[derive(Debug)]
struct KnownHost {
    budget: Arc<HostBudget>,
    /// Whether a linked account has called it since it is known.
    is_linked: bool,
}

impl KnownHost {
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.budget) > 1
    }
}

impl Hosts {
    pub(super) fn len(&self) -> usize {
        self.by_origin.len()
    }

    pub(super) fn budgets(&self) -> impl Iterator<Item = &HostBudget> {
        self.by_origin.values().map(|known| &*known.budget)
    }

    /// Returns the budget of a PDS that is known, for a call of this class.
    pub(super) fn get(&mut self, pds: &Origin, class: CallClass) -> Option<Arc<HostBudget>> {
        let known = self.by_origin.get_mut(pds)?;
        if class == CallClass::Linked && !known.is_linked {
            known.is_linked = true;
            self.only_read -= 1;
        }
        Some(Arc::clone(&known.budget))
    }

    /// Adds a PDS that is not known. Returns `None` if all places are in use at this moment.
    pub(super) fn add(
        &mut self,
        pds: &Origin,
        class: CallClass,
        calls: HostCalls,
        now: Instant,
    ) -> Option<Arc<HostBudget>> {
        if !self.has_place(class) {
            self.make_room(class, now);
        }
        if !self.has_place(class) {
            return None;
        }
        let budget = Arc::new(HostBudget { calls: Mutex::new(calls), changed: Notify::new() });
        let is_linked = class == CallClass::Linked;
        self.only_read += usize::from(!is_linked);
        self.by_origin.insert(pds.clone(), KnownHost { budget: Arc::clone(&budget), is_linked });
        Some(budget)
    }

    fn has_place(&self, class: CallClass) -> bool {
        self.by_origin.len() < MOST_HOSTS && (class == CallClass::Linked || self.only_read < MOST_ONLY_READ)
    }

    /// Forgets PDSes that are not in use: those whose windows are over, or else those with the
    /// fewest calls.
    ///
    /// Forgetting a count allows its calls twice. So the number of calls that were sent decides. A
    /// PDS cannot raise it by what it says, and a client that used up one PDS would have to cause as
    /// many calls to each of thousands of others before the first is forgotten.
    fn make_room(&mut self, class: CallClass, now: Instant) {
        self.by_origin.retain(|_, known| known.is_used() || !known.budget.lock().is_over(now));
        self.count_only_read();
        if self.has_place(class) {
            return;
        }
        // Reads take a place of linked accounts only where these have more than three quarters.
        let may_go = |known: &KnownHost| {
            let is_within = class == CallClass::Linked || self.only_read < MOST_HOSTS / 4;
            !known.is_used() && (is_within || !known.is_linked)
        };
        let mut losses: Vec<_> = self
            .by_origin
            .iter()
            .filter(|(_, known)| may_go(known))
            .filter_map(|(pds, known)| Some((known.budget.lock().loss(now)?, pds.clone())))
            .collect();
        losses.sort_unstable_by_key(|(loss, _)| *loss);
        // Several at once, so that a flood of new PDSes does not cost a search for each.
        for (_, pds) in losses.iter().take(AT_ONCE) {
            self.by_origin.remove(pds);
        }
        self.count_only_read();
    }

    fn count_only_read(&mut self) {
        self.only_read = self.by_origin.values().filter(|known| !known.is_linked).count();
    }
}

pub(super) const MOST_HOSTS: usize = 4096;
const MOST_ONLY_READ: usize = MOST_HOSTS / 4 * 3;
/// How many PDSes are forgotten together when the places run out.
const AT_ONCE: usize = MOST_HOSTS / 64;
