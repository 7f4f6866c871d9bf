//! A connection's activity as its worker sees it: busy, or idle since when.
//!
//! Connections have no timers of their own. Each notes when it began to wait for something, and its worker checks the
//! notes of all its connections a few times a second.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::Settings;

/// One connection's notes.
#[derive(Debug)]
pub(super) struct Activity {
    /// Requests whose answers have not ended.
    under_way: Cell<u32>,
    /// When the last of them ended, or the connection began.
    quiet_since: Cell<Instant>,
    /// When the head that is being read began.
    pub(super) head_since: Cell<Option<Instant>>,
    /// Since when the client takes nothing of what waits for it.
    pub(super) blocked_since: Cell<Option<Instant>>,
    /// Requests that the client took back since `taken_back_since`.
    taken_back: Cell<u32>,
    taken_back_since: Cell<Instant>,
    verdict: Cell<Verdict>,
    /// Wakes the connection's task.
    waker: RefCell<Option<Waker>>,
}

/// What is to become of a connection. Later ones outweigh earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
pub(super) enum Verdict {
    #[default]
    Stays,
    /// Has nothing to do: it gives its buffers back until something comes.
    Rests,
    /// Goes when its requests have ended.
    Leaves,
    /// Its head did not come in time: it is told so and goes.
    TooSlow,
    /// Has been told that it made a fault.
    Refused,
    /// Goes at once.
    Dropped,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            under_way: Cell::new(0),
            quiet_since: Cell::new(Instant::now()),
            head_since: Cell::new(None),
            blocked_since: Cell::new(None),
            taken_back: Cell::new(0),
            taken_back_since: Cell::new(Instant::now()),
            verdict: Cell::default(),
            waker: RefCell::default(),
        }
    }

    pub(super) fn begin(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    pub(super) fn end(&self) {
        self.under_way.set(self.under_way.get() - 1);
        if self.under_way.get() == 0 {
            self.quiet_since.set(Instant::now());
        }
    }

    /// The client asked, and took it back before there was an answer. Who does that too often goes at once (T19).
    pub(super) fn take_back(&self) {
        self.end();
        let now = Instant::now();
        if now.duration_since(self.taken_back_since.get()) > TAKEN_BACK_WITHIN {
            self.taken_back_since.set(now);
            self.taken_back.set(0);
        }
        self.taken_back.set(self.taken_back.get() + 1);
        if self.taken_back.get() > TAKEN_BACK_MOST {
            self.judge(Verdict::Dropped);
        }
    }

    pub(super) const fn is_quiet(&self) -> bool {
        self.under_way.get() == 0
    }

    pub(super) const fn verdict(&self) -> Verdict {
        self.verdict.get()
    }

    pub(super) fn judge(&self, verdict: Verdict) {
        if verdict > self.verdict.get() {
            self.verdict.set(verdict);
            if let Some(waker) = &*self.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }

    /// Something has come.
    pub(super) fn stir(&self) {
        if self.verdict.get() == Verdict::Rests {
            self.verdict.set(Verdict::Stays);
        }
    }

    /// Whether it has nothing to do, by all that is known here.
    pub(super) const fn is_at_rest(&self) -> bool {
        self.is_quiet() && self.head_since.get().is_none() && self.blocked_since.get().is_none()
    }

    /// Remembers whom to wake.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Looks at the time.
    pub(super) fn check(&self, settings: &Settings, now: Instant) {
        let passed =
            |since: Option<Instant>, limit| since.is_some_and(|since| now.duration_since(since) >= limit);
        if passed(self.blocked_since.get(), settings.stalled_reader) {
            self.judge(Verdict::Dropped);
        } else if passed(self.head_since.get(), settings.head_timeout) {
            self.judge(Verdict::TooSlow);
        } else if self.is_quiet()
            && self.head_since.get().is_none()
            && passed(Some(self.quiet_since.get()), settings.idle_timeout)
        {
            self.judge(Verdict::Leaves);
        } else if self.is_at_rest() && passed(Some(self.quiet_since.get()), REST_AFTER) {
            self.judge(Verdict::Rests);
        }
    }
}

/// As many requests may be taken back within so long.
const TAKEN_BACK_MOST: u32 = 200;
const TAKEN_BACK_WITHIN: Duration = Duration::from_secs(30);
/// How long a connection keeps its buffers without a request.
const REST_AFTER: Duration = Duration::from_secs(1);
