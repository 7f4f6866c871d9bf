//! A server at work: its listeners, and how they end. Part of the wiring, like `app`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures_util::future::BoxFuture;
use genkan_protocol::syntax::Did;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::{App, BuildError};
use crate::config::Config;
use crate::db::feed::Kind;
use crate::db::{self, Db};
use crate::fleet::front::{Front, FrontSettings, Prober};
use crate::http::{Doors, Readiness, Trusted, ops_router, own_routes, well_known, with_layers, xrpc};
use crate::{accounts, chores};

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
    Build(#[from] BuildError),
}

impl Running {
    /// `log_lines_dropped` is counted where lines are written.
    pub(crate) async fn start(config: Config, log_lines_dropped: Arc<AtomicU64>) -> Result<Self, StartError> {
        let app = App::build(config).await?;
        let config = Arc::clone(&app.config);
        let readiness = Readiness::new(app.db.clone());
        let (door, address) = listen("GENKAN_LISTEN", config.listen.address).await?;
        let (ops, _) = listen("GENKAN_OPS_LISTEN", config.listen.ops).await?;
        let ops_routes = ops_router(readiness.clone(), &app.metrics, &app.clock, log_lines_dropped);
        let router = router(&app);

        let (stop, stopping) = watch::channel(false);
        let mut listeners = JoinSet::new();
        if let Some(front_address) = config.directory.front_listen {
            let (listener, _) = listen("GENKAN_DIRECTORY_FRONT_LISTEN", front_address).await?;
            let front = front(&app);
            let stopped = until(stopping.clone());
            listeners.spawn(async move {
                front.serve(listener, stopped).await;
                Ok(())
            });
        }
        let stopped = until(stopping.clone());
        listeners.spawn(async move {
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(door, service).with_graceful_shutdown(stopped).await
        });
        let stopped = until(stopping);
        listeners.spawn(async move { axum::serve(ops, ops_routes).with_graceful_shutdown(stopped).await });
        chores::start(&app);
        tracing::info!("serving {} on {address}", config.service.public_url);
        Ok(Self { readiness, stop, listeners, db: app.db.clone() })
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

/// Everything that Genkan answers itself.
fn router(app: &App) -> axum::Router {
    let doors = Doors {
        config: Arc::clone(&app.config),
        clock: app.clock.clone(),
        homes: app.accounts.homes().clone(),
        limits: app.limits.clone(),
        metrics: app.metrics.clone(),
        trusted: Trusted::new(&app.config.listen.trusted_proxies),
    };
    with_layers(own_routes(&doors).merge(xrpc::routes(app)).merge(well_known::routes(app)), &doors)
}

/// The directory front, which takes operations for DIDs that Genkan knows.
fn front(app: &App) -> Front {
    let directory = &app.config.directory;
    let settings = FrontSettings {
        directory: directory.url.clone(),
        timeout: directory.timeout,
        cache_entries: directory.cache_entries,
        cache_lifetime: directory.cache_lifetime,
    };
    let db = app.db.clone();
    let knows = move |did: Did| -> BoxFuture<'static, Result<bool, db::Error>> {
        let db = db.clone();
        Box::pin(async move {
            match accounts::is_known(&db, &did).await {
                Ok(known) => Ok(known),
                Err(accounts::Error::Storage(cause)) => Err(cause),
                Err(_) => Ok(false),
            }
        })
    };
    let front =
        Front::new(settings, app.trusted.clone(), app.clock.clone(), Prober::new(&app.ring), Box::new(knows));
    let forgetting = front.clone();
    app.feed.subscribe(Kind::Account, move |did| forgetting.forget(did));
    front
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
