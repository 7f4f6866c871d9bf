//! The queue for the hashing of passwords: who is served next, and who must go when it is full.
//!
//! A hash takes a core for some 50 ms, so guessed passwords can take all of them. Each requester
//! has a [`Rank`], and each rank a share of the queue and of the workers while others wait. In a
//! rank, the client with the most places gives one up to a client with fewer.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::limits::ClientNetwork;

/// The pool did not do the work: too many wait for it, or its thread was lost. Another try may help.
#[derive(Debug, thiserror::Error)]
#[error("too many passwords are being checked")]
pub(crate) struct PasswordsBusy;

/// Who wants a password to be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requester {
    pub(crate) rank: Rank,
    /// `None` for the operator, and for owners that proved themselves otherwise.
    pub(crate) client: Option<ClientNetwork>,
}

impl Requester {
    /// The operator, or an owner that proved itself by an e-mailed code or a session.
    pub(crate) const TRUSTED: Self = Self { rank: Rank::Known, client: None };
}

/// What is known of a requester. A rank does not say whether the account exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// An address or browser that signed in to this account before.
    Known,
    /// Neither the account nor the address has many wrong passwords.
    Ordinary,
    /// The account or the address had several wrong passwords in the last minutes.
    Suspect,
}

impl Rank {
    const ALL: [Self; 3] = [Self::Known, Self::Ordinary, Self::Suspect];
}

/// A value for each rank.
#[derive(Debug, Default)]
struct PerRank<T> {
    known: T,
    ordinary: T,
    suspect: T,
}

impl<T> PerRank<T> {
    const fn of(&self, rank: Rank) -> &T {
        match rank {
            Rank::Known => &self.known,
            Rank::Ordinary => &self.ordinary,
            Rank::Suspect => &self.suspect,
        }
    }

    const fn of_mut(&mut self, rank: Rank) -> &mut T {
        match rank {
            Rank::Known => &mut self.known,
            Rank::Ordinary => &mut self.ordinary,
            Rank::Suspect => &mut self.suspect,
        }
    }
}

/// The ranks in the order in which workers serve them, while all have someone waiting: half of the
/// work for `Known`, three eighths for `Ordinary`, one eighth for `Suspect`.
const TURNS: [Rank; 8] = [
    Rank::Known,
    Rank::Ordinary,
    Rank::Known,
    Rank::Ordinary,
    Rank::Known,
    Rank::Ordinary,
    Rank::Known,
    Rank::Suspect,
];

#[derive(Debug)]
pub(super) struct HashingQueue {
    state: Mutex<State>,
    /// How many may wait in each rank while the others use their shares.
    shares: PerRank<usize>,
    most_waiting: usize,
}

#[derive(Debug)]
struct State {
    free_workers: usize,
    /// The index in [`TURNS`] of the next turn.
    turn: usize,
    waiting: PerRank<VecDeque<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    client: Option<ClientNetwork>,
    granted: oneshot::Sender<Permit>,
}

/// The right to use one worker. Dropping it serves the next.
#[derive(Debug)]
pub(super) struct Permit {
    /// `None` once the worker was passed on.
    queue: Option<Arc<HashingQueue>>,
}

/// A place in the queue.
#[derive(Debug)]
pub(super) enum Place {
    Served(Permit),
    Waiting(oneshot::Receiver<Permit>),
}

impl Place {
    /// Waits for a worker. Fails if the place was given to another requester.
    pub(super) async fn wait(self) -> Result<Permit, PasswordsBusy> {
        match self {
            Self::Served(permit) => Ok(permit),
            Self::Waiting(granted) => granted.await.map_err(|_| PasswordsBusy),
        }
    }
}

impl HashingQueue {
    pub(super) fn new(workers: usize, most_waiting: usize) -> Arc<Self> {
        let (ordinary, suspect) = (most_waiting * 3 / 8, most_waiting / 8);
        let state = State { free_workers: workers.max(1), turn: 0, waiting: PerRank::default() };
        Arc::new(Self {
            state: Mutex::new(state),
            shares: PerRank { known: most_waiting - ordinary - suspect, ordinary, suspect },
            most_waiting,
        })
    }

    /// Takes a free worker or a place in the queue.
    pub(super) fn enter(self: &Arc<Self>, requester: Requester) -> Result<Place, PasswordsBusy> {
        if self.most_waiting == 0 {
            return Err(PasswordsBusy);
        }
        let mut state = self.lock();
        // A released worker goes to the next in the queue at once, so a free one means that nobody
        // waits.
        if state.free_workers > 0 {
            state.free_workers -= 1;
            return Ok(Place::Served(Permit { queue: Some(Arc::clone(self)) }));
        }
        if state.waiters() >= self.most_waiting {
            state.drop_cancelled();
        }
        if state.waiters() >= self.most_waiting {
            self.make_room(&mut state, requester)?;
        }
        let (granted, receiver) = oneshot::channel();
        state.waiting.of_mut(requester.rank).push_back(Waiter { client: requester.client, granted });
        Ok(Place::Waiting(receiver))
    }

    /// Removes one waiter in favour of this requester. Its `granted` is dropped, which tells it.
    fn make_room(&self, state: &mut State, requester: Requester) -> Result<(), PasswordsBusy> {
        let own = requester.rank;
        if state.waiting.of(own).len() < *self.shares.of(own) {
            // Then another rank has more than its share. The lowest such rank gives a place up.
            let has_more = |rank: &Rank| state.waiting.of(*rank).len() > *self.shares.of(*rank);
            let rank = Rank::ALL.into_iter().rev().find(has_more).ok_or(PasswordsBusy)?;
            state.remove_from_largest(rank);
            return Ok(());
        }
        let places = state.waiting.of(own).iter().filter(|waiter| waiter.client == requester.client).count();
        // The requester would have as many as the other afterwards: nothing would be fairer.
        if state.largest(own).is_none_or(|(_, most)| most <= places + 1) {
            return Err(PasswordsBusy);
        }
        state.remove_from_largest(own);
        Ok(())
    }

    /// Gives a worker to the next in the queue.
    fn release(self: Arc<Self>) {
        let mut permit = Permit { queue: Some(Arc::clone(&self)) };
        loop {
            let next = {
                let mut state = self.lock();
                let next = state.next();
                if next.is_none() {
                    state.free_workers += 1;
                    permit.queue = None;
                }
                next
            };
            let Some(next) = next else { return };
            // Sent without the lock: a waiter that is gone gives the permit back here.
            match next.granted.send(permit) {
                Ok(()) => return,
                Err(returned) => permit = returned,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiters()
    }
}

impl State {
    fn waiters(&self) -> usize {
        Rank::ALL.into_iter().map(|rank| self.waiting.of(rank).len()).sum()
    }

    fn drop_cancelled(&mut self) {
        for rank in Rank::ALL {
            self.waiting.of_mut(rank).retain(|waiter| !waiter.granted.is_closed());
        }
    }

    /// Returns the client with the most places in a rank, and their number.
    fn largest(&self, rank: Rank) -> Option<(Option<ClientNetwork>, usize)> {
        let mut places: HashMap<Option<ClientNetwork>, usize> = HashMap::new();
        for waiter in self.waiting.of(rank) {
            *places.entry(waiter.client).or_default() += 1;
        }
        places.into_iter().max_by_key(|(_, count)| *count)
    }

    /// Removes the newest waiter of the client with the most places in a rank.
    fn remove_from_largest(&mut self, rank: Rank) {
        let Some((client, _)) = self.largest(rank) else { return };
        let queue = self.waiting.of_mut(rank);
        if let Some(index) = queue.iter().rposition(|waiter| waiter.client == client) {
            queue.remove(index);
        }
    }

    /// Takes the next waiter: of the rank whose turn it is, or else of the first that has any.
    fn next(&mut self) -> Option<Waiter> {
        let turn = TURNS.get(self.turn).copied();
        self.turn = (self.turn + 1) % TURNS.len();
        let mut ranks = turn.into_iter().chain(Rank::ALL);
        ranks.find_map(|rank| self.waiting.of_mut(rank).pop_front())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn requester(rank: Rank, client: u8) -> Requester {
        Requester { rank, client: Some(ClientNetwork::of(IpAddr::from([192, 0, 2, client]))) }
    }

    fn served(place: Place) -> Permit {
        match place {
            Place::Served(permit) => permit,
            Place::Waiting(_) => panic!("it waits"),
        }
    }

    /// Whether a place in the queue was given to another requester.
    fn is_lost(place: &mut Place) -> bool {
        match place {
            Place::Served(_) => false,
            Place::Waiting(granted) => {
                matches!(granted.try_recv(), Err(oneshot::error::TryRecvError::Closed))
            }
        }
    }

    /// Serves everyone that waits, and returns their names in that order.
    fn order(held: Permit, mut waiting: Vec<(String, Place)>) -> Vec<String> {
        let mut names = Vec::new();
        let mut permit = held;
        while !waiting.is_empty() {
            drop(permit);
            let index = waiting.iter_mut().position(|(_, place)| match place {
                Place::Served(_) => true,
                Place::Waiting(granted) => match granted.try_recv() {
                    Ok(granted) => {
                        *place = Place::Served(granted);
                        true
                    }
                    Err(_) => false,
                },
            });
            let (name, place) = waiting.remove(index.expect("one is served"));
            names.push(name);
            permit = served(place);
        }
        names
    }

    #[test]
    fn each_rank_has_its_share_of_the_work() {
        let queue = HashingQueue::new(1, 64);
        let held = served(queue.enter(requester(Rank::Suspect, 1)).unwrap());
        let mut waiting = Vec::new();
        for number in 0..20 {
            for rank in [Rank::Suspect, Rank::Ordinary, Rank::Known] {
                let place = queue.enter(requester(rank, number)).unwrap();
                waiting.push((format!("{rank:?}"), place));
            }
        }
        let order = order(held, waiting);
        let first = |rank: &str| order[..16].iter().filter(|name| *name == rank).count();
        assert_eq!([first("Known"), first("Ordinary"), first("Suspect")], [8, 6, 2], "{order:?}");
        assert_eq!(queue.waiting(), 0);
        // The worker is free again.
        served(queue.enter(requester(Rank::Suspect, 1)).unwrap());
    }

    #[test]
    fn a_queue_full_of_guesses_has_places_for_others() {
        let queue = HashingQueue::new(1, 16);
        let _held = served(queue.enter(requester(Rank::Suspect, 1)).unwrap());
        let mut guesses: Vec<Place> =
            (0..16).map(|_| queue.enter(requester(Rank::Suspect, 1)).unwrap()).collect();
        assert!(queue.enter(requester(Rank::Suspect, 1)).is_err(), "full");
        let mut kept = Vec::new();
        for (rank, places) in [(Rank::Ordinary, 6), (Rank::Known, 8)] {
            for number in 0..places {
                kept.push(queue.enter(requester(rank, number)).unwrap());
            }
            assert!(queue.enter(requester(rank, 0)).is_err(), "{rank:?} has no more than its share");
        }
        assert!(!kept.iter_mut().any(is_lost));
        assert_eq!(guesses.iter_mut().filter_map(|place| is_lost(place).then_some(())).count(), 14);
        assert_eq!(queue.waiting(), 16);
    }

    #[test]
    fn a_client_gives_places_up_to_clients_with_fewer() {
        let queue = HashingQueue::new(1, 16);
        let _held = served(queue.enter(requester(Rank::Ordinary, 1)).unwrap());
        let mut first: Vec<Place> =
            (0..16).map(|_| queue.enter(requester(Rank::Ordinary, 1)).unwrap()).collect();
        let mut others: Vec<Place> =
            (2..8).map(|client| queue.enter(requester(Rank::Ordinary, client)).unwrap()).collect();
        assert!(!others.iter_mut().any(is_lost));
        assert_eq!(first.iter_mut().filter_map(|place| is_lost(place).then_some(())).count(), 6);
        // The oldest keep their places.
        assert!(!first.iter_mut().take(10).any(is_lost));
    }

    #[test]
    fn a_waiter_that_left_takes_neither_a_worker_nor_a_place() {
        let queue = HashingQueue::new(1, 8);
        let held = served(queue.enter(Requester::TRUSTED).unwrap());
        for _ in 0..8 {
            drop(queue.enter(requester(Rank::Known, 1)).unwrap());
        }
        let mut patient = queue.enter(requester(Rank::Suspect, 2)).unwrap();
        assert_eq!(queue.waiting(), 1);
        drop(queue.enter(requester(Rank::Known, 1)).unwrap());
        drop(held);
        let Place::Waiting(granted) = &mut patient else { panic!("it waited") };
        drop(granted.try_recv().expect("served although the one before it left"));
        served(queue.enter(Requester::TRUSTED).unwrap());
    }
}
