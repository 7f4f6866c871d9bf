//! The connections of one thread to one server: idle ones, the number in use, and the breaker.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tokio::time::Instant;

use crate::addresses::Addresses;
use crate::answer_head::KeepAlive;
use crate::breaker::{Answerer, Breaker, Trial};
use crate::clock::monotonic_now;
use crate::connect::{Connector, Endpoint};
use crate::connection::UpstreamConnection;
use crate::deadlines::Deadlines;
use crate::error::{Cause, Error, Failure};

/// The connections of one thread to one server.
///
/// A request begins with [`Pool::admit`]. Its [`Permit`] counts the request until the answer's body
/// has ended. `B` is the type of the requests' bodies.
#[derive(Debug)]
pub struct Pool<B> {
    endpoint: Endpoint,
    /// The only addresses that connections may use, for a server whose name is not trusted.
    addresses: Option<Arc<[IpAddr]>>,
    /// The addresses that the system resolved the name to, for all other servers.
    resolved: Addresses,
    breaker: Arc<Breaker>,
    connector: Connector,
    limits: PoolLimits,
    deadlines: Rc<Deadlines>,
    /// The connection that was used last is used first, so that surplus ones grow old and are
    /// closed.
    idle: RefCell<Vec<Box<UpstreamConnection<B>>>>,
    under_way: Cell<usize>,
}

/// The limits of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// From the start of a connection until it can be used, TLS included.
    pub connect: Duration,
    /// Requests under way at once.
    pub at_once: usize,
    /// Idle connections that are kept.
    pub idle: usize,
    /// How long an idle connection is kept, where the server names no shorter time.
    pub keep: Duration,
}

/// Permission for one request, until its answer has ended.
#[derive(Debug)]
pub struct Permit<B> {
    pool: Rc<Pool<B>>,
    answerer: Answerer,
    /// The trial that this request is for an open breaker, until its outcome is known.
    pub(crate) trial: Cell<Option<Trial>>,
}

impl<B: Body<Data = Bytes> + Unpin> Pool<B> {
    /// An empty pool. With `addresses`, it connects to those and to no others. Without, the system
    /// resolves the server's name.
    pub fn new(
        endpoint: Endpoint,
        addresses: Option<Arc<[IpAddr]>>,
        connector: Connector,
        breaker: Arc<Breaker>,
        limits: PoolLimits,
        deadlines: Rc<Deadlines>,
    ) -> Self {
        Self {
            endpoint,
            addresses,
            resolved: Addresses::default(),
            breaker,
            connector,
            limits,
            deadlines,
            idle: RefCell::default(),
            under_way: Cell::new(0),
        }
    }

    /// The server.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    #[cfg(test)]
    pub(crate) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    pub(crate) fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// How many requests are under way.
    pub const fn under_way(&self) -> usize {
        self.under_way.get()
    }

    /// Admits a request. `answerer` says whose failure a missing answer is.
    ///
    /// # Errors
    ///
    /// [`Error::PoolFull`] when too many are under way, [`Error::BreakerOpen`] when the server
    /// failed repeatedly just now.
    pub fn admit(self: Rc<Self>, answerer: Answerer) -> Result<Permit<B>, Error> {
        // Checked before the breaker, which admits a single trial after its pause. A full pool must
        // not use that trial up.
        if self.under_way.get() >= self.limits.at_once {
            return Err(Error::PoolFull);
        }
        let trial = if self.breaker.is_closed() {
            None
        } else {
            self.breaker.admit(answerer, monotonic_now()).map_err(|_| Error::BreakerOpen)?
        };
        self.under_way.set(self.under_way.get() + 1);
        Ok(Permit { pool: self, answerer, trial: Cell::new(trial) })
    }

    /// An idle connection, if there is one that can still be used.
    pub(crate) fn take_idle(&self) -> Option<Box<UpstreamConnection<B>>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut connection) = idle.pop() {
            // The clock of the last scan is up to half a second old. The margin in
            // `KeepAlive::AtMost` covers that.
            if connection.keep_until <= self.deadlines.now() {
                // The vector is a stack, so all others have been idle for longer than this one.
                idle.clear();
            } else if connection.is_reusable() {
                return Some(connection);
            }
        }
        None
    }

    /// Opens a new connection.
    pub(crate) async fn connect(&self) -> Result<Box<UpstreamConnection<B>>, Cause> {
        let limit = self.limits.connect;
        let stream = match &self.addresses {
            None => self.connector.connect(&self.endpoint, &self.resolved, limit).await?,
            Some(addresses) => self.connector.connect_to(&self.endpoint, addresses, limit).await?,
        };
        Ok(Box::new(UpstreamConnection::new(stream, monotonic_now() + self.limits.keep)))
    }

    /// Takes a connection back if another request may use it. Otherwise closes it.
    pub(crate) fn give_back(&self, mut connection: Box<UpstreamConnection<B>>, keep: KeepAlive) {
        let keep = match keep {
            KeepAlive::Close => return,
            KeepAlive::Unlimited => self.limits.keep,
            // The shorter time counts: a request on a connection that the server is about to close
            // would fail.
            KeepAlive::AtMost(time) => time.min(self.limits.keep),
        };
        let mut idle = self.idle.borrow_mut();
        // Checked here already: a server that has closed, or sent surplus bytes, shows it at once.
        if idle.len() < self.limits.idle && connection.is_reusable() {
            connection.shrink();
            connection.keep_until = self.deadlines.now() + keep;
            idle.push(connection);
        }
    }

    /// Closes idle connections that are old or that the server has closed. The owner calls this
    /// from time to time.
    pub fn close_old(&self, now: Instant) {
        self.idle
            .borrow_mut()
            .retain_mut(|connection| connection.keep_until > now && connection.is_reusable());
    }

    /// Closes all idle connections.
    pub(crate) fn close_idle(&self) {
        self.idle.borrow_mut().clear();
    }
}

impl<B> Permit<B> {
    /// The pool that admitted the request.
    pub fn pool(&self) -> &Rc<Pool<B>> {
        &self.pool
    }

    /// Counts an answer as a sign of health, whatever its status: a server passes on the 502, 503
    /// and 504 of servers behind it, and a client that provokes them must not close it to others.
    pub(crate) fn answered(&self) {
        self.pool.breaker.succeeded(self.trial.take(), self.pool.deadlines.now());
    }

    /// Gives the turn to try to the next request, without an outcome. A caller that waits for anyone
    /// but the server while it holds a permit does this first.
    pub fn end_trial(&self) {
        if let Some(trial) = self.trial.take() {
            self.pool.breaker.give_back(trial);
        }
    }

    /// Counts a failure, if it is the server's own.
    pub(crate) fn failed(&self, failure: Failure<'_>) {
        if failure.is_servers(self.answerer) {
            self.pool.breaker.failed(self.trial.take(), monotonic_now());
        }
    }
}

impl<B> Drop for Permit<B> {
    fn drop(&mut self) {
        // Dropping is the only way to end a permit, so a cancelled request is subtracted as well.
        self.pool.under_way.set(self.pool.under_way.get() - 1);
        self.end_trial();
    }
}
