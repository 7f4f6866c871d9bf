//! What requests share: with the whole edge, with their thread, and with their connection.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use tokio::runtime::Handle;
use tokio_rustls::rustls::ClientConfig;

use super::activity::Activity;
use super::address::Peer;
use super::counters::Counters;
use super::failures::FailureMetrics;
use super::settings::Settings;
use crate::forward::{ExternalPdses, Forwarder};
use crate::telemetry::metrics::Metrics;
use crate::wire::{TrustedPeers, ViaHost};

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

/// What all requests of one thread share. It belongs to the thread, and is reached without locks.
#[derive(Debug)]
pub(super) struct WorkerContext<R> {
    edge: Arc<EdgeContext<R>>,
    rooms: R,
    forwarder: Forwarder<R>,
    counters: Arc<Counters>,
    failures: FailureMetrics,
}

impl<R> WorkerContext<R> {
    pub(super) fn new(
        edge: Arc<EdgeContext<R>>,
        rooms: R,
        forwarder: Forwarder<R>,
        counters: Arc<Counters>,
    ) -> Self {
        let failures = FailureMetrics::new(edge.metrics.clone());
        Self { edge, rooms, forwarder, counters, failures }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.edge.settings
    }

    pub(super) fn edge(&self) -> &EdgeContext<R> {
        &self.edge
    }

    pub(super) const fn rooms(&self) -> &R {
        &self.rooms
    }

    pub(super) const fn forwarder(&self) -> &Forwarder<R> {
        &self.forwarder
    }

    pub(super) const fn failures(&self) -> &FailureMetrics {
        &self.failures
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// What all requests of one connection share.
#[derive(Debug)]
pub(super) struct ConnectionContext<R> {
    pub(super) worker: Rc<WorkerContext<R>>,
    pub(super) peer: Peer,
    /// Whether the peer's `X-Forwarded-For` is trusted.
    pub(super) is_believed: bool,
    pub(super) activity: Rc<Activity>,
}

impl<R> ConnectionContext<R> {
    /// The client's address as the log has it: as a host says, if a host passed the request on.
    pub(super) fn named_client(&self, headers: &HeaderMap) -> IpAddr {
        let (own, via) = self.client(headers);
        via.map_or(own, |via| via.client)
    }

    /// The client's address, and the host that passed the request on, if one did.
    pub(super) fn client(&self, headers: &HeaderMap) -> (IpAddr, Option<ViaHost>) {
        // Anyone can write the header. Only a trusted peer's header counts.
        if !self.is_believed {
            return (self.peer.address(), None);
        }
        let (client, via) = self.worker.edge().trusted_peers.client(self.peer.address(), headers);
        (client.0, via)
    }
}
