//! The calls to one external PDS: its windows, the shares of accounts, and the calls that wait.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::FairQueue;
use super::recent::Recent;
use super::rules::{BudgetError, CallBudgetRules, CallClass, CallKind};
use super::shares::{OwnerKey, Owners, SharesByClass};
use super::window::{RateLimitReport, Window};
use super::witness::{Testimony, Witnesses};

/// The calls to one PDS.
#[derive(Debug)]
pub(super) struct HostCalls {
    pub(super) calls: Window,
    repos: Window,
    uploads: Window,
    calls_witnesses: Witnesses,
    repos_witnesses: Witnesses,
    uploads_witnesses: Witnesses,
    accounts: SharesByClass,
    linked: Line,
    reads: Line,
    /// The calls of linked accounts lately.
    recent: Recent,
    /// Those that left before their turn, because their accounts call rarely.
    recent_modest: Recent,
    /// The reads that left lately.
    recent_reads: Recent,
    /// How many linked accounts called in a window, and its number.
    callers: (u32, u32),
    /// Whether a task admits the calls that wait.
    pub(super) is_driven: bool,
}

/// The waiting calls of one class.
#[derive(Debug)]
struct Line {
    queue: FairQueue<OwnerKey>,
    /// When the last call of this class left at the even pace.
    paced_at: Instant,
}

/// One call, as the budget sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) owner: OwnerKey,
    pub(super) class: CallClass,
    pub(super) kind: CallKind,
}

/// Whether a call may leave.
pub(super) enum CallDecision {
    Go,
    Wait(oneshot::Receiver<()>),
    NotNow(BudgetError),
}

impl HostCalls {
    pub(super) fn new(rules: &CallBudgetRules, owners: &Owners, now: Instant) -> Self {
        let line = || Line { queue: FairQueue::default(), paced_at: now };
        Self {
            calls: Window::new(rules.calls, now),
            repos: Window::new(rules.repos, now),
            uploads: Window::new(rules.uploads, now),
            calls_witnesses: Witnesses::default(),
            repos_witnesses: Witnesses::default(),
            uploads_witnesses: Witnesses::default(),
            accounts: SharesByClass::new(owners),
            linked: line(),
            reads: line(),
            recent: Recent::new(now),
            recent_modest: Recent::new(now),
            recent_reads: Recent::new(now),
            callers: (0, 0),
            is_driven: false,
        }
    }

    /// Takes the number of replicas that share the PDS's limits.
    ///
    /// The limits of accounts are not shared: a client's calls mostly reach one replica, and a PDS
    /// that refuses an account refuses nobody else.
    pub(super) fn share(&mut self, replicas: u32, now: Instant) {
        for window in [&mut self.calls, &mut self.repos, &mut self.uploads] {
            window.share(replicas, now);
        }
    }

    pub(super) fn ask(&mut self, asked: Asked, rules: &CallBudgetRules, now: Instant) -> CallDecision {
        let Asked { owner, class, kind } = asked;
        self.foresee(now);
        let is_write = kind.writes();
        let share = self.accounts.of_class(class).of(owner, rules, now);
        if let Some(until) = share.as_ref().and_then(|share| share.refused_until(is_write, now)) {
            return CallDecision::NotNow(BudgetError { rate: rules.account_calls, wait: until - now });
        }
        let (own, writes) = share.map(|share| (&share.calls, &share.writes)).unzip();
        // The narrow windows are checked before the common one. A call that one of them refuses
        // must not count against the others.
        let narrow = [
            (own, OWN),
            (writes.filter(|_| is_write), OWN),
            ((kind == CallKind::Upload).then_some(&self.uploads), class),
            ((kind == CallKind::Repo).then_some(&self.repos), class),
        ];
        for (window, class) in narrow {
            if let Some(window) = window
                && window.is_used_up(class, now)
            {
                return CallDecision::NotNow(window.refusal(class, now));
            }
        }
        if kind != CallKind::Repo {
            if self.calls.is_used_up(class, now) {
                return CallDecision::NotNow(self.calls.refusal(class, now));
            }
            let is_scarce = self.is_scarce(class, now);
            if is_scarce && self.is_modest(asked, now) {
                self.recent_modest.count(self.slice(), now);
                // The pace of the others does not begin again with it.
                self.calls.take(class, now);
                self.count_own(asked, now);
                return CallDecision::Go;
            }
            // Once one call waits, all others of its class queue behind it: a newcomer must not
            // overtake.
            if is_scarce && (!self.line(class).queue.is_empty() || self.due(class, now) == 0) {
                let most = self.places(class);
                let Some(turn) = self.line_mut(class).queue.join(&owner, most) else {
                    let wait = self.calls.left(now).min(LONGEST_GUESS);
                    return CallDecision::NotNow(BudgetError { rate: self.calls.rate(), wait });
                };
                // Counted when it joins, so that one account cannot fill the queue beyond its own
                // limit.
                self.count_own(asked, now);
                return CallDecision::Wait(turn);
            }
            self.take(class, now);
        }
        self.count_own(asked, now);
        CallDecision::Go
    }

    /// Tells the window how many calls linked accounts will need, if they go on as lately: a quarter
    /// more, because calls do not come evenly.
    fn foresee(&mut self, now: Instant) {
        let left = if self.calls.is_over(now) { self.calls.length() } else { self.calls.left(now) };
        let expected = self.recent.expected(0, left, self.slice(), now);
        self.calls.expect(expected.saturating_add(expected / 4));
    }

    /// Whether a linked account calls so rarely that all that called in this window could call as often
    /// until it ends.
    fn is_modest(&mut self, Asked { owner, class, .. }: Asked, now: Instant) -> bool {
        let (left, slice, number) = (self.calls.left(now), self.slice(), self.calls.number());
        if class != CallClass::Linked {
            return false;
        }
        let Some(share) = self.accounts.of_class(class).get(owner) else { return false };
        let known = if self.callers.1 == number { self.callers.0 } else { 0 };
        let callers = known.saturating_add(u32::from(share.called_in != Some(number)));
        let calls = share.recent.expected(1, left, slice, now).saturating_mul(callers);
        calls <= self.calls.remaining(class)
    }

    /// Whether calls of a class leave at an even pace: when a quarter of the window is used, and reads
    /// also after a burst. Anyone may ask for reads, and many at once keep a small PDS busy for seconds.
    fn is_scarce(&self, class: CallClass, now: Instant) -> bool {
        let burst = || (self.calls.rate().count / 50).max(SMALLEST_BURST);
        let slice = self.slice();
        self.calls.is_scarce(class, now)
            || (class == CallClass::Read
                && !self.calls.is_over(now)
                && self.recent_reads.expected(0, slice, slice, now) >= burst())
    }

    /// The time over which calls count as lately made.
    fn slice(&self) -> Duration {
        self.calls.length() / 10
    }

    /// The pace at which calls of a class leave. That of linked accounts leaves room for those that do
    /// not have to wait for it.
    fn pace(&self, class: CallClass, now: Instant) -> Duration {
        let kept = match class {
            CallClass::Linked => self.recent_modest.expected(0, self.calls.left(now), self.slice(), now),
            CallClass::Read => 0,
        };
        self.calls.pace(class, kept, now)
    }

    /// The most calls of a class that may wait. A quarter of all places is for linked accounts.
    fn places(&self, class: CallClass) -> usize {
        match class {
            CallClass::Read => MOST_WAITING - MOST_WAITING / 4,
            CallClass::Linked => MOST_WAITING - self.reads.queue.waiting().min(MOST_WAITING * 3 / 4),
        }
    }

    fn take(&mut self, class: CallClass, now: Instant) {
        self.calls.take(class, now);
        self.line_mut(class).paced_at = now;
        if class == CallClass::Read {
            self.recent_reads.count(self.slice(), now);
        }
    }

    /// Counts a call for its account. A waiting call counts as well.
    fn count_own(&mut self, Asked { owner, class, kind }: Asked, now: Instant) {
        let (slice, number) = (self.slice(), self.calls.number());
        if let Some(share) = self.accounts.of_class(class).get(owner) {
            share.calls.take(OWN, now);
            if kind.writes() {
                share.writes.take(OWN, now);
            }
            if class == CallClass::Linked && kind != CallKind::Repo {
                share.recent.count(slice, now);
                self.recent.count(slice, now);
                if self.callers.1 != number {
                    self.callers = (0, number);
                }
                if share.called_in.replace(number) != Some(number) {
                    self.callers.0 += 1;
                }
            }
        }
        match kind {
            CallKind::Upload => self.uploads.take(class, now),
            CallKind::Repo => self.repos.take(class, now),
            CallKind::Read | CallKind::Write => {}
        }
    }

    /// Admits the waiting calls that are due, and returns when the next one is. `None` means that no
    /// call waits.
    pub(super) fn call_next(&mut self, now: Instant) -> Option<Instant> {
        self.foresee(now);
        let next = |host: &mut Self, class| {
            let was_scarce = host.is_scarce(class, now);
            for _ in 0..host.due(class, now) {
                // A new window does not admit all that waited for it at once.
                let has_become_scarce = !was_scarce && host.is_scarce(class, now);
                if has_become_scarce
                    || host.calls.is_used_up(class, now)
                    || !host.line_mut(class).queue.admit_next()
                {
                    break;
                }
                host.take(class, now);
            }
            // Calls that left keep no task awake.
            host.line_mut(class).queue.forget_those_who_left();
            host.next_due(class, now)
        };
        // Linked accounts first: reads must not take the call that was due to them.
        let both = [CallClass::Linked, CallClass::Read].map(|class| next(self, class));
        both.into_iter().flatten().min()
    }

    /// When the first waiting call of a class is due.
    fn next_due(&self, class: CallClass, now: Instant) -> Option<Instant> {
        let line = self.line(class);
        if line.queue.is_empty() {
            None
        } else if self.calls.is_used_up(class, now) {
            Some(self.calls.resumes(class, now))
        } else {
            Some(line.paced_at + self.pace(class, now))
        }
    }

    /// Returns how many calls of a class may leave now, at an even pace over the rest of the window.
    fn due(&self, class: CallClass, now: Instant) -> u32 {
        if !self.is_scarce(class, now) {
            return u32::MAX;
        }
        let pace = self.pace(class, now);
        // A pace of zero would divide by zero: the window ends within this nanosecond.
        let due = now.duration_since(self.line(class).paced_at).as_nanos() / pace.as_nanos().max(1);
        u32::try_from(due).unwrap_or(u32::MAX)
    }

    /// The refusal of a call that waited in vain. Its turn may come soon.
    pub(super) fn waited_in_vain(&self, now: Instant) -> BudgetError {
        BudgetError { rate: self.calls.rate(), wait: self.calls.left(now).min(LONGEST_GUESS) }
    }

    /// Takes what an answer says about a limit.
    ///
    /// A report that names a window of the PDS counts for everyone. Any other one may be about the
    /// account or the method alone: the account waits, and the others only if a second account hears
    /// the same. A refused read never stops linked accounts. The last call that a limit allows stops
    /// no linked account: if the limit is of one method, its other calls may go on, and otherwise the
    /// PDS refuses the next one.
    pub(super) fn hear(&mut self, asked: Asked, told: &RateLimitReport, now: Instant) {
        let Asked { owner, class, kind } = asked;
        let longest = self.calls.length();
        let (window, witnesses) = match kind {
            CallKind::Repo => (&mut self.repos, &mut self.repos_witnesses),
            // The report describes one window, and this condition finds out which.
            CallKind::Upload if told.says(self.uploads.length()) => {
                (&mut self.uploads, &mut self.uploads_witnesses)
            }
            _ => (&mut self.calls, &mut self.calls_witnesses),
        };
        if window.is_named_by(told) {
            window.correct(told, now);
            return;
        }
        let lower = window.lower_limit(told);
        let until = now + told.left().min(window.length());
        let mut agree = |limit| witnesses.agree(class, Testimony { owner, limit, until }, now);
        // Limits of single methods are for writes, as a rule. So reports of reading calls may lower
        // the common limit.
        if lower.is_some() && class == CallClass::Linked && kind.only_reads() && agree(lower) {
            window.correct(told, now);
            return;
        }
        let Some(wait) = told.exhausted_for() else { return };
        match class {
            CallClass::Linked if told.is_bare() && agree(None) => window.close(wait, now),
            CallClass::Read if (told.is_bare() || lower.is_some()) && agree(None) => {
                window.close_to_reads(wait, now);
            }
            _ => {}
        }
        let accounts = self.accounts.of_class(class);
        let writes = accounts.get(owner).map(|share| share.writes.length());
        let (only_writes, wait) = match class {
            CallClass::Linked if !told.is_refusal() => return,
            CallClass::Linked if told.is_bare() => (false, wait),
            // A limit of all writes, or of one method. The account must not be without its other
            // methods for as long as a limit of one may last.
            CallClass::Linked if writes.is_some_and(|length| told.says(length)) => (kind.writes(), wait),
            CallClass::Linked => (kind.writes(), wait.min(longest)),
            // Strangers cause any number of these, so none is kept for long.
            CallClass::Read => (false, wait.min(longest)),
        };
        accounts.refuse(owner, only_writes, now + wait);
    }

    #[cfg(test)]
    pub(super) const fn waiting(&self) -> usize {
        self.linked.queue.waiting() + self.reads.queue.waiting()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.linked.queue.is_empty() || !self.reads.queue.is_empty()
    }

    /// Whether nothing of it counts any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let windows = [&self.calls, &self.repos, &self.uploads];
        !self.has_waiting()
            && windows.iter().all(|window| window.is_untouched(now))
            && !self.accounts.has_refused(now)
    }

    /// What would be forgotten with it, in the order of weight: the calls sent for linked accounts,
    /// whether a limit is close, and all calls sent. `None` if it must stay, because calls wait.
    pub(super) fn loss(&self, now: Instant) -> Option<(u32, bool, u32)> {
        if self.has_waiting() {
            return None;
        }
        let windows = [&self.calls, &self.repos, &self.uploads];
        let is_close = self.accounts.has_refused(now)
            || windows.iter().any(|window| window.is_scarce(CallClass::Read, now));
        let (linked, all) = windows
            .iter()
            .map(|window| window.sent(now))
            .fold((0_u32, 0_u32), |sum, sent| (sum.0.saturating_add(sent.0), sum.1.saturating_add(sent.1)));
        Some((linked, is_close, all))
    }

    const fn line(&self, class: CallClass) -> &Line {
        match class {
            CallClass::Linked => &self.linked,
            CallClass::Read => &self.reads,
        }
    }

    const fn line_mut(&mut self, class: CallClass) -> &mut Line {
        match class {
            CallClass::Linked => &mut self.linked,
            CallClass::Read => &mut self.reads,
        }
    }
}

/// An account's own window has one class of calls, so nothing of it is reserved.
const OWN: CallClass = CallClass::Linked;
/// So many reads at once are no burst, however few calls a PDS allows.
const SMALLEST_BURST: u32 = 5;
/// The most calls that wait for one PDS.
const MOST_WAITING: usize = 512;
/// The longest wait that a refused call is told: by then its turn may well come.
pub(super) const LONGEST_GUESS: Duration = Duration::from_secs(5);

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
