//! The running server: its listeners, and how they stop. Part of the wiring, as `app` is.

mod background;
mod rooms;
mod signer;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::future::BoxFuture;
use genkan_protocol::syntax::Did;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::app::{App, BuildError, lock_for_serving, open_upgraded};
use crate::base::fetch::tls::client_config;
use crate::base::fetch::{Dns, Names};
use crate::base::{Clock, monotonic_now};
use crate::config::Config;
use crate::db::feed::Change;
use crate::db::replicas::Replica;
use crate::db::{self, Db, LiveReplicas, ServingLock};
use crate::edge::{self, BoundAddress, Edge, EdgeContext};
use crate::fleet::plc_proxy::{PlcProxy, PlcProxySettings, Prober};
use crate::forward::{ExternalPdses, ExternalPolicy};
use crate::http::{
    HttpState, Readiness, ThemeError, oauth, ops_router, own_routes, page_routes, well_known, with_layers,
    xrpc,
};
use crate::telemetry::metrics::Metrics;
use crate::wire::TrustedPeers;
use crate::{accounts, jobs};
use rooms::AppRooms;

/// A running server.
pub(crate) struct Running {
    pub(crate) readiness: Readiness,
    edge: Edge,
    /// Set to `true` to stop the listeners for operators and for the PLC proxy.
    stop: watch::Sender<bool>,
    listeners: JoinSet<std::io::Result<()>>,
    replica: Replica,
    db: Db,
    metrics: Metrics,
    /// Released last.
    _serving_lock: ServingLock,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(
        "{setting}: cannot listen on {address} ({cause}); stop the program that uses it, or use another address"
    )]
    Listen { setting: &'static str, address: SocketAddr, cause: std::io::ErrorKind },
    #[error("the server did not start within {} s: check that the database answers", .0.as_secs())]
    TimedOut(Duration),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Theme(#[from] ThemeError),
    #[error("the fleet: {0}")]
    Fleet(#[from] crate::fleet::Error),
    #[error("the database: {0}")]
    Replica(#[from] db::Error),
    #[error("cannot resume sign-ups: {0}")]
    SignUps(#[from] crate::signup::Error),
    #[error("cannot resume handle changes: {0}")]
    Renames(#[from] crate::renames::Error),
}

impl StartError {
    fn listen(setting: &'static str, address: SocketAddr, cause: &std::io::Error) -> Self {
        Self::Listen { setting, address, cause: cause.kind() }
    }
}

impl Running {
    /// Starts the server within `limit`. `log_lines_dropped` is the counter of the logger, for the
    /// metrics.
    ///
    /// No request is served before commands that wait for the running servers know this one, and the
    /// fleet in its memory is as new as that.
    pub(crate) async fn start(
        config: Config,
        log_lines_dropped: Arc<AtomicU64>,
        limit: Duration,
    ) -> Result<Self, StartError> {
        let (stop, stopping) = watch::channel(false);
        let (metrics, readiness) = (Metrics::default(), Readiness::default());
        let mut listeners = JoinSet::new();
        // First, so that probes are answered however long the start takes.
        let ops = listen("GENKAN_OPS_LISTEN", config.listen.ops).await?;
        let ops_routes = ops_router(readiness.clone(), &metrics, &Clock::of_process(), log_lines_dropped);
        let stopped = until(stopping.clone());
        listeners.spawn(async move { axum::serve(ops, ops_routes).with_graceful_shutdown(stopped).await });

        let serving_lock = lock_for_serving(&config).await?;
        let db = open_upgraded(&config, limit).await?.ok_or(StartError::TimedOut(limit))?;
        let limit = StartLimit { until: monotonic_now() + limit, total: limit };
        let clock = db.clock();
        let build = async { Ok(App::build_on(db, config, clock, metrics).await?) };
        let app = limit.bound(Box::pin(build)).await?;
        let replica = Replica::new(&app.db, &app.clock, &process_name());
        let prepared = limit.bound(Preparation::of(app.clone(), replica.live())).await?;
        let edge = Box::pin(prepared.serve(&replica, &limit, &mut listeners, &stopping)).await?;
        // Nothing below can fail: a row that is kept alive must not be left behind.
        tokio::spawn(replica.clone().keep_alive());
        jobs::start(&app, replica.clone());
        readiness.open(app.db.clone(), app.feed.clone());
        tracing::info!("serving {} on {}", app.config.service.public_url, edge.address());
        Ok(Self {
            readiness,
            edge,
            stop,
            listeners,
            replica,
            db: app.db.clone(),
            metrics: app.metrics.clone(),
            _serving_lock: serving_lock,
        })
    }

    /// Waits until the database's file is lost, after which no write would last, or until a newer
    /// Genkan changed the schema in a way that this one does not understand.
    pub(crate) async fn database_lost(&self) -> db::Error {
        tokio::select! {
            lost = self.db.watch_file(&self.metrics) => lost,
            newer = self.db.watch_schema() => newer,
        }
    }

    /// Removes the row of this process, for one that ends at once and not by [`stop`](Self::stop).
    /// Otherwise commands that change the fleet would wait for it.
    pub(crate) fn leave(&self) -> impl Future<Output = ()> + use<> {
        let replica = self.replica.clone();
        async move { leave(&replica).await }
    }

    /// Stops accepting requests and waits for running ones. `false` if `grace` ended before they
    /// did.
    ///
    /// The listeners for operators and for the PLC proxy stop last, since running requests need
    /// them.
    pub(crate) async fn stop(self, grace: Duration) -> bool {
        let Self { edge, stop, mut listeners, replica, db, .. } = self;
        let in_time = edge.stop(grace).await;
        stop.send_replace(true);
        let last = async { while listeners.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST, last).await;
        leave(&replica).await;
        db.close().await;
        in_time
    }
}

/// The time that a start may take.
struct StartLimit {
    until: Instant,
    total: Duration,
}

impl StartLimit {
    async fn bound<T>(&self, step: impl Future<Output = Result<T, StartError>>) -> Result<T, StartError> {
        timeout_at(self.until, step).await.unwrap_or(Err(StartError::TimedOut(self.total)))
    }
}

/// Removes the row of this process, if the database answers.
async fn leave(replica: &Replica) {
    match tokio::time::timeout(LAST, replica.leave()).await {
        Ok(Ok(())) => {}
        // Its row is ignored in a few seconds.
        Ok(Err(cause)) => tracing::warn!(cause = %cause, "the row of this server was not removed"),
        Err(_) => tracing::warn!("the row of this server was not removed in time"),
    }
}

/// Everything that a start needs and that can be wrong, before other processes know of it.
struct Preparation {
    app: App,
    address: BoundAddress,
    edge: EdgeContext<AppRooms>,
    /// The listener of the PLC proxy.
    proxy: Option<TcpListener>,
}

impl Preparation {
    async fn of(app: App, replicas: LiveReplicas) -> Result<Self, StartError> {
        let settings = edge::Settings::of(&app.config);
        let address = app.config.listen.address;
        // Taken and not yet open: the system refuses connections until there is somebody to serve
        // them.
        let taken = BoundAddress::take(address, settings.workers);
        let taken = taken.map_err(|cause| StartError::listen("GENKAN_LISTEN", address, &cause))?;
        let proxy = match app.config.directory.front_listen {
            Some(address) => Some(listen("GENKAN_DIRECTORY_FRONT_LISTEN", address).await?),
            None => None,
        };
        Ok(Self { edge: edge_context(&app, settings, replicas)?, app, address: taken, proxy })
    }

    /// Enters this process as one that serves, and serves. If that fails, its row is gone again: other
    /// processes need not wait for it.
    async fn serve(
        self,
        replica: &Replica,
        limit: &StartLimit,
        listeners: &mut JoinSet<std::io::Result<()>>,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Edge, StartError> {
        let entered = limit.bound(self.enter(replica)).await;
        let served = entered.and_then(|prepared| prepared.open(listeners, stopping));
        if served.is_err() {
            leave(replica).await;
        }
        served
    }

    /// Makes this process known to those who change the fleet, and takes up the fleet.
    async fn enter(self, replica: &Replica) -> Result<Self, StartError> {
        // In this order: what the app read when it was built may be older than the row that commands
        // look for.
        replica.register().await?;
        self.app.fleet.take_up(replica).await?;
        // An embedded database has one process: leases that an earlier one held would only delay work.
        if self.app.db.is_embedded() {
            self.app.sign_ups.end_leases().await?;
            self.app.renames.end_leases().await?;
            self.app.standings.end_leases().await?;
        }
        Ok(self)
    }

    /// Opens the doors.
    fn open(
        self,
        listeners: &mut JoinSet<std::io::Result<()>>,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Edge, StartError> {
        let Self { app, address, edge, proxy } = self;
        let (trusted_peers, external) = (edge.trusted_peers.clone(), edge.external.clone());
        let edge = Edge::open(address, edge)
            .map_err(|cause| StartError::listen("GENKAN_LISTEN", app.config.listen.address, &cause))?;
        if let Some(listener) = proxy {
            let (proxy, stopped) = (plc_proxy(&app), until(stopping.clone()));
            listeners.spawn(async move {
                proxy.serve(listener, stopped).await;
                Ok(())
            });
        }
        tokio::spawn(background::know_hosts(app.fleet.clone(), trusted_peers));
        tokio::spawn(background::export_counters(
            edge.counters().to_vec(),
            app.fleet.clone(),
            external,
            app.metrics.clone(),
        ));
        Ok(edge)
    }
}

/// What the threads of the edge share.
fn edge_context(
    app: &App,
    settings: edge::Settings,
    replicas: LiveReplicas,
) -> Result<EdgeContext<AppRooms>, StartError> {
    let trusted_peers = TrustedPeers::new(&app.config.listen.trusted_proxies);
    let tls = client_config(app.config.network.extra_ca_file.as_deref()).map_err(BuildError::from)?;
    let dns = Dns::new(&app.config.network.dns_servers).map_err(BuildError::from)?;
    let names = Names::new(dns, app.config.network.private_origins.clone());
    let external =
        ExternalPdses::new(names, app.clock.clone(), ExternalPolicy::of(&app.config), &app.metrics, replicas);
    Ok(EdgeContext {
        settings,
        rooms: AppRooms::of(app),
        metrics: app.metrics.clone(),
        router: router(app, trusted_peers.clone())?,
        trusted_peers,
        control: tokio::runtime::Handle::current(),
        external,
        tls,
        name: format!(
            "genkan-{}",
            app.config.service.did.as_str().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
        ),
    })
}

/// Maximum time for the last listeners to stop.
const LAST: Duration = Duration::from_secs(2);

/// Returns the router of everything that Genkan answers itself.
pub(crate) fn router(app: &App, trusted_peers: TrustedPeers) -> Result<axum::Router, ThemeError> {
    let state = http_state(app, trusted_peers);
    let routes = own_routes(&state).merge(xrpc::routes(app)).merge(well_known::routes(app));
    Ok(with_layers(routes.merge(oauth::routes(app)).merge(page_routes(app)?), &state))
}

/// The state of the layers around the router.
pub(crate) fn http_state(app: &App, trusted_peers: TrustedPeers) -> HttpState {
    HttpState {
        config: Arc::clone(&app.config),
        clock: app.clock.clone(),
        account_hosts: app.accounts.account_hosts().clone(),
        limits: app.limits.clone(),
        metrics: app.metrics.clone(),
        trusted_peers,
        oauth: app.oauth.clone(),
    }
}

/// The PLC proxy, which takes operations for DIDs that Genkan knows.
fn plc_proxy(app: &App) -> PlcProxy {
    let directory = &app.config.directory;
    let settings = PlcProxySettings {
        directory: directory.url.clone(),
        timeout: directory.timeout,
        cache_entries: directory.cache_entries,
        cache_lifetime: directory.cache_lifetime,
    };
    let db = app.db.clone();
    let knows = move |did: Did| -> BoxFuture<'static, Result<bool, db::Error>> {
        let db = db.clone();
        Box::pin(async move { accounts::is_known(&db, &did).await })
    };
    let (db, home_documents) = (app.db.clone(), app.home_documents.clone());
    let changed = move |did: Did| -> BoxFuture<'static, Result<(), db::Error>> {
        let (db, home_documents) = (db.clone(), home_documents.clone());
        Box::pin(async move {
            let mut tx = db.begin().await?;
            home_documents.forget(&mut tx, &did).await?;
            accounts::note_change(&mut tx, &did).await?;
            tx.commit().await
        })
    };
    let proxy = PlcProxy::new(
        settings,
        app.unguarded.clone(),
        app.clock.clone(),
        Prober::new(&app.ring),
        Box::new(knows),
        Box::new(changed),
    );
    let forgetting = proxy.clone();
    app.feed.subscribe(Change::Account, move |did| forgetting.forget(did));
    proxy
}

/// This process, as operators know it.
fn process_name() -> String {
    let process = std::process::id();
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(machine) => format!("process {process} on {}", machine.trim()),
        Err(_) => format!("process {process}"),
    }
}

async fn until(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, and the server with it.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|cause| StartError::listen(setting, address, &cause))
}
