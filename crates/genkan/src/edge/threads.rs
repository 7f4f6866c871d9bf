//! The edge as a whole: it opens the listeners with their threads, and ends them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tokio::sync::{mpsc, watch};

use super::context::{EdgeContext, Phase};
use super::counters::Counters;
use super::{connection_limits, worker};
use crate::forward::{Breakers, Rooms};

/// The public address, taken and not yet open: the system refuses connections to it.
#[derive(Debug)]
pub(crate) struct BoundAddress {
    address: SocketAddr,
    /// One for each thread.
    sockets: Vec<Socket>,
}

impl BoundAddress {
    /// Takes the address for this many threads.
    pub(crate) fn take(address: SocketAddr, threads: usize) -> io::Result<Self> {
        let first = worker::bind(address)?;
        // Port 0 means any free port. The first socket chooses one, and all others share it.
        let address =
            first.local_addr()?.as_socket().ok_or_else(|| io::Error::other("the socket has no address"))?;
        let mut sockets = vec![first];
        for _ in 1..threads {
            sockets.push(worker::bind(address)?);
        }
        Ok(Self { address, sockets })
    }

    #[cfg(test)]
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
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
    /// Listens on the address and serves, with a thread per socket, until [`stop`](Self::stop).
    pub(crate) fn open<R: Rooms + Send + Sync>(
        BoundAddress { address, sockets }: BoundAddress,
        context: EdgeContext<R>,
    ) -> io::Result<Self> {
        let listeners = sockets.into_iter().map(worker::listen).collect::<io::Result<Vec<_>>>()?;
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
