//! The fair use of external PDSes.
//!
//! A PDS counts everyone behind Genkan as one client. So Genkan counts as the PDS does, in windows
//! like its own, and corrects the count by the PDS's rate-limit headers. Replicas share a limit in
//! equal parts. The first quarter of a window is first come, first served, for reads only a burst of a
//! fiftieth. Then calls leave at an even pace. A linked account that calls no more often than all of them could until the window ends does
//! not wait for the pace, and the pace of the others leaves room for it. When calls have to wait,
//! accounts take turns, so an account with many calls waits behind itself. When the window is used up,
//! no call leaves until it ends.
//!
//! A quarter of the calls, and of the places in the queue, is reserved for linked accounts, and more
//! calls if they lately made more: anyone may ask for reads, and must not be able to use up what linked
//! accounts need.
//!
//! In this file *account* means what a call is counted for: an account, or the client's network for
//! calls without an account.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::runtime::Handle;

use super::host::{Asked, CallDecision, HostCalls, LONGEST_GUESS};
use super::hosts::{HostBudget, Hosts};
use super::rules::{BudgetError, CallBudgetRules, CallClass, CallKind, CallOwner};
use super::shares::Owners;
use super::window::RateLimitReport;
use crate::base::{Origin, Timestamp, monotonic_now};
use crate::db::LiveReplicas;

/// How a call was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Immediate,
    AfterWaiting,
}

/// Counts calls for all threads. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct CallBudgets {
    rules: Arc<CallBudgetRules>,
    replicas: LiveReplicas,
    /// The runtime of the tasks that admit waiting calls. They must not end with an edge thread.
    control: Handle,
    owners: Owners,
    /// Locked only to find a PDS. Each PDS has a lock of its own.
    hosts: Arc<Mutex<Hosts>>,
}

impl CallBudgets {
    /// Waiting calls are admitted on the runtime that this is called on.
    pub(super) fn new(rules: CallBudgetRules, replicas: LiveReplicas) -> Self {
        let (control, owners) = (Handle::current(), Owners::new());
        Self { rules: Arc::new(rules), replicas, control, owners, hosts: Arc::default() }
    }

    /// Waits until a call may leave, and counts it.
    pub(super) async fn admit(
        &self,
        pds: &Origin,
        account: &CallOwner,
        kind: CallKind,
    ) -> Result<Admission, BudgetError> {
        let host = self.host(pds, account.class())?;
        let asked = self.asked(account, kind);
        let mut turn = match self.ask(&host, asked) {
            CallDecision::Go => return Ok(Admission::Immediate),
            CallDecision::NotNow(exhausted) => return Err(exhausted),
            CallDecision::Wait(turn) => turn,
        };
        // `biased`: a turn that has come wins over the timer, or an admitted call would be refused.
        tokio::select! {
            biased;
            Ok(()) = &mut turn => return Ok(Admission::AfterWaiting),
            () = tokio::time::sleep(self.rules.wait) => {}
        }
        // The turn may have come in this very moment. Closing first decides the race: afterwards no
        // turn can come unseen.
        turn.close();
        if turn.try_recv().is_ok() {
            return Ok(Admission::AfterWaiting);
        }
        Err(host.lock().waited_in_vain(monotonic_now()))
    }

    /// Takes the rate-limit headers of an answer.
    pub(super) fn hear(
        &self,
        pds: &Origin,
        account: &CallOwner,
        kind: CallKind,
        status: StatusCode,
        headers: &HeaderMap,
        clock: Timestamp,
    ) {
        let Some(told) = RateLimitReport::of(status, headers, clock) else { return };
        let Ok(host) = self.host(pds, account.class()) else { return };
        host.lock().hear(self.asked(account, kind), &told, monotonic_now());
        // The calls that wait may be due earlier or later than before.
        host.changed.notify_one();
    }

    /// Returns how many PDSes are known, and how many of them allow no further calls now.
    pub(super) fn known(&self) -> (usize, usize) {
        let now = monotonic_now();
        let hosts = self.hosts();
        let is_exhausted = |host: &&HostBudget| host.lock().calls.is_used_up(CallClass::Linked, now);
        (hosts.len(), hosts.budgets().filter(is_exhausted).count())
    }

    fn asked(&self, account: &CallOwner, kind: CallKind) -> Asked {
        Asked { owner: self.owners.key(account), class: account.class(), kind }
    }

    fn ask(&self, host: &Arc<HostBudget>, asked: Asked) -> CallDecision {
        let now = monotonic_now();
        let mut calls = host.lock();
        calls.share(self.replicas.count(), now);
        let decision = calls.ask(asked, &self.rules, now);
        if matches!(decision, CallDecision::Wait(_)) {
            if calls.is_driven {
                host.changed.notify_one();
            } else {
                calls.is_driven = true;
                self.control.spawn(admit_waiting(Arc::clone(host), self.replicas.clone(), self.rules.wait));
            }
        }
        decision
    }

    /// Returns the budget of a PDS, for a call of this class.
    fn host(&self, pds: &Origin, class: CallClass) -> Result<Arc<HostBudget>, BudgetError> {
        let mut hosts = self.hosts();
        if let Some(host) = hosts.get(pds, class) {
            return Ok(host);
        }
        let now = monotonic_now();
        let calls = HostCalls::new(&self.rules, &self.owners, now);
        let crowded = BudgetError { rate: self.rules.calls, wait: LONGEST_GUESS };
        hosts.add(pds, class, calls, now).ok_or(crowded)
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Admits the calls that wait for one PDS when they are due, until none waits.
async fn admit_waiting(host: Arc<HostBudget>, replicas: LiveReplicas, wait: Duration) {
    loop {
        let now = monotonic_now();
        let next = {
            let mut calls = host.lock();
            calls.share(replicas.count(), now);
            let next = calls.call_next(now);
            // While the lock is held: a call that joins afterwards starts a task of its own.
            calls.is_driven = next.is_some();
            next
        };
        let Some(next) = next else { return };
        // By the end of `wait` all of these calls have left, however far the next turn is.
        let next = next.min(now + wait + SHORTEST);
        tokio::select! {
            // No sooner than a millisecond, the timer's resolution, or the task would spin.
            () = tokio::time::sleep_until(next.max(now + SHORTEST)) => {}
            () = host.changed.notified() => {}
        }
    }
}

const SHORTEST: Duration = Duration::from_millis(1);

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
