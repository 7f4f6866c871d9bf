//! A server at work: its listeners, and how they end. Part of the wiring, like `app`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::accounts::Accounts;
use crate::base::Clock;
use crate::config::Config;
use crate::db::feed::Feed;
use crate::db::{self, Db, PoolSize};
use crate::http::{Doors, Readiness, Trusted, ops_router, own_routes, with_layers};
use crate::limits::RateLimits;
use crate::telemetry::Metrics;

/// A server at work.
pub(crate) struct Running {
    pub(crate) readiness: Readiness,
    /// Set: nobody comes in any more.
    stop: watch::Sender<bool>,
    listeners: JoinSet<std::io::Result<()>>,
    db: Db,
}

/// Why a server did not come up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{setting}: cannot listen on {address} ({cause}); stop what listens there, or choose another")]
    Listen { setting: &'static str, address: SocketAddr, cause: std::io::ErrorKind },
    #[error(transparent)]
    Folder(#[from] crate::config::Problem),
    #[error(transparent)]
    Database(#[from] db::Error),
}

impl Running {
    /// `log_lines_dropped` is counted where lines are written.
    pub(crate) async fn start(config: Config, log_lines_dropped: Arc<AtomicU64>) -> Result<Self, StartError> {
        config.database.make_data_dir()?;
        let size = PoolSize { connections: config.database.connections, acquire: config.database.acquire_timeout };
        let db = Db::open(&(&config.database.url).into(), size).await?;
        let (clock, metrics) = (Clock::default(), Metrics::default());
        let feed = Feed::new(db.clone(), clock.clone());
        let accounts = Accounts::new(db.clone(), clock.clone(), feed);
        let limits = RateLimits::new(&config, &metrics);
        let trusted = Trusted::new(&config.listen.trusted_proxies);
        let readiness = Readiness::new(db.clone());
        let (door, address) = listen("GENKAN_LISTEN", config.listen.address).await?;
        let (ops, _) = listen("GENKAN_OPS_LISTEN", config.listen.ops).await?;

        let homes = accounts.homes().clone();
        let config = Arc::new(config);
        let ops_routes = ops_router(readiness.clone(), &metrics, &clock, log_lines_dropped);
        let doors = Doors { config: Arc::clone(&config), clock, homes, limits, metrics, trusted };
        let router = with_layers(own_routes(&doors), &doors);

        let (stop, stopping) = watch::channel(false);
        let mut listeners = JoinSet::new();
        let stopped = until(stopping.clone());
        listeners.spawn(async move {
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(door, service).with_graceful_shutdown(stopped).await
        });
        let stopped = until(stopping);
        listeners.spawn(async move { axum::serve(ops, ops_routes).with_graceful_shutdown(stopped).await });
        tracing::info!("serving {} on {address}", config.service.public_url);
        Ok(Self { readiness, stop, listeners, db })
    }

    /// From now on nobody comes in; requests under way go on.
    pub(crate) fn close(&self) {
        self.stop.send_replace(true);
    }

    /// Until the last request has its answer.
    pub(crate) async fn ended(&mut self) {
        while self.listeners.join_next().await.is_some() {}
        self.db.close().await;
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
