//! The connection pools of one edge thread: one for each host of the fleet, and one for each
//! external PDS in use.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http1::{Answerer, Breaker, BreakerRules, Connector, Deadlines, Endpoint, Permit, Pool, PoolLimits};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::error::Error;
use super::shares::{Holder, Place, Shares};
use crate::base::{Origin, monotonic_now};
use crate::fleet::{Host, HostId};

/// The breakers of all hosts, shared by the edge's threads. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Breakers {
    rules: BreakerRules,
    by_host: Arc<Mutex<HashMap<HostId, Arc<Breaker>>>>,
}

impl Breakers {
    pub(crate) fn new(rules: BreakerRules) -> Self {
        Self { rules, by_host: Arc::default() }
    }

    /// The breaker of a host of the fleet.
    fn of(&self, host: &HostId) -> Arc<Breaker> {
        let mut by_host = self.by_host.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(by_host.entry(host.clone()).or_insert_with(|| Arc::new(Breaker::new(self.rules))))
    }
}

/// The operator's rules for breakers.
pub(crate) const fn breaker_rules(config: &crate::config::Config) -> BreakerRules {
    let fleet = &config.fleet;
    BreakerRules {
        failures: fleet.breaker_failures,
        window: fleet.breaker_window,
        pause: fleet.breaker_pause,
    }
}

/// The pools of one thread.
#[derive(Debug)]
pub(super) struct Pools {
    hosts: RefCell<HashMap<HostId, HostPool>>,
    external: RefCell<HashMap<Origin, ExternalPool>>,
    breakers: Breakers,
    connector: Connector,
    host_limits: PoolLimits,
    external_limits: PoolLimits,
    deadlines: Rc<Deadlines>,
}

/// The connections to one server, and the clients that hold its places.
#[derive(Debug)]
pub(super) struct ServerPool {
    pool: Rc<Pool<Incoming>>,
    shares: Rc<Shares>,
}

impl ServerPool {
    /// Admits a client's request. It holds a place until both parts are dropped.
    pub(super) fn admit(
        &self,
        holder: Holder<'_>,
        answerer: Answerer,
    ) -> Result<(Permit<Incoming>, Place), Error> {
        // The share is asked first: the pool may use up the one trial of an open breaker.
        let place = self.shares.take(holder)?;
        Ok((Rc::clone(&self.pool).admit(answerer)?, place))
    }
}

/// A pool of connections to a host of the fleet.
#[derive(Debug)]
struct HostPool {
    origin: Origin,
    server: Rc<ServerPool>,
}

/// A pool of connections to an external PDS.
#[derive(Debug)]
struct ExternalPool {
    server: Rc<ServerPool>,
    /// The checked addresses that its connections go to.
    addresses: Arc<[IpAddr]>,
    used_at: Cell<Instant>,
}

impl Pools {
    pub(super) fn new(
        breakers: Breakers,
        connector: Connector,
        host_limits: PoolLimits,
        external_at_once: usize,
        deadlines: Rc<Deadlines>,
    ) -> Self {
        let external_limits = PoolLimits { at_once: external_at_once, idle: EXTERNAL_IDLE, ..host_limits };
        Self {
            hosts: RefCell::default(),
            external: RefCell::default(),
            breakers,
            connector,
            host_limits,
            external_limits,
            deadlines,
        }
    }

    /// Returns the pool of a host. A host with a new origin gets a new pool.
    pub(super) fn host(&self, host: &Host) -> Rc<ServerPool> {
        let mut hosts = self.hosts.borrow_mut();
        if let Some(known) = hosts.get(&host.id)
            && known.origin == host.origin
        {
            return Rc::clone(&known.server);
        }
        let breaker = self.breakers.of(&host.id);
        let server = self.server(&host.origin, None, breaker, self.host_limits);
        let known = HostPool { origin: host.origin.clone(), server: Rc::clone(&server) };
        hosts.insert(host.id.clone(), known);
        server
    }

    /// Returns the pool of an external PDS, whose connections go to these addresses only. A PDS
    /// with new addresses gets a new pool, and the connections to the old ones are no longer used.
    ///
    /// # Errors
    ///
    /// [`Error::ExternalCrowded`] when too many external PDSes are in use.
    pub(super) fn external(
        &self,
        origin: &Origin,
        addresses: &Arc<[IpAddr]>,
    ) -> Result<Rc<ServerPool>, Error> {
        let mut external = self.external.borrow_mut();
        if let Some(known) = external.get(origin)
            && known.addresses == *addresses
        {
            known.used_at.set(self.deadlines.now());
            return Ok(Rc::clone(&known.server));
        }
        if external.len() >= MOST_EXTERNAL && !external.contains_key(origin) {
            // The PDS that was unused for the longest time makes room. One with requests under way
            // stays, because its limit on concurrent requests would no longer count them.
            let idle = external.iter().filter(|(_, known)| known.server.pool.under_way() == 0);
            let oldest = idle.min_by_key(|(_, known)| known.used_at.get()).map(|(origin, _)| origin.clone());
            external.remove(&oldest.ok_or(Error::ExternalCrowded)?);
        }
        // Not shared with other threads: an external PDS is not a host, and its breaker ends with
        // its pool.
        let breaker = Arc::new(Breaker::new(self.breakers.rules));
        let server = self.server(origin, Some(Arc::clone(addresses)), breaker, self.external_limits);
        external.insert(
            origin.clone(),
            ExternalPool {
                server: Rc::clone(&server),
                addresses: Arc::clone(addresses),
                used_at: Cell::new(self.deadlines.now()),
            },
        );
        Ok(server)
    }

    /// Closes idle connections that are old or that their server has closed, and forgets external
    /// PDSes that are not in use.
    pub(super) fn sweep(&self) {
        let now = monotonic_now();
        for known in self.hosts.borrow().values() {
            known.server.pool.close_old(now);
        }
        // A pool with requests under way stays, so that its limit on concurrent requests keeps
        // counting them.
        self.external.borrow_mut().retain(|_, known| {
            known.server.pool.close_old(now);
            known.server.pool.under_way() > 0 || now.duration_since(known.used_at.get()) < FORGET_AFTER
        });
    }

    fn server(
        &self,
        origin: &Origin,
        addresses: Option<Arc<[IpAddr]>>,
        breaker: Arc<Breaker>,
        limits: PoolLimits,
    ) -> Rc<ServerPool> {
        let endpoint = Endpoint::new(origin.is_https(), origin.authority());
        let (connector, deadlines) = (self.connector.clone(), Rc::clone(&self.deadlines));
        let pool = Rc::new(Pool::new(endpoint, addresses, connector, breaker, limits, deadlines));
        Rc::new(ServerPool { pool, shares: Shares::of(limits.at_once) })
    }
}

/// External PDSes that one thread has pools for.
const MOST_EXTERNAL: usize = 1024;
/// Idle connections to one external PDS that one thread keeps.
const EXTERNAL_IDLE: usize = 16;
/// An external PDS that was not used for this long is forgotten, and its breaker with it.
const FORGET_AFTER: Duration = Duration::from_mins(1);
