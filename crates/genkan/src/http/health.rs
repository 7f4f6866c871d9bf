//! Version, liveness and readiness.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Json;
use serde::Serialize;

use crate::db::Db;

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
    db: OnceLock<Db>,
    draining: AtomicBool,
}

impl Readiness {
    /// Makes load balancers send requests to this process, which serves them from now on.
    pub(crate) fn open(&self, db: Db) {
        let _ = self.inner.db.set(db);
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
        let Some(db) = self.inner.db.get() else { return Err("starting") };
        if !db.is_writable() {
            return Err("the database cannot write");
        }
        match tokio::time::timeout(DATABASE_ANSWERS, db.ping()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err("the database does not answer"),
        }
    }
}

/// How long a ready database may take for an empty query.
const DATABASE_ANSWERS: Duration = Duration::from_secs(1);
