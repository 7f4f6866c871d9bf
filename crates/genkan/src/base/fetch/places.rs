//! Places for calls to external servers: a pool per purpose, and shares of it per server, registrable
//! name and client.
//!
//! An outsider chooses the names that Genkan connects to, and can let each connection hang until its
//! time limit. So calls of one purpose take no places of another, one server gets a share of its
//! pool, and so do all servers of one registrable name and all calls of one client. A free place
//! goes to the name that has the fewest, so that an owner of many names only slows the others down.

mod name;
mod queue;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

pub(super) use name::Server;
use queue::{Queue, Ticket};

/// A pool of places: what external servers are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pool {
    /// Documents of OAuth clients that push a request. Strangers name them.
    PushedClients,
    /// Documents of OAuth clients that have a code or a grant.
    GrantedClients,
    PermissionSets,
    Handles,
    DidDocuments,
    /// Sign-ins at the authorization servers of linked accounts.
    SignIns,
    /// Refreshes of linked sessions.
    Refreshes,
    /// Revocations of linked sessions that ended.
    Revocations,
    /// Calls without a pool of their own.
    Other,
}

/// The size of a pool and of the shares in it.
#[derive(Clone, Copy, Debug)]
struct Size {
    places: usize,
    /// Maximum for one registrable name.
    per_name: usize,
    /// Maximum for one host and port.
    per_host: usize,
    /// Maximum for one client network, where the client is known.
    per_client: usize,
    /// Maximum for all clients in one IPv6 /48, the most that one customer usually gets.
    per_site: usize,
    /// Maximum number of calls that wait.
    waiting: usize,
}

impl Pool {
    pub(super) const ALL: [Self; 9] = [
        Self::PushedClients,
        Self::GrantedClients,
        Self::PermissionSets,
        Self::Handles,
        Self::DidDocuments,
        Self::SignIns,
        Self::Refreshes,
        Self::Revocations,
        Self::Other,
    ];

    const fn size(self) -> Size {
        let places = match self {
            Self::Refreshes => 128,
            Self::Revocations => 32,
            _ => 64,
        };
        // Most linked accounts are at a few large servers. Only people who signed in there cause
        // refreshes, so one server may have more of that pool.
        let divisor = match self {
            Self::Refreshes => 4,
            _ => 8,
        };
        let per_host = places / divisor;
        Size {
            places,
            per_name: 2 * per_host,
            per_host,
            per_client: per_host,
            per_site: 2 * per_host,
            waiting: 4 * places,
        }
    }
}

/// The places of all purposes. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pools: Arc<[PoolQueue; Pool::ALL.len()]>,
}

/// The places of one purpose.
#[derive(Clone, Debug)]
struct PoolQueue(Arc<Mutex<Queue>>);

/// The right to call a server. The place is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pool: PoolQueue,
    ticket: Ticket,
}

/// So many calls of this purpose wait that another one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Places {
    pub(super) fn new() -> Self {
        let queue = |pool: Pool| PoolQueue(Arc::new(Mutex::new(Queue::new(pool.size()))));
        Self { pools: Arc::new(Pool::ALL.map(queue)) }
    }

    /// Waits for a place. The caller limits the time. `client` is the network of the client that
    /// caused the call, where it is known.
    pub(super) async fn take(
        &self,
        pool: Pool,
        server: &Server,
        client: Option<IpAddr>,
    ) -> Result<Place, TooMany> {
        let mut pools = Pool::ALL.iter().zip(self.pools.iter());
        let (_, queue) = pools.find(|(one, _)| **one == pool).expect("ALL has every pool");
        queue.take(server, client).await
    }
}

impl PoolQueue {
    async fn take(&self, server: &Server, client: Option<IpAddr>) -> Result<Place, TooMany> {
        let (wake, woken) = oneshot::channel();
        let ticket = self.locked(|queue| queue.enter(server, client, wake)).ok_or(TooMany)?;
        // From here on the place is given back however this call ends, even while it waits.
        let place = Place { pool: self.clone(), ticket };
        // The sender is dropped without a word when the queue drops this call for another one.
        woken.await.map_err(|_| TooMany)?;
        Ok(place)
    }

    fn locked<T>(&self, act: impl FnOnce(&mut Queue) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.locked(|queue| queue.leave(&self.ticket));
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn server(host: &str) -> Server {
        Server::new(host, 443)
    }

    /// Takes a place that is free now.
    fn now(queue: &PoolQueue, host: &str, client: Option<IpAddr>) -> Option<Place> {
        let server = server(host);
        let mut taking = pin!(queue.take(&server, client));
        match taking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(taken) => taken.ok(),
            Poll::Pending => None,
        }
    }

    fn queue_of(pool: Pool) -> PoolQueue {
        PoolQueue(Arc::new(Mutex::new(Queue::new(pool.size()))))
    }

    fn all_of(queue: &PoolQueue, host: impl Fn(usize) -> String) -> Vec<Place> {
        (0..200).map_while(|number| now(queue, &host(number), None)).collect()
    }

    #[test]
    fn one_host_and_one_name_have_a_share_of_a_pool() {
        for pool in Pool::ALL {
            let (queue, size) = (queue_of(pool), pool.size());
            let tarpit = all_of(&queue, |_| "tarpit.example.com".to_owned());
            assert_eq!(tarpit.len(), size.places / if pool == Pool::Refreshes { 4 } else { 8 });
            let subdomains = all_of(&queue, |number| format!("n{number}.example.com"));
            assert_eq!(tarpit.len() + subdomains.len(), size.per_name, "{pool:?}");
            assert!(size.per_name <= size.places / 2);
            assert!(now(&queue, "healthy.example.org", None).is_some());
            drop((tarpit, subdomains));
            assert_eq!(queue.locked(|queue| queue.len()), 0, "nothing is kept of calls that ended");
        }
    }

    #[test]
    fn one_client_has_a_share_of_a_pool_whatever_names_it_invents() {
        let (queue, client) = (queue_of(Pool::PushedClients), Some(IpAddr::from([192, 0, 2, 1])));
        let taken: Vec<Place> =
            (0..200).map_while(|number| now(&queue, &format!("n{number}.com"), client)).collect();
        assert_eq!(taken.len(), 8);
        assert!(now(&queue, "healthy.example.org", Some(IpAddr::from([192, 0, 2, 2]))).is_some());
    }

    #[test]
    fn one_customer_has_a_share_of_a_pool_whatever_networks_it_has() {
        let queue = queue_of(Pool::Handles);
        let client = |site: u16, subnet: u16| Some(IpAddr::from([0x2001, 0xdb8, site, subnet, 0, 0, 0, 0]));
        let taken: Vec<Place> =
            (0..200).filter_map(|number| now(&queue, &format!("n{number}.com"), client(1, number))).collect();
        assert_eq!(taken.len(), 16, "a quarter for all of the /48");
        assert!(now(&queue, "healthy.example.org", client(2, 0)).is_some());
        let v4 = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        let others: Vec<Place> =
            (0..24).map_while(|last| now(&queue, &format!("m{last}.com"), v4(last))).collect();
        assert_eq!(others.len(), 24, "IPv4 addresses count apart");
    }

    #[tokio::test]
    async fn purposes_share_no_places() {
        let places = Places::new();
        let mut taken = Vec::new();
        for number in 0..64 {
            let server = server(&format!("n{number}.com"));
            taken.push(places.take(Pool::PushedClients, &server, None).await.unwrap());
        }
        let (wanted, server) = (Pool::PushedClients, server("other.com"));
        let mut full = pin!(places.take(wanted, &server, None));
        assert!(full.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        for pool in Pool::ALL.into_iter().filter(|pool| *pool != wanted) {
            places.take(pool, &server, None).await.unwrap();
        }
    }

    /// A stranger with many names fills the pool and the queue. Another name is next.
    #[tokio::test]
    async fn a_free_place_goes_to_the_name_that_has_the_fewest() {
        let queue = queue_of(Pool::Handles);
        let mut taken = Vec::new();
        for name in 0..4 {
            taken.extend(all_of(&queue, |number| format!("n{}.attacker{name}.com", number % 2)));
        }
        assert_eq!(taken.len(), 64, "the pool is full");
        let mut context = Context::from_waker(Waker::noop());
        let attackers: Vec<Server> =
            (0..256).map(|number| server(&format!("n.attacker{}.com", number % 4))).collect();
        let mut waiting: Vec<_> = attackers.iter().map(|server| Box::pin(queue.take(server, None))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().poll(&mut context).is_pending());
        }
        // The queue is full as well. A waiting call of a name with many leaves it for this one.
        let healthy = server("healthy.example.org");
        let mut victim = Box::pin(queue.take(&healthy, None));
        assert!(victim.as_mut().poll(&mut context).is_pending());
        taken.pop();
        let Poll::Ready(Ok(_place)) = victim.as_mut().poll(&mut context) else { panic!("next in turn") };
        let refused = waiting.iter_mut().filter_map(|one| match one.as_mut().poll(&mut context) {
            Poll::Ready(Err(TooMany)) => Some(()),
            Poll::Ready(Ok(_)) | Poll::Pending => None,
        });
        assert_eq!(refused.count(), 1, "one made room");
        drop((waiting, victim));
        assert_eq!(queue.locked(|queue| queue.len()), 64, "calls that were given up are forgotten");
    }
}
