//! Version, liveness and readiness.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Json;
use serde::Serialize;
use tokio::time::Instant;

use crate::base::monotonic_now;
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
    /// Since when the pool has not answered.
    silent_since: Mutex<Option<Instant>>,
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
        let answer = tokio::time::timeout(limit, db.ping()).await;
        let silent_for = self.inner.silent_for(matches!(answer, Ok(Ok(()))));
        match answer {
            Ok(Ok(())) => Ok(()),
            // If it does not pass, everything but forwarding fails here, and another process may
            // serve it.
            Err(_) if is_heard && silent_for < BUSY => Ok(()),
            _ => Err("the database does not answer"),
        }
    }
}

impl Inner {
    /// Takes note of whether the pool answered. Returns for how long it has not.
    fn silent_for(&self, has_answered: bool) -> Duration {
        let mut since = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        if has_answered {
            *since = None;
            return Duration::ZERO;
        }
        since.get_or_insert_with(monotonic_now).elapsed()
    }
}

/// How long a ready database may take for an empty query.
const DATABASE_ANSWERS: Duration = Duration::from_secs(1);
/// How long the pool may take for it before it counts as busy. Shorter than load balancers wait.
const POOL_ANSWERS: Duration = Duration::from_millis(300);
/// For how long a pool that does not answer counts as busy.
const BUSY: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(a_pool_is_busy_for_a_while_and_then_dead);

    async fn a_pool_is_busy_for_a_while_and_then_dead(db: Db) {
        let (readiness, feed) = (Readiness::default(), Feed::new(db.clone()));
        assert!(feed.is_fresh(), "for four seconds after its start");
        readiness.open(db.clone(), feed);
        let is_ready = async || readiness.check().await.is_ok();
        assert!(is_ready().await);
        let held = db.hold_readers().await;
        assert!(is_ready().await, "it is busy");
        let long_ago = monotonic_now().checked_sub(BUSY).unwrap();
        *readiness.inner.silent_since.lock().unwrap() = Some(long_ago);
        assert!(!is_ready().await, "it does not pass");
        drop(held);
        while !is_ready().await {
            tokio::task::yield_now().await;
        }
        assert!(readiness.inner.silent_since.lock().unwrap().is_none());
    }
}
