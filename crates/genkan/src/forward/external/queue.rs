//! A fair queue: each key waits in a queue of its own, and the queues take turns.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use tokio::sync::oneshot;

/// Queues by key, in the order in which their turns come.
#[derive(Debug)]
pub(super) struct FairQueue<K> {
    queues: HashMap<K, VecDeque<oneshot::Sender<()>>>,
    order: VecDeque<K>,
    waiting: usize,
}

impl<K> Default for FairQueue<K> {
    fn default() -> Self {
        Self { queues: HashMap::new(), order: VecDeque::new(), waiting: 0 }
    }
}

impl<K: Clone + Eq + Hash> FairQueue<K> {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Joins the queue of this key. Returns `None` when `most` calls wait, or too many of this key.
    pub(super) fn join(&mut self, key: &K, most: usize) -> Option<oneshot::Receiver<()>> {
        if self.waiting >= most {
            // Cancelled calls leave their senders behind. They are removed only when room is
            // needed, since each sweep visits all queues.
            self.forget_those_who_left();
        }
        let queue = self.queues.entry(key.clone()).or_default();
        if self.waiting >= most || queue.len() >= MOST_OF_ONE {
            // The entry was just created. Left behind, it would be a queue that `order` never
            // visits.
            if queue.is_empty() {
                self.queues.remove(key);
            }
            return None;
        }
        let (caller, turn) = oneshot::channel();
        if queue.is_empty() {
            self.order.push_back(key.clone());
        }
        queue.push_back(caller);
        self.waiting += 1;
        Some(turn)
    }

    /// Admits the next call. Returns `false` if none waits.
    pub(super) fn admit_next(&mut self) -> bool {
        while let Some(key) = self.order.pop_front() {
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            let mut called = false;
            while let Some(caller) = queue.pop_front() {
                self.waiting -= 1;
                // Sending fails if the call was cancelled meanwhile. The turn then goes to the next
                // call.
                if caller.send(()).is_ok() {
                    called = true;
                    break;
                }
            }
            if queue.is_empty() {
                self.queues.remove(&key);
            } else {
                // To the back of the line: one call per turn, however many wait under this key.
                self.order.push_back(key);
            }
            if called {
                return true;
            }
        }
        false
    }

    /// Forgets calls that were cancelled or have waited for too long.
    pub(super) fn forget_those_who_left(&mut self) {
        let Self { queues, order, waiting } = self;
        queues.retain(|_, queue| {
            queue.retain(|caller| !caller.is_closed());
            !queue.is_empty()
        });
        order.retain(|key| queues.contains_key(key));
        *waiting = queues.values().map(VecDeque::len).sum();
    }
}

/// The most waiting calls of one key.
const MOST_OF_ONE: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_with_many_calls_waits_behind_itself() {
        let mut queue = FairQueue::default();
        let mut greedy: Vec<_> = (0..5).map(|_| queue.join(&"greedy", 9).unwrap()).collect();
        let mut modest = queue.join(&"modest", 9).unwrap();
        let (mut left, mut called) = (Some(queue.join(&"left", 9).unwrap()), Vec::new());
        left.take();
        while queue.admit_next() {
            let of_greedy = greedy.iter_mut().filter_map(|turn| turn.try_recv().ok()).count();
            called.push((of_greedy, modest.try_recv().is_ok()));
        }
        assert_eq!(called, [(1, false), (0, true), (1, false), (1, false), (1, false), (1, false)]);
        assert!(queue.is_empty() && queue.waiting == 0 && queue.queues.is_empty());
    }

    #[test]
    fn only_so_many_wait() {
        let mut queue = FairQueue::default();
        let one: Vec<_> = (0..40).map_while(|_| queue.join(&0, 100)).collect();
        assert_eq!(one.len(), MOST_OF_ONE);
        let others: Vec<_> = (1..10_000).map_while(|key| queue.join(&key, 100)).collect();
        assert_eq!(one.len() + others.len(), 100);
        drop(others);
        assert!(queue.join(&1, 100).is_some(), "those who left make room");
    }
}
