//! Coarse timeouts without one timer per request.
//!
//! Each waiting request registers a deadline. The thread scans all deadlines a few times a second
//! and wakes the tasks whose deadline has passed. Most deadlines are removed before the first scan,
//! so a request that is answered quickly costs one slot in a vector and no timer.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::monotonic_now;
use tokio::time::Instant;

/// The deadlines of one thread, and a cheap clock that is as old as the last scan.
#[derive(Debug)]
pub struct Deadlines {
    now: Cell<Instant>,
    slots: RefCell<Slots>,
}

/// Deadlines by slot number. A slot is reused as soon as its deadline is removed.
#[derive(Debug, Default)]
struct Slots {
    all: Vec<Option<Deadline>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Deadline {
    at: Instant,
    has_passed: bool,
    waker: Waker,
}

/// The deadline passed before the future was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the deadline has passed")]
pub struct Elapsed;

impl Deadlines {
    /// An empty set of deadlines. The owner calls [`scan`](Self::scan) a few times a second.
    pub fn new() -> Rc<Self> {
        Rc::new(Self { now: Cell::new(monotonic_now()), slots: RefCell::default() })
    }

    /// The time of the last scan. Reading it costs no system call.
    pub const fn now(&self) -> Instant {
        self.now.get()
    }

    /// Wakes the tasks whose deadline has passed.
    pub fn scan(&self, now: Instant) {
        self.now.set(now);
        for deadline in self.slots.borrow_mut().all.iter_mut().flatten() {
            // A task is woken once. It removes its deadline when it is polled.
            if deadline.at <= now && !deadline.has_passed {
                deadline.has_passed = true;
                deadline.waker.wake_by_ref();
            }
        }
    }

    /// Waits for a future for at most `limit` and one interval between scans.
    ///
    /// # Errors
    ///
    /// [`Elapsed`] when the deadline passed first. The future is dropped then.
    pub async fn limit<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        // The slot is taken only if the first poll is pending. An answer that is already buffered
        // registers none.
        let mut wait = Wait { deadlines: self, slot: None };
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            // The future is polled first: an answer that is ready counts even if its deadline has
            // passed.
            Poll::Pending if wait.has_elapsed(limit, cx) => Poll::Ready(Err(Elapsed)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// One wait for a future. Dropping it removes its deadline.
struct Wait<'a> {
    deadlines: &'a Deadlines,
    slot: Option<usize>,
}

impl Wait<'_> {
    /// Registers the deadline at the first call. Later calls report whether a scan found it passed.
    fn has_elapsed(&mut self, limit: Duration, cx: &Context<'_>) -> bool {
        let mut slots = self.deadlines.slots.borrow_mut();
        let Some(slot) = self.slot else {
            // The deadline counts from here and not from the last scan, which may be half a second
            // old: a short limit would otherwise end too early.
            let at = monotonic_now() + limit;
            self.slot = Some(slots.add(Deadline { at, has_passed: false, waker: cx.waker().clone() }));
            return false;
        };
        let Some(Some(deadline)) = slots.all.get_mut(slot) else { return false };
        // The future may have moved to another task since. That task has a waker of its own.
        if !deadline.waker.will_wake(cx.waker()) {
            deadline.waker.clone_from(cx.waker());
        }
        deadline.has_passed
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.deadlines.slots.borrow_mut().remove(slot);
        }
    }
}

impl Slots {
    fn add(&mut self, deadline: Deadline) -> usize {
        // Free slots are reused, so the vector grows to the largest number of waits at once and no
        // further.
        if let Some(slot) = self.free.pop()
            && let Some(empty) = self.all.get_mut(slot)
        {
            *empty = Some(deadline);
            return slot;
        }
        self.all.push(Some(deadline));
        self.all.len() - 1
    }

    fn remove(&mut self, slot: usize) {
        if let Some(taken) = self.all.get_mut(slot)
            // Only a slot that was in use becomes free. Pushed twice, one slot would be given to
            // two requests.
            && taken.take().is_some()
        {
            self.free.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_at_the_first_scan_after_its_deadline() {
        let deadlines = Deadlines::new();
        assert_eq!(deadlines.limit(Duration::from_secs(9), std::future::ready(1)).await, Ok(1));
        let scanning = async {
            tokio::task::yield_now().await;
            deadlines.scan(monotonic_now() + Duration::from_secs(8));
            tokio::task::yield_now().await;
            deadlines.scan(monotonic_now() + Duration::from_secs(10));
            std::future::pending::<()>().await;
        };
        let waiting = deadlines.limit(Duration::from_secs(9), std::future::pending::<()>());
        let outcome =
            tokio::select! { outcome = waiting => outcome, () = scanning => unreachable!("it never ends") };
        assert_eq!(outcome, Err(Elapsed));
        assert!(deadlines.slots.borrow().all.iter().all(Option::is_none), "the deadlines are removed");
        assert_eq!(deadlines.slots.borrow().all.len(), 1, "and their slots used again");
    }
}
