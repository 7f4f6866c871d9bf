//! The running server: its listeners, and how they stop. Part of the wiring, as `app` is.

mod background;
mod rooms;
mod signer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::future::BoxFuture;
use genkan_protocol::syntax::Did;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::app::{App, BuildError};
use crate::base::fetch::tls::client_config;
use crate::base::fetch::{Dns, Names};
use crate::config::Config;
use crate::db::feed::Change;
use crate::db::replicas::Replica;
use crate::db::{self, Db};
use crate::edge::{self, Edge};
use crate::fleet::plc_proxy::{PlcProxy, PlcProxySettings, Prober};
use crate::forward::{ExternalPdses, ExternalPolicy};
use crate::http::{
    HttpState, Readiness, ThemeError, oauth, ops_router, own_routes, page_routes, well_known, with_layers,
    xrpc,
};
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
    heartbeat: JoinHandle<()>,
    db: Db,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(
        "{setting}: cannot listen on {address} ({cause}); stop the program that uses it, or use another address"
    )]
    Listen { setting: &'static str, address: SocketAddr, cause: std::io::ErrorKind },
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

impl Running {
    /// Starts the server. `log_lines_dropped` is the counter of the logger, for the metrics.
    pub(crate) async fn start(config: Config, log_lines_dropped: Arc<AtomicU64>) -> Result<Self, StartError> {
        let app = App::build(config).await?;
        let config = Arc::clone(&app.config);
        let readiness = Readiness::new(app.db.clone());
        let (ops, _) = listen("GENKAN_OPS_LISTEN", config.listen.ops).await?;
        let ops_routes = ops_router(readiness.clone(), &app.metrics, &app.clock, log_lines_dropped);
        let edge = open_edge(&app)?;
        let address = edge.address();

        let (stop, stopping) = watch::channel(false);
        let mut listeners = JoinSet::new();
        if let Some(proxy_address) = config.directory.front_listen {
            let (listener, _) = listen("GENKAN_DIRECTORY_FRONT_LISTEN", proxy_address).await?;
            let proxy = plc_proxy(&app);
            let stopped = until(stopping.clone());
            listeners.spawn(async move {
                proxy.serve(listener, stopped).await;
                Ok(())
            });
        }
        // In this order: what the app read when it was built may be older than the row that
        // commands look for.
        let replica = Replica::register(&app.db, &app.clock, &process_name()).await?;
        app.fleet.take_up(&replica).await?;
        let heartbeat = tokio::spawn(replica.clone().keep_alive());
        // An embedded database has one process: leases that an earlier one held would only delay
        // work.
        if app.db.is_embedded() {
            app.sign_ups.end_leases().await?;
            app.renames.end_leases().await?;
        }
        jobs::start(&app, replica.clone());
        // Last, since `/readyz` says that everything has started.
        let stopped = until(stopping);
        listeners.spawn(async move { axum::serve(ops, ops_routes).with_graceful_shutdown(stopped).await });
        tracing::info!("serving {} on {address}", config.service.public_url);
        Ok(Self { readiness, edge, stop, listeners, replica, heartbeat, db: app.db.clone() })
    }

    /// Stops accepting requests and waits for running ones. `false` if `grace` ended before they
    /// did.
    ///
    /// The listeners for operators and for the PLC proxy stop last, since running requests need
    /// them.
    pub(crate) async fn stop(self, grace: Duration) -> bool {
        let Self { edge, stop, mut listeners, replica, heartbeat, db, .. } = self;
        let in_time = edge.stop(grace).await;
        stop.send_replace(true);
        let last = async { while listeners.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST, last).await;
        heartbeat.abort();
        let _ = heartbeat.await;
        match tokio::time::timeout(LAST, replica.leave()).await {
            Ok(Ok(())) => {}
            // Its row is ignored in a few seconds.
            Ok(Err(cause)) => tracing::warn!(cause = %cause, "the row of this server was not removed"),
            Err(_) => tracing::warn!("the row of this server was not removed in time"),
        }
        db.close().await;
        in_time
    }
}

/// Opens the public listener, on every worker thread.
fn open_edge(app: &App) -> Result<Edge, StartError> {
    let address = app.config.listen.address;
    let trusted_peers = TrustedPeers::new(&app.config.listen.trusted_proxies);
    let tls = client_config(app.config.network.extra_ca_file.as_deref()).map_err(BuildError::from)?;
    let dns = Dns::new(&app.config.network.dns_servers).map_err(BuildError::from)?;
    let names = Names::new(dns, app.config.network.private_origins.clone());
    let external =
        ExternalPdses::new(names, app.clock.clone(), ExternalPolicy::of(&app.config), &app.metrics);
    let context = edge::EdgeContext {
        settings: edge::Settings::of(&app.config),
        rooms: AppRooms::of(app),
        trusted_peers: trusted_peers.clone(),
        metrics: app.metrics.clone(),
        router: router(app, trusted_peers.clone())?,
        control: tokio::runtime::Handle::current(),
        external: external.clone(),
        tls,
        name: format!(
            "genkan-{}",
            app.config.service.did.as_str().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
        ),
    };
    let refused =
        |error: std::io::Error| StartError::Listen { setting: "GENKAN_LISTEN", address, cause: error.kind() };
    let edge = Edge::open(address, context).map_err(refused)?;
    tokio::spawn(background::know_hosts(app.fleet.clone(), trusted_peers));
    tokio::spawn(background::export_counters(
        edge.counters().to_vec(),
        app.fleet.clone(),
        external,
        app.metrics.clone(),
    ));
    Ok(edge)
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
    let proxy = PlcProxy::new(
        settings,
        app.unguarded.clone(),
        app.clock.clone(),
        Prober::new(&app.ring),
        Box::new(knows),
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

async fn listen(setting: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |error: std::io::Error| StartError::Listen { setting, address, cause: error.kind() };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}
