//! Version, liveness and readiness.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
#[derive(Clone, Debug)]
pub(crate) struct Readiness {
    db: Db,
    draining: Arc<AtomicBool>,
}

impl Readiness {
    pub(crate) fn new(db: Db) -> Self {
        Self { db, draining: Arc::default() }
    }

    /// Makes load balancers stop sending requests to this process.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// # Errors
    ///
    /// The reason why this process should get no requests.
    pub(super) async fn check(&self) -> Result<(), &'static str> {
        if self.draining.load(Ordering::SeqCst) {
            return Err("draining");
        }
        match tokio::time::timeout(DATABASE_ANSWERS, self.db.ping()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err("the database does not answer"),
        }
    }
}

/// How long a ready database may take for an empty query.
const DATABASE_ANSWERS: Duration = Duration::from_secs(1);
