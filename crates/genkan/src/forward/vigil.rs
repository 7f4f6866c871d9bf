//! Waiting for hosts without a timer for each request.
//!
//! A request that waits leaves a note of how long it will; the thread looks at all notes a few times a second. Nearly
//! all are taken back long before anybody has looked.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

/// One thread's notes, and its idea of the time: at most one look old.
#[derive(Debug)]
pub(super) struct Vigil {
    now: Cell<Instant>,
    notes: RefCell<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    slots: Vec<Option<Note>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Note {
    until: Instant,
    is_over: bool,
    waker: Waker,
}

/// The time was over first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over;

impl Vigil {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self { now: Cell::new(Instant::now()), notes: RefCell::default() })
    }

    /// The time of the last look.
    pub(super) const fn now(&self) -> Instant {
        self.now.get()
    }

    /// Looks at all notes.
    pub(super) fn look(&self, now: Instant) {
        self.now.set(now);
        for note in self.notes.borrow_mut().slots.iter_mut().flatten() {
            if note.until <= now && !note.is_over {
                note.is_over = true;
                note.waker.wake_by_ref();
            }
        }
    }

    /// Waits for a future, but not for longer than the limit and one look.
    pub(super) async fn limit<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Over> {
        let mut future = pin!(future);
        let mut wait = Wait { vigil: self, slot: None };
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if wait.is_over(limit, cx) => Poll::Ready(Err(Over)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// Takes its note back when dropped.
struct Wait<'a> {
    vigil: &'a Vigil,
    slot: Option<usize>,
}

impl Wait<'_> {
    /// Leaves the note at the first call, and later looks what became of it.
    fn is_over(&mut self, limit: Duration, cx: &Context<'_>) -> bool {
        let mut notes = self.vigil.notes.borrow_mut();
        let Some(slot) = self.slot else {
            let note = Note { until: Instant::now() + limit, is_over: false, waker: cx.waker().clone() };
            self.slot = Some(notes.add(note));
            return false;
        };
        let Some(Some(note)) = notes.slots.get_mut(slot) else { return false };
        if !note.waker.will_wake(cx.waker()) {
            note.waker.clone_from(cx.waker());
        }
        note.is_over
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.vigil.notes.borrow_mut().remove(slot);
        }
    }
}

impl Notes {
    fn add(&mut self, note: Note) -> usize {
        if let Some(slot) = self.free.pop()
            && let Some(empty) = self.slots.get_mut(slot)
        {
            *empty = Some(note);
            return slot;
        }
        self.slots.push(Some(note));
        self.slots.len() - 1
    }

    fn remove(&mut self, slot: usize) {
        if let Some(taken) = self.slots.get_mut(slot)
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
    async fn a_wait_is_over_at_the_first_look_after_its_end() {
        let vigil = Vigil::new();
        assert_eq!(vigil.limit(Duration::from_secs(9), std::future::ready(1)).await, Ok(1));
        let looking = async {
            tokio::task::yield_now().await;
            vigil.look(Instant::now() + Duration::from_secs(8));
            tokio::task::yield_now().await;
            vigil.look(Instant::now() + Duration::from_secs(10));
            std::future::pending::<()>().await;
        };
        let waiting = vigil.limit(Duration::from_secs(9), std::future::pending::<()>());
        let outcome =
            tokio::select! { outcome = waiting => outcome, () = looking => unreachable!("it never ends") };
        assert_eq!(outcome, Err(Over));
        assert!(vigil.notes.borrow().slots.iter().all(Option::is_none), "the notes are taken back");
        assert_eq!(vigil.notes.borrow().slots.len(), 1, "and their places used again");
    }
}
