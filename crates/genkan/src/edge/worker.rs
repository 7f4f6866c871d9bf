//! One of the edge's threads: it accepts connections and enforces their time limits.
//!
//! Everything that connections share belongs to the thread and is reached through `Rc` and `Cell`,
//! without locks.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http1::Connector;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::activity::{Activity, Disposition};
use super::address::Peer;
use super::connection;
use super::connection_limits::ConnectionLimits;
use super::context::{ConnectionContext, EdgeContext, Phase, WorkerContext};
use super::counters::{self, Counters};
use crate::base::monotonic_now;
use crate::forward::{Breakers, Forwarder, Rooms};

/// What a thread needs to start.
#[derive(Debug)]
pub(super) struct Parts<R> {
    pub(super) rooms: R,
    pub(super) edge: Arc<EdgeContext<R>>,
    pub(super) connection_limits: ConnectionLimits,
    pub(super) breakers: Breakers,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) counters: Arc<Counters>,
}

/// The connections of a thread.
#[derive(Debug)]
struct Worker<R> {
    /// What the connections' requests share.
    context: Rc<WorkerContext<R>>,
    connection_limits: ConnectionLimits,
    /// Weak, so that a connection's end frees its activity. [`check_all`](Self::check_all) drops
    /// the dead entries.
    activities: RefCell<Vec<Weak<Activity>>>,
    open: Cell<usize>,
}

/// A socket with `SO_REUSEPORT`, bound and not yet listening: each thread has its own, and the system
/// spreads connections over them.
pub(super) fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Lets the system accept connections for a bound socket.
pub(super) fn listen(socket: Socket) -> io::Result<std::net::TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves until the edge has ended.
pub(super) fn run<R: Rooms>(listener: std::net::TcpListener, parts: Parts<R>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build_local(LocalOptions::default())?;
    runtime.block_on(serve(listener, parts))
}

async fn serve<R: Rooms>(listener: std::net::TcpListener, parts: Parts<R>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut phase = parts.phase;
    // Each of these belongs to this thread alone, so that `Rc` and `Cell` are enough.
    let settings = &parts.edge.settings;
    let via = HeaderValue::try_from(format!("1.1 {}", parts.edge.name)).map_err(io::Error::other)?;
    let connector = Connector::new(Arc::clone(&parts.edge.tls));
    let forwarder = Forwarder::new(
        parts.rooms.clone(),
        via,
        parts.breakers,
        connector,
        settings.forward.clone(),
        parts.edge.external.clone(),
    );
    let worker = Rc::new(Worker {
        context: Rc::new(WorkerContext::new(Arc::clone(&parts.edge), parts.rooms, forwarder, parts.counters)),
        connection_limits: parts.connection_limits,
        activities: RefCell::default(),
        open: Cell::new(0),
    });
    let mut ticks = tokio::time::interval(settings.tick());
    // After a long pause one check is enough: many at once would find nothing new.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swept = monotonic_now();
    let mut listener = Some(listener);
    loop {
        tokio::select! {
            // Shutdown first and new connections last, so that a flood of connections delays
            // neither.
            biased;
            changed = phase.changed() => {
                // The other half is gone: what serves this thread has ended without a word.
                if changed.is_err() {
                    return Ok(());
                }
                let disposition = match *phase.borrow_and_update() {
                    Phase::Open => continue,
                    Phase::Draining => Disposition::Drain,
                    Phase::Over => Disposition::Drop,
                };
                // Closing the socket makes the system refuse new connections.
                listener = None;
                worker.escalate_all(disposition);
            }
            now = ticks.tick() => {
                worker.check_all(now);
                worker.context.forwarder().scan_deadlines(now);
                if now.duration_since(swept) >= SWEEP_EVERY {
                    swept = now;
                    worker.context.forwarder().sweep();
                }
            }
            accepted = accept(listener.as_ref()) => match accepted {
                Ok((stream, peer)) => Rc::clone(&worker).admit(stream, peer),
                Err(error) => {
                    // Most likely the process is out of file descriptors. Accepting again at once
                    // would fail again and keep the thread busy, so open connections get a moment
                    // to end.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        if listener.is_none() && worker.open.get() == 0 {
            return Ok(());
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

impl<R: Rooms> Worker<R> {
    /// Starts a task for a connection, if the limits allow one more.
    fn admit(self: Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let peer = Peer::new(peer.ip());
        let is_believed = self.context.edge().trusted_peers.speaks_for_others(peer.address());
        // Refused by closing: an answer would cost the reading of a request.
        let Some(permit) = self.connection_limits.admit(peer.address(), is_believed) else {
            counters::add(&self.context.counters().turned_away, 1);
            return;
        };
        // An answer leaves in several small writes. Nagle's algorithm would hold the last one back.
        if stream.set_nodelay(true).is_err() {
            // The client has closed it already.
            return;
        }
        let activity = Rc::new(Activity::new());
        self.activities.borrow_mut().push(Rc::downgrade(&activity));
        self.count(1);
        let worker = Rc::clone(&self.context);
        let context = Rc::new(ConnectionContext { worker, peer, is_believed, activity });
        tokio::task::spawn_local(async move {
            connection::serve(stream, context).await;
            drop(permit);
            self.count(-1);
        });
    }

    fn count(&self, change: isize) {
        self.open.set(self.open.get().saturating_add_signed(change));
        self.context.counters().open.store(self.open.get() as u64, std::sync::atomic::Ordering::Relaxed);
    }

    fn escalate_all(&self, disposition: Disposition) {
        for activity in self.activities.borrow().iter().filter_map(Weak::upgrade) {
            activity.escalate(disposition);
        }
    }

    /// Checks the time limits of all connections, and forgets those that have ended.
    fn check_all(&self, now: Instant) {
        self.activities.borrow_mut().retain(|activity| {
            let Some(activity) = activity.upgrade() else { return false };
            activity.check(self.context.settings(), now);
            true
        });
    }
}

/// Connections that the system keeps ready to be accepted.
const BACKLOG: i32 = 1024;
/// Polled tasks between two checks of the sockets.
const EVENT_INTERVAL: u32 = 61;
/// How often idle connections to hosts are swept for those that have closed.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
