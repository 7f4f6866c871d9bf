//! The fair use of external PDSes.
//!
//! A PDS counts everyone behind Genkan as one client. So Genkan counts as the PDS does, in windows
//! like its own, and corrects the count by the PDS's rate-limit headers. The first half of a window
//! is first come, first served. In the second half, calls leave at an even pace. When calls have to
//! wait for the pace, accounts take turns, so an account with many calls waits behind itself. When
//! the window is used up, no call leaves until it ends.
//!
//! In this file *account* means what a call is counted for: an account, or the client's network for
//! calls without an account.

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

/// The rates at which one PDS may be called.
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

/// What a call is counted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::forward) enum CallOwner {
    Did(Did),
    Client(limits::ClientNetwork),
}

/// How a PDS counts a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::forward) enum CallKind {
    Read,
    Write,
    /// `uploadBlob`: counts as a write and against its own limit.
    Upload,
    /// `getRepo`: counts against its own limit only.
    Repo,
}

impl CallKind {
    /// How a PDS counts a call of this weight, made by this verb.
    pub(in crate::forward) fn of(weight: Weight, verb: &Method) -> Self {
        match weight {
            Weight::Upload => Self::Upload,
            Weight::Export => Self::Repo,
            Weight::ByVerb if verb == Method::POST => Self::Write,
            Weight::ByVerb => Self::Read,
        }
    }
}

/// The call cannot leave within the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BudgetError {
    pub(super) rate: Rate,
    pub(super) wait: Duration,
}

/// How a call was admitted.
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

    /// Waits until a call may leave, and counts it.
    pub(super) async fn admit(
        &self,
        pds: &Origin,
        account: &CallOwner,
        kind: CallKind,
    ) -> Result<Admission, BudgetError> {
        let mut turn = match self.with(pds, |host, now| host.ask(account, kind, &self.rules, now)) {
            CallDecision::Go => return Ok(Admission::Immediate),
            CallDecision::NotNow(exhausted) => return Err(exhausted),
            CallDecision::Wait(turn) => turn,
        };
        // The wait is bounded as a whole, however often the loop wakes.
        let until = monotonic_now() + self.rules.wait;
        loop {
            let tick = monotonic_now() + TICK;
            // `biased`: a turn that has come wins over the timer, or an admitted call would be
            // refused.
            tokio::select! {
                biased;
                // An error means that the host was forgotten, and its count with it.
                _ = &mut turn => return Ok(Admission::AfterWaiting),
                () = tokio::time::sleep_until(tick.min(until)) => {}
            }
            // Every waiting call drives the queue. There is no task that could end while calls
            // wait.
            let exhausted = self.with(pds, |host, now| {
                host.call_next(now);
                BudgetError { rate: self.rules.calls, wait: host.calls.left(now).min(LONGEST_GUESS) }
            });
            if monotonic_now() >= until {
                // The turn may have come in this very moment. Closing first decides the race:
                // afterwards no turn can come unseen.
                turn.close();
                return if turn.try_recv().is_ok() { Ok(Admission::AfterWaiting) } else { Err(exhausted) };
            }
        }
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
        self.with(pds, |host, now| host.hear(account, kind, &told, now));
    }

    /// Returns how many PDSes are known, and how many of them allow no further calls now.
    pub(super) fn known(&self) -> (usize, usize) {
        let now = monotonic_now();
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        (hosts.len(), hosts.values().filter(|host| host.calls.is_used_up(now)).count())
    }

    fn with<T>(&self, pds: &Origin, act: impl FnOnce(&mut Host, Instant) -> T) -> T {
        let now = monotonic_now();
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MOST_HOSTS && !hosts.contains_key(pds) {
            // Dropping a window that still counts would allow its calls twice, so only unused PDSes
            // go first.
            hosts.retain(|_, host| !host.is_forgettable(now));
        }
        if hosts.len() >= MOST_HOSTS
            && !hosts.contains_key(pds)
            && let Some(any) = hosts.keys().next().cloned()
        // Every PDS is in use. Memory stays bounded all the same: the PDS itself still counts.
        {
            hosts.remove(&any);
        }
        let host = hosts.entry(pds.clone()).or_insert_with(|| Host::new(&self.rules, now));
        act(host, now)
    }
}

/// The calls to one PDS.
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

/// One account's share of the calls.
#[derive(Debug)]
struct Share {
    calls: Window,
    writes: Window,
    /// The PDS refused this account until this time.
    until: Option<Instant>,
}

enum CallDecision {
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

    fn ask(
        &mut self,
        account: &CallOwner,
        kind: CallKind,
        rules: &CallBudgetRules,
        now: Instant,
    ) -> CallDecision {
        if self.accounts.len() >= MOST_ACCOUNTS {
            // A share whose window is over counts nothing, so dropping it changes no decision.
            self.accounts
                .retain(|_, share| !share.calls.is_over(now) || share.until.is_some_and(|until| until > now));
        }
        let share = self.accounts.entry(account.clone()).or_insert_with(|| Share::new(rules, now));
        if let Some(wait) = share.until.and_then(|until| until.checked_duration_since(now)) {
            return CallDecision::NotNow(BudgetError { rate: rules.account_calls, wait });
        }
        let is_write = matches!(kind, CallKind::Write | CallKind::Upload);
        // The narrow windows are checked before the common one. A call that one of them refuses
        // must not count against the others.
        let own = [
            Some(&mut share.calls),
            is_write.then_some(&mut share.writes),
            (kind == CallKind::Upload).then_some(&mut self.uploads),
            (kind == CallKind::Repo).then_some(&mut self.repos),
        ];
        for window in own.into_iter().flatten() {
            if window.is_used_up(now) {
                return CallDecision::NotNow(BudgetError { rate: window.rate(), wait: window.left(now) });
            }
        }
        if kind != CallKind::Repo {
            if self.calls.is_used_up(now) {
                return CallDecision::NotNow(BudgetError {
                    rate: self.calls.rate(),
                    wait: self.calls.left(now),
                });
            }
            // Once one call waits, all others queue behind it: a newcomer must not overtake.
            if self.calls.is_scarce(now) && (!self.queue.is_empty() || self.due(now) == 0) {
                let Some(turn) = self.queue.join(account) else {
                    let wait = self.calls.left(now).min(LONGEST_GUESS);
                    return CallDecision::NotNow(BudgetError { rate: self.calls.rate(), wait });
                };
                // Counted when it joins, so that one account cannot fill the queue beyond its own
                // limit.
                self.count_own(account, kind, now);
                return CallDecision::Wait(turn);
            }
            self.calls.take(now);
            self.paced_at = now;
        }
        self.count_own(account, kind, now);
        CallDecision::Go
    }

    /// Counts a call for its account. A waiting call counts as well.
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

    /// Admits the waiting calls that are due.
    fn call_next(&mut self, now: Instant) {
        for _ in 0..self.due(now) {
            if self.calls.is_used_up(now) || !self.queue.admit_next() {
                return;
            }
            self.calls.take(now);
            self.paced_at = now;
        }
    }

    /// Returns how many calls may leave now, at an even pace over the rest of the window.
    fn due(&self, now: Instant) -> u32 {
        if !self.calls.is_scarce(now) {
            return u32::MAX;
        }
        let pace = self.calls.pace(now);
        // A pace of zero would divide by zero: the window ends within this nanosecond.
        let due = now.duration_since(self.paced_at).as_nanos() / pace.as_nanos().max(1);
        u32::try_from(due).unwrap_or(u32::MAX)
    }

    fn hear(&mut self, account: &CallOwner, kind: CallKind, told: &RateLimitReport, now: Instant) {
        let window = match kind {
            CallKind::Repo => &mut self.repos,
            // The report describes one window, and this condition finds out which.
            CallKind::Upload if told.says(self.uploads.rate().per) => &mut self.uploads,
            _ => &mut self.calls,
        };
        if told.is_as_long_as(window.rate().per) {
            window.correct(told, now);
        } else if let (Some(wait), Some(share)) = (told.exhausted_for(), self.accounts.get_mut(account)) {
            // A window of a length that Genkan does not know is most likely the account's own.
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

/// How often a waiting call checks whether a turn is due.
const TICK: Duration = Duration::from_millis(10);
const MOST_HOSTS: usize = 4096;
const MOST_ACCOUNTS: usize = 20_000;
/// The longest wait that a refused call is told: by then its turn may well come.
const LONGEST_GUESS: Duration = Duration::from_secs(5);

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
