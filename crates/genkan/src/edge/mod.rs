//! The front door itself: every byte from outside comes in here.
//!
//! A few threads, each with its own runtime, listener and connections to hosts, read requests strictly, within
//! limits, and decide by `routing` whether one is carried on by `forward` or handed to the methods that Genkan
//! answers itself, which run on the control runtime. No thread waits for another, and no request can make one.
//!
//! The edge never touches the database, knows no method by name, and keeps no state beyond a connection's life.

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

use crate::forward::{Abroad, Breakers, Neighbours};
use crate::telemetry::metrics::Metrics;
use crate::wire::TrustedPeers;

/// What all threads of the edge share.
#[derive(Debug)]
pub(crate) struct EdgeContext<N> {
    pub(crate) settings: Settings,
    pub(crate) neighbours: N,
    /// Who may say for whom they speak.
    pub(crate) trusted_peers: TrustedPeers,
    pub(crate) metrics: Metrics,
    /// The methods that Genkan answers itself.
    pub(crate) router: axum::Router,
    /// Where they run.
    pub(crate) control: Handle,
    /// PDSes that are not ours.
    pub(crate) abroad: Abroad,
    /// Trusted authorities, for hosts with TLS.
    pub(crate) tls: Arc<ClientConfig>,
    /// Our name in `Via`: the same on every replica, and nobody else's.
    pub(crate) name: String,
}

/// How far the edge is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Phase {
    Open,
    /// Nobody comes in any more; who is in may finish.
    Draining,
    /// Everybody goes, at once.
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
    /// Listens, and serves from now on.
    pub(crate) fn open<N: Neighbours + Send + Sync>(
        address: SocketAddr,
        context: EdgeContext<N>,
    ) -> io::Result<Self> {
        let first = worker::listen(address)?;
        // Port 0 is any port, but the same one for all threads.
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
                neighbours: context.neighbours.clone(),
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
                drop(alive);
            })?;
        }
        Ok(Self { address, phase, ended, counters: all_counters })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What each thread has counted.
    pub(crate) fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// Lets no one in, and waits until all have left. `false`: the grace ended before that, and they were cut off.
    pub(crate) async fn stop(mut self, grace: Duration) -> bool {
        self.phase.send_replace(Phase::Draining);
        if tokio::time::timeout(grace, self.ended.recv()).await.is_ok() {
            return true;
        }
        self.phase.send_replace(Phase::Over);
        self.ended.recv().await;
        false
    }
}
