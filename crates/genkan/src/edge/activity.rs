//! A connection's activity as its worker sees it: busy, or idle since when.
//!
//! Connections have no timers of their own. Each notes when it began to wait for something, and its
//! worker checks the notes of all its connections a few times a second.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::Settings;
use super::intake::{Intake, StreamIntake};
use super::unsent::Unsent;
use crate::base::monotonic_now;

/// One connection's activity.
#[derive(Debug)]
pub(super) struct Activity {
    /// Requests whose answers have not ended.
    under_way: Cell<u32>,
    /// When the last of them ended, or the connection began.
    quiet_since: Cell<Instant>,
    /// When the head that is being read began, if one is.
    pub(super) head_since: Cell<Option<Instant>>,
    /// When the client stopped accepting the bytes that wait for it.
    pub(super) blocked_since: Cell<Option<Instant>>,
    /// What the client takes of all bytes that wait for it.
    pub(super) intake: Intake,
    pub(super) unsent: Unsent,
    /// HTTP/2 streams whose answers have waited for the client.
    streams: RefCell<Vec<Weak<StreamIntake>>>,
    checked_at: Cell<Instant>,
    /// Requests that the client cancelled since `cancelled_since`.
    cancelled: Cell<u32>,
    cancelled_since: Cell<Instant>,
    disposition: Cell<Disposition>,
    /// Wakes the connection's task.
    waker: RefCell<Option<Waker>>,
}

/// What will happen to a connection. A later variant outweighs an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
pub(super) enum Disposition {
    #[default]
    Keep,
    /// The connection is idle and gives its buffers back until bytes arrive.
    Rest,
    /// The connection is closed when its requests have ended.
    Drain,
    /// The head did not arrive in time. The client is told so, and the connection is closed.
    TimedOut,
    /// The client was told of a fault, and nothing more is read.
    Refused,
    /// The connection is closed at once.
    Drop,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            under_way: Cell::new(0),
            quiet_since: Cell::new(monotonic_now()),
            head_since: Cell::new(None),
            blocked_since: Cell::new(None),
            intake: Intake::default(),
            unsent: Unsent::default(),
            streams: RefCell::default(),
            checked_at: Cell::new(monotonic_now()),
            cancelled: Cell::new(0),
            cancelled_since: Cell::new(monotonic_now()),
            disposition: Cell::default(),
            waker: RefCell::default(),
        }
    }

    pub(super) fn begin(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    pub(super) fn end(&self) {
        self.under_way.set(self.under_way.get() - 1);
        if self.under_way.get() == 0 {
            self.quiet_since.set(monotonic_now());
        }
    }

    /// Notes that the client cancelled a request before its answer began.
    ///
    /// A client that cancels too often is cut off. Each cancelled request has cost work here and at
    /// a host, but cost the client only one frame (the "rapid reset" attack on HTTP/2).
    pub(super) fn cancel(&self) {
        self.end();
        let now = monotonic_now();
        if now.duration_since(self.cancelled_since.get()) > CANCELLED_WITHIN {
            self.cancelled_since.set(now);
            self.cancelled.set(0);
        }
        self.cancelled.set(self.cancelled.get() + 1);
        if self.cancelled.get() > CANCELLED_MOST {
            self.escalate(Disposition::Drop);
        }
    }

    pub(super) const fn is_quiet(&self) -> bool {
        self.under_way.get() == 0
    }

    pub(super) const fn disposition(&self) -> Disposition {
        self.disposition.get()
    }

    /// Sets the disposition and wakes the connection's task, unless a weightier one is set.
    pub(super) fn escalate(&self, disposition: Disposition) {
        // A disposition never gets weaker, so a connection that is being closed cannot be revived
        // by a later, milder finding.
        if disposition > self.disposition.get() {
            self.disposition.set(disposition);
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Ends the rest of a connection, because bytes have arrived.
    pub(super) fn resume(&self) {
        if self.disposition.get() == Disposition::Rest {
            self.disposition.set(Disposition::Keep);
        }
    }

    /// Whether no request, no head and no waiting byte needs the connection's buffers.
    pub(super) const fn is_at_rest(&self) -> bool {
        self.is_quiet() && self.head_since.get().is_none() && self.blocked_since.get().is_none()
    }

    /// Registers the task that a change of the disposition wakes.
    pub(super) fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        // Cloning a waker costs an atomic operation, and the same task polls again and again.
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Watches what the client takes of a stream from now on.
    pub(super) fn watch(&self, stream: &Rc<StreamIntake>) {
        self.streams.borrow_mut().push(Rc::downgrade(stream));
    }

    /// Compares what the client takes with the least that it has to. Returns whether the connection
    /// itself is too slow. A stream that is too slow ends by itself.
    fn takes_too_little(&self, settings: &Settings, now: Instant) -> bool {
        let elapsed = now.duration_since(self.checked_at.replace(now));
        // While the system sends what it took of a client that was fast, no stream can be served. The
        // limit of the connection holds meanwhile.
        let is_draining = self.unsent.is_draining();
        self.streams.borrow_mut().retain(|stream| {
            let Some(stream) = stream.upgrade() else { return false };
            if !is_draining {
                stream.sample(elapsed, settings.intake);
            }
            true
        });
        self.blocked_since.get().is_some() && self.intake.sample(elapsed, settings.intake)
    }

    /// Compares each wait with its limit. Called by the worker a few times a second.
    pub(super) fn check(&self, settings: &Settings, now: Instant) {
        if self.unsent.look(&self.intake, self.blocked_since.get().is_some()) {
            // The task writes again, has to wait again, and sets the bound or asks the system.
            self.wake();
        }
        let passed =
            |since: Option<Instant>, limit| since.is_some_and(|since| now.duration_since(since) >= limit);
        // From the weightiest disposition to the lightest. A client that accepts no bytes, or too
        // few, is dropped even while a request is under way, because its answer would occupy a
        // connection to a host without end.
        if self.takes_too_little(settings, now) || passed(self.blocked_since.get(), settings.stalled_reader) {
            self.escalate(Disposition::Drop);
        } else if passed(self.head_since.get(), settings.head_timeout) {
            self.escalate(Disposition::TimedOut);
        } else if self.is_quiet()
            && self.head_since.get().is_none()
            && passed(Some(self.quiet_since.get()), settings.idle_timeout)
        {
            self.escalate(Disposition::Drain);
        } else if self.is_at_rest() && passed(Some(self.quiet_since.get()), REST_AFTER) {
            self.escalate(Disposition::Rest);
        }
    }
}

/// The most requests that a client may cancel within [`CANCELLED_WITHIN`].
const CANCELLED_MOST: u32 = 200;
const CANCELLED_WITHIN: Duration = Duration::from_secs(30);
/// How long a connection keeps its buffers after its last request.
const REST_AFTER: Duration = Duration::from_secs(1);
