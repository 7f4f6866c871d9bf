//! The processes that serve from this database, and which changes each has in memory.
//!
//! A serving process keeps a row with a heartbeat. Once a change of the fleet is in its memory, it
//! acknowledges the change by id, so that a command can wait until all replicas work with it.
//! Acknowledgements name ids and not times, because a note is older than its commit. Heartbeats are
//! times of the database's clock, so that clocks of processes which differ do not matter.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::any::Any;
use sqlx::{Executor, Row as _};
use tokio::sync::Mutex;

use super::feed::ChangeId;
use super::sweep::Batch;
use super::{Db, Result};
use crate::base::{Clock, Timestamp, monotonic_now, random};

/// This process as one of those that serve. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    db: Db,
    id: Arc<str>,
    name: Arc<str>,
    /// For people.
    started_at: Timestamp,
    /// Locked while the row is written.
    record: Arc<Mutex<Record>>,
    live: LiveReplicas,
}

/// The number of processes that serve from the database, this one included, as the last heartbeat
/// found it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LiveReplicas(Arc<AtomicU32>);

impl LiveReplicas {
    /// This process alone, until a heartbeat finds others.
    pub(crate) fn one() -> Self {
        Self(Arc::new(AtomicU32::new(1)))
    }

    #[cfg(test)]
    pub(crate) fn set(&self, count: u32) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// At least 1. A replica that was killed counts for [`ALIVE`]; if the database does not answer,
    /// the last number stays.
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed).max(1)
    }
}

/// What this process has written about itself.
#[derive(Debug, Default)]
struct Record {
    /// What it has acknowledged and the feed still keeps.
    acknowledged: HashSet<ChangeId>,
    /// It has left: its row must not be written again.
    has_left: bool,
}

impl Replica {
    /// This process, before it has a row. `name` is what operators read about it.
    pub(crate) fn new(db: &Db, clock: &Clock, name: &str) -> Self {
        Self {
            db: db.clone(),
            id: random::id().into(),
            name: name.into(),
            started_at: clock.now(),
            record: Arc::default(),
            live: LiveReplicas::one(),
        }
    }

    /// The number of processes that serve from the database.
    pub(crate) fn live(&self) -> LiveReplicas {
        self.live.clone()
    }

    /// Enters this process as one that serves.
    ///
    /// Read what can be changed after this, not before: a command that does not see the row yet
    /// waits for nothing. On every way out from here, [`leave`](Self::leave).
    pub(crate) async fn register(&self) -> Result<()> {
        if self.db.is_embedded() {
            // Nobody else can serve from it, so every row was left by a process that was killed.
            sqlx::query("DELETE FROM replicas").execute(self.db.writer()).await?;
        }
        let replica = self.clone();
        // A task of its own: a start that is given up drops this future, and `leave` must be able to
        // wait for a write that the database still works on. It has no result only if the runtime
        // ends.
        tokio::spawn(async move { replica.beat().await }).await.unwrap_or(Ok(()))
    }

    /// Says that this process is alive, every few seconds. Finds out by the way whether the database
    /// can write. Never ends; after
    /// [`leave`](Self::leave) it writes nothing.
    ///
    /// Do not abort it before `leave`: the database would go on with a write that `leave` can no
    /// longer wait for.
    pub(crate) async fn keep_alive(self) {
        loop {
            tokio::time::sleep(if self.db.is_writable() { BEAT_EVERY } else { PROBE_EVERY }).await;
            if let Err(cause) = self.db.probe_with(self.beat()).await {
                tracing::warn!(cause = &cause as &dyn std::error::Error, "the heartbeat was not recorded");
            }
        }
    }

    async fn beat(&self) -> Result<()> {
        let record = self.record.lock().await;
        if record.has_left {
            return Ok(());
        }
        let now = self.db.now().await?;
        self.write_row(self.db.writer(), now).await?;
        let row = sqlx::query("SELECT COUNT(*) AS live FROM replicas WHERE seen_at >= $1")
            .bind(now.minus(ALIVE).as_millis())
            .fetch_one(self.db.reader())
            .await?;
        let live = u32::try_from(row.try_get::<i64, _>("live")?).unwrap_or(u32::MAX);
        self.live.0.store(live, Ordering::Relaxed);
        Ok(())
    }

    /// Writes its row. An insert, since others sweep the row of a process that was suspended for long.
    async fn write_row<'e>(&self, on: impl Executor<'e, Database = Any>, now: Timestamp) -> Result<()> {
        sqlx::query(
            "INSERT INTO replicas (id, name, started_at, seen_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at",
        )
        .bind(&*self.id)
        .bind(&*self.name)
        .bind(self.started_at.as_millis())
        .bind(now.as_millis())
        .execute(on)
        .await?;
        Ok(())
    }

    /// Records that this process has read these changes. `changes` is everything that the feed
    /// keeps of their kind.
    pub(crate) async fn acknowledge(&self, changes: Vec<ChangeId>) -> Result<()> {
        let changes: HashSet<ChangeId> = changes.into_iter().collect();
        let mut record = self.record.lock().await;
        let mut new = changes.difference(&record.acknowledged).peekable();
        if new.peek().is_some() && !record.has_left {
            let now = self.db.now().await?;
            let mut tx = self.db.begin().await?;
            for change in new {
                sqlx::query(
                    "INSERT INTO replica_reads (replica_id, change_id, read_at) VALUES ($1, $2, $3) \
                     ON CONFLICT (replica_id, change_id) DO NOTHING",
                )
                .bind(&*self.id)
                .bind(change.as_str())
                .bind(now.as_millis())
                .execute(&mut *tx)
                .await?;
            }
            // A sign of life as well, so a process that was stopped for long counts again at once.
            self.write_row(&mut *tx, now).await?;
            tx.commit().await?;
        }
        // Replaced and not extended, since ids that the feed has swept would pile up. After the
        // commit, so that a failed write is repeated next time.
        record.acknowledged = changes;
        Ok(())
    }

    /// Ends this process's row for good: a heartbeat or an acknowledgement that comes later writes
    /// nothing.
    pub(crate) async fn leave(&self) -> Result<()> {
        // A write under way ends first: it would otherwise write the row again.
        let mut record = self.record.lock().await;
        record.has_left = true;
        sqlx::query("DELETE FROM replicas WHERE id = $1").bind(&*self.id).execute(self.db.writer()).await?;
        Ok(())
    }
}

/// A live replica that has not acknowledged a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) name: String,
    /// How old its last heartbeat is.
    pub(crate) silent_for: Duration,
}

/// Waits until every live replica has acknowledged the change, at most for `limit`.
///
/// Returns those that have not by then, in order of their names. Without a live replica it returns
/// at once.
pub(crate) async fn wait_until_read(db: &Db, change: &ChangeId, limit: Duration) -> Result<Vec<Unread>> {
    let deadline = monotonic_now() + limit;
    loop {
        let late = unread(db, change).await?;
        // The monotonic clock bounds the wait: an adjustment of the wall clock must not end it
        // early.
        if late.is_empty() || monotonic_now() >= deadline {
            return Ok(late);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn unread(db: &Db, change: &ChangeId) -> Result<Vec<Unread>> {
    let now = db.now().await?;
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
                silent_for: now.since(Timestamp::from_millis(row.try_get("seen_at")?)),
            })
        })
        .collect()
}

/// Removes the rows of replicas that were killed, and acknowledgements that no command waits for.
pub(crate) async fn sweep(db: &Db) -> Result<Batch> {
    let now = db.now().await?;
    let mut tx = db.begin().await?;
    let mut removed = 0;
    for statement in
        ["DELETE FROM replicas WHERE seen_at < $1", "DELETE FROM replica_reads WHERE read_at < $1"]
    {
        let done = sqlx::query(statement).bind(now.minus(KEEP).as_millis()).execute(&mut *tx).await?;
        removed += done.rows_affected();
    }
    tx.commit().await?;
    // There are few of these rows, so one batch has them all.
    Ok(Batch { removed, ..Batch::default() })
}

const BEAT_EVERY: Duration = Duration::from_secs(5);
/// While writes fail, so that this process is soon ready again.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// A replica without a heartbeat for this long is dead: three lost beats.
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
        replicas_count_each_other,
        a_swept_replica_that_goes_on_is_counted_again,
        an_acknowledgement_revives_a_swept_replica,
        a_write_under_way_does_not_outlive_its_process,
        clocks_of_processes_do_not_matter,
        old_rows_are_swept
    );

    /// As if nothing had been written for this long.
    async fn pass(db: &Db, time: Duration) {
        for statement in
            ["UPDATE replicas SET seen_at = seen_at - $1", "UPDATE replica_reads SET read_at = read_at - $1"]
        {
            let time = i64::try_from(time.as_millis()).unwrap();
            sqlx::query(statement).bind(time).execute(db.writer()).await.unwrap();
        }
    }

    async fn change(db: &Db) -> ChangeId {
        let mut tx = db.begin().await.unwrap();
        let id = feed::note(&mut tx, Change::Fleet, "oak").await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn late(db: &Db, change: &ChangeId) -> Vec<String> {
        let found = wait_until_read(db, change, Duration::ZERO).await.unwrap();
        found.into_iter().map(|replica| replica.name).collect()
    }

    /// Registered on SQLite, too, where a real second server would end the first one's row.
    async fn beside(db: &Db, name: &str) -> Replica {
        let replica = Replica::new(db, &Clock::of_process(), name);
        replica.beat().await.unwrap();
        replica
    }

    async fn a_change_is_read_when_every_live_replica_says_so(db: Db) {
        let first = change(&db).await;
        assert!(late(&db, &first).await.is_empty(), "no server runs");
        let one = Replica::new(&db, &Clock::of_process(), "one");
        assert!(late(&db, &first).await.is_empty(), "not before it is registered");
        one.register().await.unwrap();
        let two = beside(&db, "two").await;
        let second = change(&db).await;
        assert_eq!(late(&db, &second).await, ["one", "two"]);
        one.acknowledge(feed::noted_of_fleet(&db).await.unwrap()).await.unwrap();
        assert_eq!(late(&db, &second).await, ["two"]);
        assert_eq!(late(&db, &first).await, ["two"]);
        two.acknowledge(vec![first.clone()]).await.unwrap();
        assert_eq!(late(&db, &second).await, ["two"]);
        two.acknowledge(vec![first, second.clone()]).await.unwrap();
        assert_eq!(wait_until_read(&db, &second, Duration::from_mins(1)).await.unwrap(), []);
    }

    async fn a_replica_that_left_or_died_is_not_waited_for(db: Db) {
        let (one, two) = (beside(&db, "one").await, beside(&db, "two").await);
        let made = change(&db).await;
        one.leave().await.unwrap();
        assert_eq!(late(&db, &made).await, ["two"]);
        pass(&db, ALIVE + BEAT_EVERY).await;
        assert!(late(&db, &made).await.is_empty());
        two.beat().await.unwrap();
        assert_eq!(late(&db, &made).await, ["two"]);
        if db.is_embedded() {
            Replica::new(&db, &Clock::of_process(), "three").register().await.unwrap();
            assert_eq!(late(&db, &made).await, ["three"], "the file has one server");
        }
    }

    async fn replicas_count_each_other(db: Db) {
        let one = Replica::new(&db, &Clock::of_process(), "one");
        assert_eq!(one.live().count(), 1, "before its first heartbeat");
        one.register().await.unwrap();
        let (two, live) = (beside(&db, "two").await, one.live());
        assert_eq!((live.count(), two.live().count()), (1, 2));
        one.beat().await.unwrap();
        assert_eq!(live.count(), 2);
        pass(&db, ALIVE + BEAT_EVERY).await;
        one.beat().await.unwrap();
        assert_eq!(live.count(), 1, "the other is dead");
        two.beat().await.unwrap();
        one.beat().await.unwrap();
        two.leave().await.unwrap();
        assert_eq!(live.count(), 2);
        one.beat().await.unwrap();
        assert_eq!(live.count(), 1);
    }

    async fn a_swept_replica_that_goes_on_is_counted_again(db: Db) {
        let one = beside(&db, "one").await;
        pass(&db, HOUR).await;
        assert_eq!(sweep(&db).await.unwrap().removed, 1);
        one.beat().await.unwrap();
        let made = change(&db).await;
        assert_eq!(late(&db, &made).await, ["one"]);
    }

    async fn an_acknowledgement_revives_a_swept_replica(db: Db) {
        let one = beside(&db, "one").await;
        let first = change(&db).await;
        pass(&db, HOUR).await;
        assert_eq!(sweep(&db).await.unwrap().removed, 1);
        one.acknowledge(vec![first.clone()]).await.unwrap();
        let second = change(&db).await;
        assert_eq!(late(&db, &second).await, ["one"]);
        assert!(late(&db, &first).await.is_empty());
    }

    /// A database that takes its time for a heartbeat, while the process that sent it leaves.
    async fn a_write_under_way_does_not_outlive_its_process(db: Db) {
        let one = beside(&db, "one").await;
        if !db.is_embedded() {
            for statement in [
                "CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS \
                 'BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END'",
                "CREATE TRIGGER slow BEFORE INSERT ON replicas FOR EACH ROW EXECUTE FUNCTION take_time()",
            ] {
                sqlx::query(statement).execute(db.writer()).await.unwrap();
            }
        }
        let beating = tokio::spawn({
            let one = one.clone();
            async move { one.beat().await }
        });
        while one.record.try_lock().is_ok() && !beating.is_finished() {
            tokio::task::yield_now().await;
        }
        one.leave().await.unwrap();
        beating.await.unwrap().unwrap();
        if !db.is_embedded() {
            // The schema is lent to the next test.
            for statement in ["DROP TRIGGER slow ON replicas", "DROP FUNCTION take_time()"] {
                sqlx::query(statement).execute(db.writer()).await.unwrap();
            }
        }
        one.beat().await.unwrap();
        one.acknowledge(vec![change(&db).await]).await.unwrap();
        assert!(late(&db, &change(&db).await).await.is_empty());
    }

    async fn clocks_of_processes_do_not_matter(db: Db) {
        for (name, millis) in [("slow", 0), ("fast", i64::MAX / 2)] {
            let clock = ManualClock::at(Timestamp::from_millis(millis)).clock();
            Replica::new(&db, &clock, name).beat().await.unwrap();
        }
        let made = change(&db).await;
        assert_eq!(late(&db, &made).await, ["fast", "slow"]);
        let silent = wait_until_read(&db, &made, Duration::ZERO).await.unwrap();
        assert!(silent.iter().all(|one| one.silent_for < ALIVE), "{silent:?}");
        assert_eq!(sweep(&db).await.unwrap().removed, 0);
        // The database's clock is a clock.
        let apart = Clock::of_process().now().as_millis() - db.now().await.unwrap().as_millis();
        assert!(apart.abs() < 60_000, "{apart}");
    }

    async fn old_rows_are_swept(db: Db) {
        let one = beside(&db, "one").await;
        let made = change(&db).await;
        one.acknowledge(vec![made]).await.unwrap();
        assert_eq!(sweep(&db).await.unwrap().removed, 0);
        pass(&db, HOUR).await;
        assert_eq!(sweep(&db).await.unwrap().removed, 2);
    }

    const HOUR: Duration = Duration::from_hours(1);
}
