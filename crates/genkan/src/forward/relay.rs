//! Keeps a connection from waking the task that is polling it.
//!
//! The library hands an answer from the connection to whoever asked over a channel, and wakes the asker. Here both
//! are one task, which is just polling: it would be polled once more for nothing, for every request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Passes wake-ups on, but for those from inside a poll.
#[derive(Debug)]
pub(super) struct Relay {
    is_polling: AtomicBool,
    was_woken: AtomicBool,
    outside: Mutex<Option<Waker>>,
}

impl Relay {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            is_polling: AtomicBool::new(false),
            was_woken: AtomicBool::new(false),
            outside: Mutex::default(),
        })
    }

    /// Polls until there is an answer or nobody woke us meanwhile.
    pub(super) fn poll<T>(
        self: &Arc<Self>,
        cx: &Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.face(cx.waker());
        let waker = Waker::from(Arc::clone(self));
        let mut inside = Context::from_waker(&waker);
        for _ in 0..ROUNDS {
            self.is_polling.store(true, Ordering::Relaxed);
            self.was_woken.store(false, Ordering::Relaxed);
            let polled = poll(&mut inside);
            self.is_polling.store(false, Ordering::Relaxed);
            if polled.is_ready() || !self.was_woken.load(Ordering::Relaxed) {
                return polled;
            }
        }
        // There is always more to do: let others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Remembers whom to wake from now on.
    fn face(&self, waker: &Waker) {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        if !outside.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *outside = Some(waker.clone());
        }
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    /// A connection belongs to one thread, so what comes while it is polled comes from inside the poll.
    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_polling.load(Ordering::Relaxed) {
            self.was_woken.store(true, Ordering::Relaxed);
        } else if let Some(waker) = &*self.outside.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }
}

/// Polls in a row, at most, before other tasks get their turn.
const ROUNDS: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_wake_ups_from_outside_reach_the_task() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let task = Waker::from(Arc::clone(&count));
        let relay = Relay::new();
        let mut rounds = 0;
        let mut kept = None;
        let polled = relay.poll(&Context::from_waker(&task), |cx| {
            rounds += 1;
            if rounds == 1 {
                cx.waker().wake_by_ref();
            }
            kept = Some(cx.waker().clone());
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!((rounds, count.0.load(Ordering::Relaxed)), (2, 0), "one more round, and nobody is woken");
        kept.unwrap().wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "what comes later wakes the task");
        let polled = relay.poll(&Context::from_waker(&task), |cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), 2, "one that never rests is polled again later");
    }
}
