//! Is Genkan there, is it alive, does it want requests.

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

/// `_health`, as hosts and relays ask it.
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

    /// From now on this process wants no more requests.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// `Err` says why not.
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

/// A ready database answers a question about nothing within this.
const DATABASE_ANSWERS: Duration = Duration::from_secs(1);
