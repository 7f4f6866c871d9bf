//! SQLite's connections between two uses.
//!
//! sqlx asks a connection for a sign of life when it goes back to its pool. A connection to SQLite
//! is a thread of this process, so the question costs two switches of threads, as much as a short
//! statement, and its answer is known. So SQLite's connections wait here until their next use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::AnyPool;
use sqlx::any::Any;
use sqlx::pool::PoolConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::base::monotonic_now;

/// SQLite's connections between two uses. Cheap to clone; all clones share them.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// As many turns as the pool has connections, so that its own queue is always empty. Callers
    /// get them in the order in which they came.
    turns: Arc<Semaphore>,
    /// How long a caller waits for its turn.
    patience: Duration,
    waiting: Arc<Mutex<Waiting>>,
}

/// Connections without a user, and since when. The one that was used last is at the end, and is used
/// first. So surplus ones grow old.
#[derive(Debug, Default)]
struct Waiting(Vec<(PoolConnection<Any>, Instant)>);

/// A caller's turn, which ends when it is dropped.
pub(super) type Turn = OwnedSemaphorePermit;

impl Kept {
    pub(super) fn of(pool: &AnyPool) -> Self {
        let options = pool.options();
        Self {
            turns: Arc::new(Semaphore::new(options.get_max_connections() as usize)),
            patience: options.get_acquire_timeout(),
            waiting: Arc::default(),
        }
    }

    /// Takes a connection. Waits for one if all are in use.
    ///
    /// # Errors
    ///
    /// Those of [`AnyPool::acquire`].
    pub(super) async fn take(&self, pool: &AnyPool) -> sqlx::Result<(PoolConnection<Any>, Turn)> {
        let turn = tokio::time::timeout(self.patience, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let waiting = self.waiting().0.pop();
        let connection = match waiting {
            Some((connection, _)) => connection,
            None => pool.acquire().await?,
        };
        Ok((connection, turn))
    }

    /// Keeps a connection that is in order for its next user, and ends the turn. Returns the
    /// connection if the pool is being closed.
    pub(super) fn give_back(
        &self,
        connection: PoolConnection<Any>,
        turn: Turn,
    ) -> Option<PoolConnection<Any>> {
        let now = monotonic_now();
        let mut waiting = self.waiting();
        // Asked with the lock held: `close` takes what was kept before.
        if self.turns.is_closed() {
            return Some(connection);
        }
        // Its cache is up to 8 MiB of memory.
        if waiting.0.first().is_some_and(|(_, since)| now.duration_since(*since) > OLD) {
            drop(waiting.0.remove(0).0.detach());
        }
        waiting.0.push((connection, now));
        // Pushed before the turn ends, so that the next caller finds it.
        drop((waiting, turn));
        None
    }

    /// Closes the connections that wait, and lets no more callers in.
    pub(super) async fn close(&self) {
        self.turns.close();
        let waiting = std::mem::take(&mut self.waiting().0);
        for (connection, _) in waiting {
            // The file is in order whether or not SQLite could tidy up behind it.
            let _ = connection.close().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Left to themselves they would go to the pool by a task, and there may be no runtime left.
        for (connection, _) in self.0.drain(..) {
            drop(connection.detach());
        }
    }
}

/// After this time without a use a connection is closed.
const OLD: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use crate::db::testing::Fresh;
    use crate::db::{Error, PoolSize};

    #[tokio::test]
    async fn a_connection_serves_one_user_after_the_other() {
        let fresh = Fresh::sqlite_of(PoolSize { connections: 2, acquire: Duration::from_mins(1) }).await;
        let pool = fresh.db.reader();
        for _ in 0..20 {
            sqlx::query("SELECT 1").fetch_one(pool).await.unwrap();
        }
        assert_eq!(pool.inner.size(), 1, "none of them waited for another");
        let held = [pool.take().await.unwrap(), pool.take().await.unwrap()];
        let mut third = Box::pin(sqlx::query("SELECT 1").fetch_one(pool));
        assert!((&mut third).now_or_never().is_none(), "both are in use");
        drop(held);
        third.await.unwrap();
        assert_eq!(pool.inner.size(), 2);
    }

    #[tokio::test]
    async fn a_closed_database_keeps_no_connection_and_lets_nobody_in() {
        let fresh = Fresh::sqlite().await;
        let pool = fresh.db.reader();
        let in_use = pool.take().await.unwrap();
        sqlx::query("SELECT 1").fetch_one(fresh.db.writer()).await.unwrap();
        let closing = fresh.db.close();
        let using = async {
            tokio::task::yield_now().await;
            drop(in_use);
        };
        tokio::join!(closing, using);
        assert_eq!((pool.inner.size(), fresh.db.writer().inner.size()), (0, 0));
        let refused = sqlx::query("SELECT 1").fetch_one(pool).await.map(drop).unwrap_err();
        assert!(Error::from(refused).is_passing());
    }
}
