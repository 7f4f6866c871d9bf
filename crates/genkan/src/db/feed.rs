//! The changes feed: how every process hears of a revocation within seconds.
//!
//! A transaction that changes something which a process may have in memory notes the change with
//! [`note`]. The commit informs the process that made the change. Every serving process reads the
//! notes once a second and informs its listeners. A process therefore learns of its own changes
//! twice, and listeners must allow for that.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::Row as _;

use super::{Db, Result, Tx};
use crate::base::{Clock, Timestamp, random};

pub(crate) use super::changes::Change;

/// The id of one note.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChangeId(String);

impl ChangeId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Notes a change as part of `tx`. The commit informs this process, and the row informs the others.
pub(crate) async fn note(tx: &mut Tx, now: Timestamp, change: Change, subject: &str) -> Result<ChangeId> {
    let id = random::id();
    sqlx::query("INSERT INTO changes (id, at, kind, subject) VALUES ($1, $2, $3, $4)")
        .bind(&id)
        .bind(now.as_millis())
        .bind(change.as_str())
        .bind(subject)
        .execute(&mut **tx)
        .await?;
    tx.remember(change, subject);
    Ok(ChangeId(id))
}

/// Returns every committed note of this `change` that was not swept yet, in no order.
pub(crate) async fn noted(db: &Db, change: Change) -> Result<Vec<ChangeId>> {
    let rows = sqlx::query("SELECT id FROM changes WHERE kind = $1")
        .bind(change.as_str())
        .fetch_all(db.reader())
        .await?;
    rows.iter().map(|row| Ok(ChangeId(row.try_get("id")?))).collect()
}

/// Informs listeners of noted changes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Feed {
    inner: Arc<Inner>,
}

struct Inner {
    db: Db,
    clock: Clock,
    /// When the last complete reading began, in milliseconds.
    read_at: AtomicI64,
}

impl Feed {
    pub(crate) fn new(db: Db, clock: Clock) -> Self {
        let read_at = AtomicI64::new(clock.now().as_millis());
        Self { inner: Arc::new(Inner { db, clock, read_at }) }
    }

    /// Calls `listener` with the subject of each `change`. It must be quick: it runs while the feed
    /// is read, and in the task that commits.
    pub(crate) fn subscribe(&self, change: Change, listener: impl Fn(&str) + Send + Sync + 'static) {
        self.inner.db.subscribers.add(change, Box::new(listener));
    }

    /// Calls `listener` when notes may have been missed for good, so that anything in memory may be
    /// wrong.
    pub(crate) fn subscribe_to_gaps(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.inner.db.subscribers.add_for_gaps(Box::new(listener));
    }

    /// Informs this process only, as a commit does.
    #[cfg(test)]
    pub(crate) fn tell(&self, change: Change, subject: &str) {
        self.inner.db.subscribers.tell(change, subject);
    }

    /// Whether caches may be trusted: the last reading is no older than [`STALE`].
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        now.since(Timestamp::from_millis(self.inner.read_at.load(Ordering::Relaxed))) <= STALE
    }

    /// Reads once a second until the process ends. Errors make the feed stale and do not end it.
    pub(crate) async fn follow(self) {
        let mut heard = SeenChanges::default();
        let mut tick = tokio::time::interval(EVERY);
        // After a pause one reading is enough, because it looks back to the one before.
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = self.inner.clock.now();
            match tokio::time::timeout(STALE, self.read(now, &mut heard)).await {
                // The time at which the reading began: it may have missed notes that were committed
                // while it ran.
                Ok(Ok(())) => self.inner.read_at.store(now.as_millis(), Ordering::Relaxed),
                Ok(Err(cause)) => tracing::warn!(
                    cause = &cause as &dyn std::error::Error,
                    "the changes feed could not be read"
                ),
                Err(_) => tracing::warn!("the changes feed could not be read in time"),
            }
        }
    }

    async fn read(&self, now: Timestamp, heard: &mut SeenChanges) -> Result<()> {
        // This process may have been suspended or cut off from the database since the last reading.
        let last = heard.last.unwrap_or(now).min(now);
        let has_gap = now.since(last) >= SURELY_KEPT;
        // A note carries its writer's clock at some time before the commit. After a slow commit, or
        // with a slow clock, it is older than notes that were already read. So every reading looks
        // back by OVERLAP and skips the ids that it knows.
        let from = last.minus(OVERLAP);
        let rows = sqlx::query("SELECT id, at, kind, subject FROM changes WHERE at >= $1")
            .bind(from.as_millis())
            .fetch_all(self.inner.db.reader())
            .await?;
        // Only after a successful reading. Until then the feed is stale, and caches are not trusted
        // in any case.
        if has_gap {
            tracing::warn!("the changes feed was not read for long: what was in memory is dropped");
            self.inner.db.subscribers.tell_of_gap();
        }
        let mut seen = HashSet::with_capacity(rows.len());
        for row in rows {
            let id: String = row.try_get("id")?;
            // The first reading reports what it finds too: caches began to fill before it.
            if !heard.ids.contains(&id)
                && let Some(change) = Change::parse(row.try_get("kind")?)
            {
                self.inner.db.subscribers.tell(change, row.try_get("subject")?);
            }
            // Only ids within this reading's window are kept, so the set stays small.
            seen.insert(id);
        }
        *heard = SeenChanges { last: Some(now), ids: seen };
        Ok(())
    }
}

#[derive(Default)]
struct SeenChanges {
    /// When the last complete reading began.
    last: Option<Timestamp>,
    ids: HashSet<String>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}

/// Removes notes that every process has read.
pub(crate) async fn sweep(db: &Db, now: Timestamp) -> Result<u64> {
    let mut tx = db.begin().await?;
    let done = sqlx::query("DELETE FROM changes WHERE at < $1")
        .bind(now.minus(KEEP).as_millis())
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(done.rows_affected())
}

const EVERY: Duration = Duration::from_secs(1);
/// The age from which caches are no longer trusted. Revocations take effect within 5 s.
const STALE: Duration = Duration::from_secs(4);
const OVERLAP: Duration = Duration::from_secs(30);
const KEEP: Duration = Duration::from_mins(10);
/// Notes of this age still exist, even if the sweeping process has a fast clock. After a longer
/// pause notes may have been missed, and all caches are emptied.
const SURELY_KEPT: Duration = Duration::from_mins(8);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::base::ManualClock;
    use crate::db::on_each_database;

    on_each_database!(
        a_commit_tells_its_own_process_and_a_rollback_tells_nothing,
        each_subscriber_receives_a_note_once,
        notes_from_before_the_first_reading_are_received,
        notes_from_a_pause_in_reading_are_received,
        notes_are_swept_when_old
    );

    /// A process that was stopped, or cut off from the database, for less and for more time than
    /// notes are kept.
    async fn notes_from_a_pause_in_reading_are_received(db: Db) {
        let start = Timestamp::from_millis(100_000_000);
        let feed = Feed::new(db.clone(), ManualClock::at(start).clock());
        let (heard, gaps): (Arc<Mutex<Vec<String>>>, Arc<AtomicI64>) = Default::default();
        let (sink, count) = (Arc::clone(&heard), Arc::clone(&gaps));
        feed.subscribe(Change::Session, move |subject| sink.lock().unwrap().push(subject.to_owned()));
        feed.subscribe_to_gaps(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let mut state = SeenChanges::default();
        feed.read(start, &mut state).await.unwrap();
        let other_process = db.apart();
        let noted = async |at: Timestamp, subject: &str| {
            let mut tx = other_process.begin().await.unwrap();
            note(&mut tx, at, Change::Session, subject).await.unwrap();
            tx.commit().await.unwrap();
        };
        noted(start.plus(EVERY), "ended while it slept").await;
        feed.read(start.plus(OVERLAP * 4), &mut state).await.unwrap();
        feed.read(start.plus(OVERLAP * 4), &mut state).await.unwrap();
        assert_eq!(*heard.lock().unwrap(), ["ended while it slept"]);
        assert_eq!(gaps.load(Ordering::SeqCst), 0);
        feed.read(start.plus(KEEP * 2), &mut state).await.unwrap();
        feed.read(start.plus(KEEP * 2), &mut state).await.unwrap();
        assert_eq!(gaps.load(Ordering::SeqCst), 1);
    }

    async fn each_subscriber_receives_a_note_once(db: Db) {
        let now = Timestamp::from_millis(1_000_000);
        let feed = Feed::new(db.clone(), ManualClock::at(now).clock());
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&heard);
        feed.subscribe(Change::Session, move |subject| sink.lock().unwrap().push(subject.to_owned()));

        let mut state = SeenChanges::default();
        feed.read(now, &mut state).await.unwrap();
        let other_process = db.apart();
        for (change, subject) in [(Change::Session, "s1"), (Change::Account, "did:plc:x")] {
            let mut tx = other_process.begin().await.unwrap();
            note(&mut tx, now, change, subject).await.unwrap();
            tx.commit().await.unwrap();
        }
        feed.read(now, &mut state).await.unwrap();
        feed.read(now, &mut state).await.unwrap();

        assert_eq!(*heard.lock().unwrap(), ["s1"]);
        assert!(feed.is_fresh(now) && !feed.is_fresh(now.plus(STALE * 2)));
    }

    /// Caches fill, and the fleet is read, before the feed is read for the first time.
    async fn notes_from_before_the_first_reading_are_received(db: Db) {
        let now = Timestamp::from_millis(1_000_000);
        let feed = Feed::new(db.clone(), ManualClock::at(now).clock());
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&heard);
        feed.subscribe(Change::Fleet, move |subject| sink.lock().unwrap().push(subject.to_owned()));
        let mut tx = db.apart().begin().await.unwrap();
        note(&mut tx, now, Change::Fleet, "oak").await.unwrap();
        tx.commit().await.unwrap();
        let mut state = SeenChanges::default();
        feed.read(now, &mut state).await.unwrap();
        feed.read(now, &mut state).await.unwrap();
        assert_eq!(*heard.lock().unwrap(), ["oak"]);
    }

    async fn a_commit_tells_its_own_process_and_a_rollback_tells_nothing(db: Db) {
        let now = Timestamp::from_millis(1_000_000);
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&heard);
        let feed = Feed::new(db.clone(), Clock::System);
        feed.subscribe(Change::Session, move |subject| sink.lock().unwrap().push(subject.to_owned()));

        let mut tx = db.begin().await.unwrap();
        note(&mut tx, now, Change::Session, "rolled back").await.unwrap();
        drop(tx);
        let mut tx = db.begin().await.unwrap();
        note(&mut tx, now, Change::Session, "s1").await.unwrap();
        note(&mut tx, now, Change::Link, "another kind").await.unwrap();
        assert!(heard.lock().unwrap().is_empty(), "not before the commit");
        tx.commit().await.unwrap();
        assert_eq!(*heard.lock().unwrap(), ["s1"]);
    }

    async fn notes_are_swept_when_old(db: Db) {
        let now = Timestamp::from_millis(10_000_000);
        let mut tx = db.begin().await.unwrap();
        note(&mut tx, now.minus(KEEP * 2), Change::Fleet, "oak").await.unwrap();
        note(&mut tx, now, Change::Fleet, "elm").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(sweep(&db, now).await.unwrap(), 1);
    }
}
