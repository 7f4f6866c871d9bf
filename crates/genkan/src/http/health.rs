//! Version, liveness and readiness.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Json;
use serde::Serialize;

use crate::db::Db;
use crate::db::feed::Feed;

#[derive(Debug, Serialize)]
pub(super) struct Version {
    version: &'static str,
}

/// `/xrpc/_health`, in the form that hosts and relays expect.
pub(super) async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION") })
}

/// Whether load balancers should send requests here. Cheap to clone.
///
/// A process is not ready before [`open`](Self::open).
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Set once requests are served.
    database: OnceLock<(Db, Feed)>,
    draining: AtomicBool,
}

impl Readiness {
    /// Makes load balancers send requests to this process, which serves them from now on.
    pub(crate) fn open(&self, db: Db, feed: Feed) {
        let _ = self.inner.database.set((db, feed));
    }

    /// Makes load balancers stop sending requests to this process.
    pub(crate) fn drain(&self) {
        self.inner.draining.store(true, Ordering::SeqCst);
    }

    /// # Errors
    ///
    /// The reason why this process should get no requests.
    pub(super) async fn check(&self) -> Result<(), &'static str> {
        if self.inner.draining.load(Ordering::SeqCst) {
            return Err("draining");
        }
        let Some((db, feed)) = self.inner.database.get() else { return Err("starting") };
        if !db.is_writable() {
            return Err("the database cannot write");
        }
        // The feed has a connection of its own. If it was read in the last seconds and the pool does
        // not answer, the pool is busy: that passes, and forwarding goes on meanwhile.
        let is_heard = feed.is_fresh();
        let limit = if is_heard { POOL_ANSWERS } else { DATABASE_ANSWERS };
        match tokio::time::timeout(limit, db.ping()).await {
            Ok(Ok(())) => Ok(()),
            Err(_) if is_heard => Ok(()),
            _ => Err("the database does not answer"),
        }
    }
}

/// How long a ready database may take for an empty query.
const DATABASE_ANSWERS: Duration = Duration::from_secs(1);
/// How long the pool may take for it before it counts as busy. Shorter than load balancers wait.
const POOL_ANSWERS: Duration = Duration::from_millis(300);
