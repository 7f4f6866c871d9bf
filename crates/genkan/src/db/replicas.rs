//! The processes that serve from this database, and which changes each has in memory.
//!
//! A serving process keeps a row with a heartbeat. Once a change of the fleet is in its memory, it
//! acknowledges the change by id, so that a command can wait until all replicas work with it.
//! Acknowledgements name ids and not times, because a note carries its writer's clock.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Row as _;

use super::feed::ChangeId;
use super::{Db, Result};
use crate::base::{Clock, Timestamp, monotonic_now, random};

/// This process as one of those that serve. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    db: Db,
    clock: Clock,
    id: Arc<str>,
    name: Arc<str>,
    started_at: Timestamp,
    /// The changes that it has acknowledged and that the feed still keeps.
    acknowledged: Arc<Mutex<HashSet<ChangeId>>>,
}

impl Replica {
    /// Registers this process as one that serves. `name` is what operators see.
    ///
    /// Read whatever can change after this call, not before: a command that does not see the row
    /// yet waits for nothing.
    pub(crate) async fn register(db: &Db, clock: &Clock, name: &str) -> Result<Self> {
        if db.is_embedded() {
            // No other process can serve from it, so every row was left by a process that was
            // killed.
            sqlx::query("DELETE FROM replicas").execute(db.writer()).await?;
        }
        let replica = Self {
            db: db.clone(),
            clock: clock.clone(),
            id: random::id().into(),
            name: name.into(),
            started_at: clock.now(),
            acknowledged: Arc::default(),
        };
        replica.beat().await?;
        Ok(replica)
    }

    /// Records every few seconds that this process is alive, until the future is dropped.
    pub(crate) async fn keep_alive(self) {
        loop {
            tokio::time::sleep(BEAT_EVERY).await;
            if let Err(cause) = self.beat().await {
                tracing::warn!(cause = &cause as &dyn std::error::Error, "the heartbeat was not recorded");
            }
        }
    }

    async fn beat(&self) -> Result<()> {
        // An insert, because others sweep the row of a process that was suspended for long.
        sqlx::query(
            "INSERT INTO replicas (id, name, started_at, seen_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at",
        )
        .bind(&*self.id)
        .bind(&*self.name)
        .bind(self.started_at.as_millis())
        .bind(self.clock.now().as_millis())
        .execute(self.db.writer())
        .await?;
        Ok(())
    }

    /// Records that this process has read these changes. `changes` is everything that the feed
    /// keeps of their kind.
    pub(crate) async fn acknowledge(&self, changes: Vec<ChangeId>) -> Result<()> {
        let changes: HashSet<ChangeId> = changes.into_iter().collect();
        let known = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut new = changes.difference(&known).peekable();
        if new.peek().is_some() {
            let mut tx = self.db.begin().await?;
            for change in new {
                sqlx::query(
                    "INSERT INTO replica_reads (replica_id, change_id, read_at) VALUES ($1, $2, $3) \
                     ON CONFLICT (replica_id, change_id) DO NOTHING",
                )
                .bind(&*self.id)
                .bind(change.as_str())
                .bind(self.clock.now().as_millis())
                .execute(&mut *tx)
                .await?;
            }
            // A sign of life as well, so a process that was stopped for long counts again at once.
            sqlx::query("UPDATE replicas SET seen_at = $2 WHERE id = $1")
                .bind(&*self.id)
                .bind(self.clock.now().as_millis())
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
        }
        // Replaced and not extended, because ids that the feed has swept would accumulate. After
        // the commit, so that a failed write is repeated next time.
        *self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner) = changes;
        Ok(())
    }

    /// Removes this process's row. End [`Replica::keep_alive`] first, which would write the row
    /// again.
    pub(crate) async fn leave(&self) -> Result<()> {
        sqlx::query("DELETE FROM replicas WHERE id = $1").bind(&*self.id).execute(self.db.writer()).await?;
        Ok(())
    }
}

/// A live replica that has not acknowledged a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) name: String,
    pub(crate) seen_at: Timestamp,
}

/// Waits until every live replica has acknowledged the change, at most for `limit`.
///
/// Returns the replicas that have not, in the order of their names. Without a live replica it
/// returns at once.
pub(crate) async fn wait_until_read(
    db: &Db,
    clock: &Clock,
    change: &ChangeId,
    limit: Duration,
) -> Result<Vec<Unread>> {
    let deadline = monotonic_now() + limit;
    loop {
        let late = unread(db, clock.now(), change).await?;
        // The monotonic clock bounds the wait: an adjustment of the wall clock must not end it
        // early.
        if late.is_empty() || monotonic_now() >= deadline {
            return Ok(late);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn unread(db: &Db, now: Timestamp, change: &ChangeId) -> Result<Vec<Unread>> {
    let rows = sqlx::query(
        "SELECT name, seen_at FROM replicas WHERE seen_at >= $1 \
         AND id NOT IN (SELECT replica_id FROM replica_reads WHERE change_id = $2) ORDER BY name",
    )
    .bind(now.minus(ALIVE).as_millis())
    .bind(change.as_str())
    .fetch_all(db.reader())
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Unread {
                name: row.try_get("name")?,
                seen_at: Timestamp::from_millis(row.try_get("seen_at")?),
            })
        })
        .collect()
}

/// Removes the rows of replicas that were killed, and acknowledgements that no command waits for.
pub(crate) async fn sweep(db: &Db, now: Timestamp) -> Result<u64> {
    let mut tx = db.begin().await?;
    let mut removed = 0;
    for statement in
        ["DELETE FROM replicas WHERE seen_at < $1", "DELETE FROM replica_reads WHERE read_at < $1"]
    {
        let done = sqlx::query(statement).bind(now.minus(KEEP).as_millis()).execute(&mut *tx).await?;
        removed += done.rows_affected();
    }
    tx.commit().await?;
    Ok(removed)
}

const BEAT_EVERY: Duration = Duration::from_secs(5);
/// A replica without a heartbeat for this long is dead. That allows for three lost heartbeats and
/// for clocks that differ a little.
const ALIVE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longer than the feed keeps its notes, so that no note is acknowledged twice.
const KEEP: Duration = Duration::from_mins(15);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ManualClock;
    use crate::db::feed::{self, Change};
    use crate::db::on_each_database;

    on_each_database!(
        a_change_is_read_when_every_live_replica_says_so,
        a_replica_that_left_or_died_is_not_waited_for,
        a_swept_replica_that_goes_on_is_counted_again,
        old_rows_are_swept
    );

    fn clock_at(seconds: i64) -> (Clock, ManualClock) {
        let time = ManualClock::at(Timestamp::from_seconds(seconds));
        (time.clock(), time)
    }

    async fn change(db: &Db, clock: &Clock) -> ChangeId {
        let mut tx = db.begin().await.unwrap();
        let id = feed::note(&mut tx, clock.now(), Change::Fleet, "oak").await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn late(db: &Db, clock: &Clock, change: &ChangeId) -> Vec<String> {
        let found = wait_until_read(db, clock, change, Duration::ZERO).await.unwrap();
        found.into_iter().map(|replica| replica.name).collect()
    }

    /// Registered on SQLite, too, where a real second server would end the first one's row.
    async fn beside(db: &Db, clock: &Clock, name: &str) -> Replica {
        let replica = Replica {
            db: db.clone(),
            clock: clock.clone(),
            id: random::id().into(),
            name: name.into(),
            started_at: clock.now(),
            acknowledged: Arc::default(),
        };
        replica.beat().await.unwrap();
        replica
    }

    async fn a_change_is_read_when_every_live_replica_says_so(db: Db) {
        let (clock, _) = clock_at(1000);
        let first = change(&db, &clock).await;
        assert!(late(&db, &clock, &first).await.is_empty(), "no server runs");
        let one = Replica::register(&db, &clock, "one").await.unwrap();
        let two = beside(&db, &clock, "two").await;
        let second = change(&db, &clock).await;
        assert_eq!(late(&db, &clock, &second).await, ["one", "two"]);
        one.acknowledge(feed::noted(&db, Change::Fleet).await.unwrap()).await.unwrap();
        assert_eq!(late(&db, &clock, &second).await, ["two"]);
        assert_eq!(late(&db, &clock, &first).await, ["two"]);
        two.acknowledge(vec![first.clone()]).await.unwrap();
        assert_eq!(late(&db, &clock, &second).await, ["two"]);
        two.acknowledge(vec![first, second.clone()]).await.unwrap();
        let waited = wait_until_read(&db, &clock, &second, Duration::from_mins(1)).await.unwrap();
        assert_eq!(waited, []);
    }

    async fn a_replica_that_left_or_died_is_not_waited_for(db: Db) {
        let (clock, time) = clock_at(1000);
        let (one, two) = (beside(&db, &clock, "one").await, beside(&db, &clock, "two").await);
        let made = change(&db, &clock).await;
        one.leave().await.unwrap();
        assert_eq!(late(&db, &clock, &made).await, ["two"]);
        time.advance(ALIVE + Duration::from_millis(1));
        assert!(late(&db, &clock, &made).await.is_empty());
        two.beat().await.unwrap();
        assert_eq!(late(&db, &clock, &made).await, ["two"]);
        if db.is_embedded() {
            Replica::register(&db, &clock, "three").await.unwrap();
            assert_eq!(late(&db, &clock, &made).await, ["three"], "the file has one server");
        }
    }

    async fn a_swept_replica_that_goes_on_is_counted_again(db: Db) {
        let (clock, time) = clock_at(1000);
        let one = beside(&db, &clock, "one").await;
        time.advance(Duration::from_hours(1));
        assert_eq!(sweep(&db, clock.now()).await.unwrap(), 1);
        one.beat().await.unwrap();
        let made = change(&db, &clock).await;
        assert_eq!(late(&db, &clock, &made).await, ["one"]);
    }

    async fn old_rows_are_swept(db: Db) {
        let (clock, time) = clock_at(1000);
        let one = beside(&db, &clock, "one").await;
        let made = change(&db, &clock).await;
        one.acknowledge(vec![made]).await.unwrap();
        assert_eq!(sweep(&db, clock.now()).await.unwrap(), 0);
        time.advance(Duration::from_hours(1));
        assert_eq!(sweep(&db, clock.now()).await.unwrap(), 2);
    }
}
