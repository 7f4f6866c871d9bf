//! The fair use of external PDSes.
//!
//! A PDS counts everyone behind Genkan as one client. So Genkan counts as the PDS does, in windows
//! like its own, and corrects the count by what its answers say. The first half of a window is first
//! come, first served. In the second half calls leave at an even pace. Where they have to wait for
//! that, accounts take turns, so an account that asks for much waits behind itself. When the window is
//! used up, no call leaves until it is over.
//!
//! Words: *account* = what a call is counted for: an account, or the client's address without one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::FairQueue;
use super::window::{RateLimitReport, Window};
use crate::base::{Origin, Timestamp, monotonic_now};
use crate::config::{Config, Rate};
use crate::limits;
use crate::routing::Weight;
use genkan_protocol::syntax::Did;
use http::{HeaderMap, Method, StatusCode};

/// What one PDS may be asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallBudgetRules {
    pub(crate) calls: Rate,
    pub(crate) repos: Rate,
    pub(crate) uploads: Rate,
    pub(crate) account_calls: Rate,
    pub(crate) account_writes: Rate,
    /// How long a call may wait for its turn.
    pub(crate) wait: Duration,
}

impl CallBudgetRules {
    pub(crate) const fn of(config: &Config) -> Self {
        let external = &config.external;
        Self {
            calls: external.calls,
            repos: external.repos,
            uploads: external.uploads,
            account_calls: external.account_calls,
            account_writes: external.account_writes,
            wait: external.wait,
        }
    }
}

/// Whom a call is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum CallOwner {
    Did(Did),
    Client(limits::ClientNetwork),
}

/// How a PDS counts a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    Read,
    Write,
    /// `uploadBlob`: a write, and counted by itself besides.
    Upload,
    /// `getRepo`: counted only by itself.
    Repo,
}

impl CallKind {
    /// How a PDS counts a call of this weight, made by this verb.
    pub(super) fn of(weight: Weight, verb: &Method) -> Self {
        match weight {
            Weight::Upload => Self::Upload,
            Weight::Export => Self::Repo,
            Weight::ByVerb if verb == Method::POST => Self::Write,
            Weight::ByVerb => Self::Read,
        }
    }
}

/// It is not the call's turn, and will not be within the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BudgetError {
    pub(super) rate: Rate,
    pub(super) wait: Duration,
}

/// How a call was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Immediate,
    AfterWaiting,
}

/// Counts calls for all threads. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct CallBudgets {
    rules: CallBudgetRules,
    hosts: Arc<Mutex<HashMap<Origin, Host>>>,
}

impl CallBudgets {
    pub(super) fn new(rules: CallBudgetRules) -> Self {
        Self { rules, hosts: Arc::default() }
    }

    /// Waits until a call may go. It is counted then.
    pub(super) async fn admit(
        &self,
        pds: &Origin,
        account: &CallOwner,
        kind: CallKind,
    ) -> Result<Admission, BudgetError> {
        let mut turn = match self.with(pds, |host, now| host.ask(account, kind, &self.rules, now)) {
            Ask::Go => return Ok(Admission::Immediate),
            Ask::NotNow(exhausted) => return Err(exhausted),
            Ask::Wait(turn) => turn,
        };
        let until = monotonic_now() + self.rules.wait;
        loop {
            let tick = monotonic_now() + TICK;
            tokio::select! {
                biased;
                // An error: the host was forgotten, and its count with it.
                _ = &mut turn => return Ok(Admission::AfterWaiting),
                () = tokio::time::sleep_until(tick.min(until)) => {}
            }
            let exhausted = self.with(pds, |host, now| {
                host.call_next(now);
                BudgetError { rate: self.rules.calls, wait: host.calls.left(now).min(LONGEST_GUESS) }
            });
            if monotonic_now() >= until {
                // It may have been called in this very moment.
                turn.close();
                return if turn.try_recv().is_ok() { Ok(Admission::AfterWaiting) } else { Err(exhausted) };
            }
        }
    }

    /// Takes what an answer says of its host's limits.
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
        self.with(pds, |host, now| host.hear(account, kind, &told, now));
    }

    /// How many hosts are known, and at how many of them nobody may call now.
    pub(super) fn known(&self) -> (usize, usize) {
        let now = monotonic_now();
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        (hosts.len(), hosts.values().filter(|host| host.calls.is_used_up(now)).count())
    }

    fn with<T>(&self, pds: &Origin, act: impl FnOnce(&mut Host, Instant) -> T) -> T {
        let now = monotonic_now();
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MOST_HOSTS && !hosts.contains_key(pds) {
            hosts.retain(|_, host| !host.is_forgettable(now));
        }
        if hosts.len() >= MOST_HOSTS
            && !hosts.contains_key(pds)
            && let Some(any) = hosts.keys().next().cloned()
        {
            hosts.remove(&any);
        }
        let host = hosts.entry(pds.clone()).or_insert_with(|| Host::new(&self.rules, now));
        act(host, now)
    }
}

/// What one PDS was asked for.
#[derive(Debug)]
struct Host {
    calls: Window,
    repos: Window,
    uploads: Window,
    accounts: HashMap<CallOwner, Share>,
    queue: FairQueue<CallOwner>,
    /// When the last call left at the even pace.
    paced_at: Instant,
}

/// What one account has of it.
#[derive(Debug)]
struct Share {
    calls: Window,
    writes: Window,
    /// The PDS has said that this account had enough.
    until: Option<Instant>,
}

enum Ask {
    Go,
    Wait(oneshot::Receiver<()>),
    NotNow(BudgetError),
}

impl Host {
    fn new(rules: &CallBudgetRules, now: Instant) -> Self {
        Self {
            calls: Window::new(rules.calls, now),
            repos: Window::new(rules.repos, now),
            uploads: Window::new(rules.uploads, now),
            accounts: HashMap::new(),
            queue: FairQueue::default(),
            paced_at: now,
        }
    }

    fn ask(&mut self, account: &CallOwner, kind: CallKind, rules: &CallBudgetRules, now: Instant) -> Ask {
        if self.accounts.len() >= MOST_ACCOUNTS {
            self.accounts
                .retain(|_, share| !share.calls.is_over(now) || share.until.is_some_and(|until| until > now));
        }
        let share = self.accounts.entry(account.clone()).or_insert_with(|| Share::new(rules, now));
        if let Some(wait) = share.until.and_then(|until| until.checked_duration_since(now)) {
            return Ask::NotNow(BudgetError { rate: rules.account_calls, wait });
        }
        let is_write = matches!(kind, CallKind::Write | CallKind::Upload);
        let own = [
            Some(&mut share.calls),
            is_write.then_some(&mut share.writes),
            (kind == CallKind::Upload).then_some(&mut self.uploads),
            (kind == CallKind::Repo).then_some(&mut self.repos),
        ];
        for window in own.into_iter().flatten() {
            if window.is_used_up(now) {
                return Ask::NotNow(BudgetError { rate: window.rate(), wait: window.left(now) });
            }
        }
        if kind != CallKind::Repo {
            if self.calls.is_used_up(now) {
                return Ask::NotNow(BudgetError { rate: self.calls.rate(), wait: self.calls.left(now) });
            }
            if self.calls.is_scarce(now) && (!self.queue.is_empty() || self.due(now) == 0) {
                let Some(turn) = self.queue.join(account) else {
                    let wait = self.calls.left(now).min(LONGEST_GUESS);
                    return Ask::NotNow(BudgetError { rate: self.calls.rate(), wait });
                };
                self.count_own(account, kind, now);
                return Ask::Wait(turn);
            }
            self.calls.take(now);
            self.paced_at = now;
        }
        self.count_own(account, kind, now);
        Ask::Go
    }

    /// Counts a call for its account. One that waits is counted as well: it has asked.
    fn count_own(&mut self, account: &CallOwner, kind: CallKind, now: Instant) {
        if let Some(share) = self.accounts.get_mut(account) {
            share.calls.take(now);
            if matches!(kind, CallKind::Write | CallKind::Upload) {
                share.writes.take(now);
            }
        }
        match kind {
            CallKind::Upload => self.uploads.take(now),
            CallKind::Repo => self.repos.take(now),
            CallKind::Read | CallKind::Write => {}
        }
    }

    /// Calls those whose turn has come.
    fn call_next(&mut self, now: Instant) {
        for _ in 0..self.due(now) {
            if self.calls.is_used_up(now) || !self.queue.admit_next() {
                return;
            }
            self.calls.take(now);
            self.paced_at = now;
        }
    }

    /// How many calls may leave now, at an even pace over what is left of the window.
    fn due(&self, now: Instant) -> u32 {
        if !self.calls.is_scarce(now) {
            return u32::MAX;
        }
        let pace = self.calls.pace(now);
        let due = now.duration_since(self.paced_at).as_nanos() / pace.as_nanos().max(1);
        u32::try_from(due).unwrap_or(u32::MAX)
    }

    fn hear(&mut self, account: &CallOwner, kind: CallKind, told: &RateLimitReport, now: Instant) {
        let window = match kind {
            CallKind::Repo => &mut self.repos,
            // It speaks of one window, and this is which.
            CallKind::Upload if told.says(self.uploads.rate().per) => &mut self.uploads,
            _ => &mut self.calls,
        };
        if told.is_as_long_as(window.rate().per) {
            window.correct(told, now);
        } else if let (Some(wait), Some(share)) = (told.exhausted_for(), self.accounts.get_mut(account)) {
            // A window that we do not know of is most likely the account's own.
            share.until = Some(now + wait);
        }
    }

    fn is_forgettable(&self, now: Instant) -> bool {
        self.queue.is_empty() && self.calls.is_over(now) && self.uploads.is_untouched(now)
    }
}

impl Share {
    const fn new(rules: &CallBudgetRules, now: Instant) -> Self {
        Self {
            calls: Window::new(rules.account_calls, now),
            writes: Window::new(rules.account_writes, now),
            until: None,
        }
    }
}

/// How often those who wait look whether somebody's turn has come.
const TICK: Duration = Duration::from_millis(10);
const MOST_HOSTS: usize = 4096;
const MOST_ACCOUNTS: usize = 20_000;
/// What we say to one who waited in vain: by then its turn may well come.
const LONGEST_GUESS: Duration = Duration::from_secs(5);

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
