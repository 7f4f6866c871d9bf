//! Recurring work at many other servers, of which some may be dead.
//!
//! A job that met one server after another would wait at a dead one for as long as a request may
//! take, once for each row that concerns it. So servers are visited at the same time, each with one
//! request at a time, and the work at a server stops at its first sign of being dead.

use std::collections::HashMap;
use std::hash::Hash;

use futures_util::{StreamExt as _, stream};

/// What one piece of work showed of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// The server answered, whatever it answered.
    Answered,
    /// The server did not answer. The rest of the work there is not tried now.
    Dead,
}

/// What became of the work.
#[derive(Debug)]
pub(crate) struct Visits<T> {
    /// The number of pieces that were tried.
    pub(crate) tried: u64,
    /// What was not tried, since its server is dead or has had its share.
    pub(crate) left: Vec<T>,
}

impl<T> Default for Visits<T> {
    fn default() -> Self {
        Self { tried: 0, left: Vec::new() }
    }
}

/// Does the work of many servers, in its order, at most `share` pieces at each server.
pub(crate) async fn visit_each<K, T, F>(items: Vec<(K, T)>, share: usize, work: impl Fn(T) -> F) -> Visits<T>
where
    K: Eq + Hash,
    F: Future<Output = Visit>,
{
    let mut by_server: HashMap<K, Vec<T>> = HashMap::new();
    let mut visits = Visits::default();
    for (server, item) in items {
        let queue = by_server.entry(server).or_default();
        if queue.len() < share {
            queue.push(item);
        } else {
            visits.left.push(item);
        }
    }
    let work = &work;
    let one_server = |queue: Vec<T>| async move {
        let (mut tried, mut queue) = (0, queue.into_iter());
        for item in queue.by_ref() {
            tried += 1;
            if work(item).await == Visit::Dead {
                break;
            }
        }
        (tried, queue.collect::<Vec<T>>())
    };
    let mut each = stream::iter(by_server.into_values().map(one_server)).buffer_unordered(AT_ONCE);
    while let Some((tried, left)) = each.next().await {
        visits.tried += tried;
        visits.left.extend(left);
    }
    visits
}

/// Servers that are visited at the same time: more than a few dead ones.
pub(crate) const AT_ONCE: usize = 32;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn dead_servers_hold_up_no_other_one() {
        let dead = 20;
        let items: Vec<(usize, (usize, usize))> =
            (0..10).flat_map(|piece| (0..=dead).map(move |server| (server, (server, piece)))).collect();
        // The dead servers are silent until the other one has had its share.
        let (silence, done) = (Semaphore::new(0), RefCell::new(Vec::new()));
        let visits = visit_each(items, 8, |(server, piece)| {
            let (silence, done) = (&silence, &done);
            async move {
                if server < dead {
                    let _ = silence.acquire().await;
                    return Visit::Dead;
                }
                done.borrow_mut().push(piece);
                if piece == 7 {
                    silence.close();
                }
                Visit::Answered
            }
        })
        .await;
        assert_eq!(done.into_inner(), [0, 1, 2, 3, 4, 5, 6, 7], "in its order");
        assert_eq!(visits.tried, 8 + 20, "each dead one is tried once");
        assert_eq!(visits.left.len(), 2 + 20 * 9, "beyond a share, or after a try at a dead one");
    }
}
