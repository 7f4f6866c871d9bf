//! The front door: all traffic from outside arrives here.
//!
//! A few threads, each with its own runtime, listener and connections to hosts, read requests
//! strictly and within limits. The routing table decides whether a request is forwarded, refused,
//! or handed to `http`, which answers it on the control runtime. No thread waits for another, and
//! no request can make one wait.
//!
//! The edge never touches the database, knows no method by name, and keeps no state longer than a
//! connection.
//!
//! The files follow a request: `worker` accepts a connection and admits it, `connection` serves it
//! (`client_stream` reads strictly below hyper), `service` answers each of its requests, and
//! `answer` makes the refusals.

mod activity;
mod address;
mod answer;
mod client_stream;
mod connection;
mod connection_limits;
mod counters;
mod failures;
mod local;
mod service;
mod settings;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_rustls::rustls::ClientConfig;

pub(crate) use counters::{By, Counters};
pub(crate) use settings::Settings;

use crate::forward::{Breakers, ExternalPdses, Rooms};
use crate::telemetry::metrics::Metrics;
use crate::wire::TrustedPeers;

/// What all threads of the edge share.
#[derive(Debug)]
pub(crate) struct EdgeContext<R> {
    pub(crate) settings: Settings,
    pub(crate) rooms: R,
    /// The peers whose `X-Forwarded-For` is trusted.
    pub(crate) trusted_peers: TrustedPeers,
    pub(crate) metrics: Metrics,
    /// The methods that Genkan answers itself.
    pub(crate) router: axum::Router,
    /// The runtime on which `router` answers.
    pub(crate) control: Handle,
    /// What all threads share about external PDSes.
    pub(crate) external: ExternalPdses,
    /// The trusted certificate authorities, for hosts with TLS.
    pub(crate) tls: Arc<ClientConfig>,
    /// Genkan's name in `Via` (RFC 9110 §7.6.3). All replicas share it, and no other server has it.
    pub(crate) name: String,
}

/// The phases of the edge's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Phase {
    Open,
    /// New connections are refused. Requests under way may finish.
    Draining,
    /// All connections are closed at once.
    Over,
}

/// The open edge.
#[derive(Debug)]
pub(crate) struct Edge {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    /// Closed when the last thread has ended.
    ended: mpsc::Receiver<()>,
    counters: Vec<Arc<Counters>>,
}

impl Edge {
    /// Listens on the address and serves, with one thread per worker, until [`stop`](Self::stop).
    pub(crate) fn open<R: Rooms + Send + Sync>(
        address: SocketAddr,
        context: EdgeContext<R>,
    ) -> io::Result<Self> {
        let first = worker::listen(address)?;
        // Port 0 means any free port. The first listener chooses one, and all others share it.
        let address = first.local_addr()?;
        let mut listeners = vec![first];
        for _ in 1..context.settings.workers {
            listeners.push(worker::listen(address)?);
        }
        let (phase, seen) = watch::channel(Phase::Open);
        let (alive, ended) = mpsc::channel(1);
        let connection_limits = connection_limits::ConnectionLimits::new(&context.settings);
        let breakers = Breakers::new(context.settings.breaker);
        let context = Arc::new(context);
        let mut all_counters = Vec::new();
        for (number, listener) in listeners.into_iter().enumerate() {
            let counters = Arc::new(Counters::default());
            all_counters.push(Arc::clone(&counters));
            let parts = worker::Parts {
                rooms: context.rooms.clone(),
                edge: Arc::clone(&context),
                connection_limits: connection_limits.clone(),
                breakers: breakers.clone(),
                phase: seen.clone(),
                counters,
            };
            let alive = alive.clone();
            std::thread::Builder::new().name(format!("edge-{number}")).spawn(move || {
                if let Err(error) = worker::run(listener, parts) {
                    tracing::error!(%error, "an edge thread ended");
                }
                // Dropped when the thread ends, however it ends. `stop` waits until no sender is
                // left.
                drop(alive);
            })?;
        }
        Ok(Self { address, phase, ended, counters: all_counters })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The counters of each thread.
    pub(crate) fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// Refuses new connections and waits until all others have ended, at most for the grace.
    ///
    /// Returns `false` if the grace was too short and connections were cut off.
    pub(crate) async fn stop(mut self, grace: Duration) -> bool {
        self.phase.send_replace(Phase::Draining);
        if tokio::time::timeout(grace, self.ended.recv()).await.is_ok() {
            return true;
        }
        // The grace is over. What is still open is cut, so that the process ends in a known time.
        self.phase.send_replace(Phase::Over);
        self.ended.recv().await;
        false
    }
}
