//! A server at work: its listeners, and how they end. Part of the wiring, like `app`.

mod neighbours;
mod signer;

use std::collections::HashMap;
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
use crate::edge::{self, By, Counters, Edge};
use crate::fleet::Fleet;
use crate::fleet::plc_proxy::{PlcProxy, PlcProxySettings, Prober};
use crate::forward::{Abroad, Manners};
use crate::http::{
    HttpState, Readiness, ThemeError, TrustedPeers, oauth, ops_router, own_routes, page_routes, well_known,
    with_layers, xrpc,
};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::{CONNECTIONS, CONNECTIONS_REFUSED, HOST_HEALTHY, REQUESTS};
use crate::{accounts, jobs};
use neighbours::Rooms;

/// A server at work.
pub(crate) struct Running {
    pub(crate) readiness: Readiness,
    edge: Edge,
    /// Set: the smaller listeners close, too.
    stop: watch::Sender<bool>,
    listeners: JoinSet<std::io::Result<()>>,
    replica: Replica,
    heartbeat: JoinHandle<()>,
    db: Db,
}

/// Why a server did not come up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{setting}: cannot listen on {address} ({cause}); stop what listens there, or choose another")]
    Listen { setting: &'static str, address: SocketAddr, cause: std::io::ErrorKind },
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Theme(#[from] ThemeError),
    #[error("the fleet: {0}")]
    Fleet(#[from] crate::fleet::Error),
    #[error("the database: {0}")]
    Replica(#[from] db::Error),
    #[error("sign-ups: {0}")]
    SignUps(#[from] crate::signup::Error),
    #[error("handle changes: {0}")]
    Renames(#[from] crate::renames::Error),
}

impl Running {
    /// `log_lines_dropped` is counted where lines are written.
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
        // Before anybody can hear that this server is ready: from then on commands must wait for it. What the app
        // read when it was built may be older than the row that they look for.
        let replica = Replica::register(&app.db, &app.clock, &process_name()).await?;
        app.fleet.take_up(&replica).await?;
        let heartbeat = tokio::spawn(replica.clone().keep_alive());
        let stopped = until(stopping);
        listeners.spawn(async move { axum::serve(ops, ops_routes).with_graceful_shutdown(stopped).await });
        if app.db.is_embedded() {
            app.sign_ups.end_leases().await?;
            app.renames.end_leases().await?;
        }
        jobs::start(&app, replica.clone());
        tracing::info!("serving {} on {address}", config.service.public_url);
        Ok(Self { readiness, edge, stop, listeners, replica, heartbeat, db: app.db.clone() })
    }

    /// Lets no one in, and waits until all have left. `false`: the grace ended before that.
    ///
    /// The operator's listener and the PLC proxy go last: requests under way need them.
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

/// The public door: every thread of it listens from now on.
fn open_edge(app: &App) -> Result<Edge, StartError> {
    let address = app.config.listen.address;
    let trusted_peers = TrustedPeers::new(&app.config.listen.trusted_proxies);
    let tls = client_config(app.config.network.extra_ca_file.as_deref()).map_err(BuildError::from)?;
    let dns = Dns::new(&app.config.network.dns_servers).map_err(BuildError::from)?;
    let names = Names::new(dns, app.config.network.private_origins.clone());
    let abroad = Abroad::new(names, app.clock.clone(), Manners::of(&app.config), &app.metrics);
    let context = edge::EdgeContext {
        settings: edge::Settings::of(&app.config),
        neighbours: Rooms::of(app),
        trusted_peers: trusted_peers.clone(),
        metrics: app.metrics.clone(),
        router: router(app, trusted_peers.clone())?,
        control: tokio::runtime::Handle::current(),
        abroad: abroad.clone(),
        tls,
        name: format!(
            "genkan-{}",
            app.config.service.did.as_str().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
        ),
    };
    let refused =
        |error: std::io::Error| StartError::Listen { setting: "GENKAN_LISTEN", address, cause: error.kind() };
    let edge = Edge::open(address, context).map_err(refused)?;
    tokio::spawn(know_hosts(app.fleet.clone(), trusted_peers));
    tokio::spawn(export_counters(edge.counters().to_vec(), app.fleet.clone(), abroad, app.metrics.clone()));
    Ok(edge)
}

/// Keeps the hosts' addresses: what comes from them is on behalf of their users.
async fn know_hosts(fleet: Fleet, trusted_peers: TrustedPeers) {
    loop {
        let mut addresses = HashMap::new();
        for host in fleet.all().iter() {
            let name = host.origin.host().trim_start_matches('[').trim_end_matches(']');
            let Ok(found) = tokio::net::lookup_host((name, host.origin.port())).await else { continue };
            addresses.extend(found.map(|found| (found.ip().to_canonical(), Arc::from(host.id.as_str()))));
        }
        trusted_peers.set_hosts(addresses);
        tokio::time::sleep(KNOW_HOSTS_EVERY).await;
    }
}

/// Hands what the edge's threads count to the metrics.
async fn export_counters(counters: Vec<Arc<Counters>>, fleet: Fleet, abroad: Abroad, metrics: Metrics) {
    loop {
        tokio::time::sleep(EXPORT_COUNTERS_EVERY).await;
        let sum = |count: &dyn Fn(&Counters) -> u64| counters.iter().map(|thread| count(thread)).sum::<u64>();
        for (door, by) in [("forwarded", By::Host), ("edge", By::Edge)] {
            for class in 1..=5_usize {
                let status = ["", "1xx", "2xx", "3xx", "4xx", "5xx"].get(class).copied().unwrap_or_default();
                metrics.counter(&REQUESTS, &[door, status]).set(sum(&|thread| thread.answers(by, class)));
            }
        }
        abroad.show(&metrics);
        for host in fleet.all().iter() {
            metrics.gauge(&HOST_HEALTHY, &[host.id.as_str()]).set(i64::from(host.health.is_up()));
        }
        metrics.gauge(&CONNECTIONS, &[]).set(i64::try_from(sum(&Counters::open)).unwrap_or(i64::MAX));
        metrics.counter(&CONNECTIONS_REFUSED, &["no place"]).set(sum(&Counters::turned_away));
    }
}

/// For the listeners that nobody waits at any more.
const LAST: Duration = Duration::from_secs(2);
const KNOW_HOSTS_EVERY: Duration = Duration::from_secs(10);
const EXPORT_COUNTERS_EVERY: Duration = Duration::from_secs(2);

/// Everything that Genkan answers itself.
fn router(app: &App, trusted_peers: TrustedPeers) -> Result<axum::Router, ThemeError> {
    let state = HttpState {
        config: Arc::clone(&app.config),
        clock: app.clock.clone(),
        account_hosts: app.accounts.account_hosts().clone(),
        limits: app.limits.clone(),
        metrics: app.metrics.clone(),
        trusted_peers,
        oauth: Some(app.oauth.clone()),
    };
    let routes = own_routes(&state).merge(xrpc::routes(app)).merge(well_known::routes(app));
    Ok(with_layers(routes.merge(oauth::routes(app)).merge(page_routes(app)?), &state))
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
    // An error means that the sender is gone, and with it the server.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn listen(setting: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |error: std::io::Error| StartError::Listen { setting, address, cause: error.kind() };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}
