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

use sqlx::{AnyConnection, Connection as _, Row as _};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::sweep::{Batch, OldRows, SweepRange};
use super::{Db, Error, Result, Tx};
use crate::base::{Timestamp, monotonic_now, random};

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
///
/// The note carries the time of the database's clock, because every process compares it.
pub(crate) async fn note(tx: &mut Tx, change: Change, subject: &str) -> Result<ChangeId> {
    let id = random::id();
    let insert = "INSERT INTO changes (id, at, kind, subject) VALUES ($1, {clock}, $2, $3)";
    sqlx::query(tx.dialect().with_clock(insert))
        .bind(&id)
        .bind(change.as_str())
        .bind(subject)
        .execute(&mut **tx)
        .await?;
    tx.remember(change, subject);
    Ok(ChangeId(id))
}

/// Returns every committed note of a change of the fleet that was not swept yet, in no order.
pub(crate) async fn noted_of_fleet(db: &Db) -> Result<Vec<ChangeId>> {
    // The kind is part of the text, since an index has the notes of this kind only.
    let rows = sqlx::query("SELECT id FROM changes WHERE kind = 'fleet'").fetch_all(db.reader()).await?;
    rows.iter().map(|row| Ok(ChangeId(row.try_get("id")?))).collect()
}

/// Informs listeners of noted changes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Feed {
    inner: Arc<Inner>,
}

struct Inner {
    db: Db,
    /// What `read_at` counts from.
    origin: Instant,
    /// When the last complete reading began, in milliseconds of the monotonic clock: a correction of
    /// the system's clock makes no cache older or newer than it is.
    read_at: AtomicI64,
}

impl Feed {
    pub(crate) fn new(db: Db) -> Self {
        Self { inner: Arc::new(Inner { db, origin: monotonic_now(), read_at: AtomicI64::new(0) }) }
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
    ///
    /// A busy pool leaves the feed fresh, because the feed reads through a connection of its own.
    pub(crate) fn is_fresh(&self) -> bool {
        self.since_origin(monotonic_now()) - self.inner.read_at.load(Ordering::Relaxed) <= STALE_MILLIS
    }

    /// As if the database had not answered for long.
    #[cfg(test)]
    pub(crate) fn fall_silent(&self) {
        self.inner.read_at.store(-2 * STALE_MILLIS, Ordering::Relaxed);
    }

    fn since_origin(&self, moment: Instant) -> i64 {
        let passed = moment.saturating_duration_since(self.inner.origin);
        i64::try_from(passed.as_millis()).unwrap_or(i64::MAX)
    }

    /// Reads once a second until the process ends. Errors make the feed stale and do not end it.
    pub(crate) async fn follow(self) {
        let mut heard = SeenChanges::default();
        let mut line = None;
        let mut tick = tokio::time::interval(EVERY);
        // After a pause one reading is enough, because it looks back to the one before.
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(cause) = self.read_next(&mut line, &mut heard).await {
                // Its state is in doubt, and its server may be gone.
                line = None;
                tracing::warn!(
                    cause = &cause as &dyn std::error::Error,
                    "the changes feed could not be read"
                );
            }
        }
    }

    async fn read_next(&self, line: &mut Option<Line>, heard: &mut SeenChanges) -> Result<()> {
        let line = match line {
            Some(line) => {
                if let Some(age) = line.renew(&self.inner.db).await {
                    heard.look_back(age);
                }
                line
            }
            None => line.insert(Line::open(&self.inner.db).await?),
        };
        let began = monotonic_now();
        timeout(STALE, self.read(&mut line.on, heard)).await.unwrap_or(Err(Error::BrokenOff))?;
        // The time at which the reading began: it may have missed notes that were committed while it
        // ran.
        self.inner.read_at.store(self.since_origin(began), Ordering::Relaxed);
        Ok(())
    }

    async fn read(&self, on: &mut AnyConnection, heard: &mut SeenChanges) -> Result<()> {
        let db = &self.inner.db;
        let first = match heard.last {
            Some(last) => last,
            None => db.now_on(&mut *on).await?,
        };
        // A note carries the database's time at some moment before its commit. After a slow commit it
        // is older than notes that were already read. So every reading looks back by OVERLAP and
        // skips the ids that it knows.
        let statement = "SELECT '' AS id, {clock} AS at, '' AS kind, '' AS subject \
             UNION ALL SELECT id, at, kind, subject FROM changes WHERE at >= $1";
        let asked = monotonic_now();
        let rows = sqlx::query(db.dialect.with_clock(statement))
            .bind(first.minus(OVERLAP).as_millis())
            .fetch_all(on)
            .await?;
        let mut now = first;
        let mut seen = HashSet::with_capacity(rows.len());
        let mut heard_now = Vec::new();
        for row in rows {
            let (id, kind): (String, String) = (row.try_get("id")?, row.try_get("kind")?);
            if id.is_empty() {
                now = Timestamp::from_millis(row.try_get("at")?);
                continue;
            }
            // The first reading reports what it finds too: caches began to fill before it.
            if !heard.ids.contains(&id)
                && let Some(change) = Change::parse(&kind)
            {
                heard_now.push((change, row.try_get::<String, _>("subject")?));
            }
            // Only ids within this reading's window are kept, so the set stays small.
            seen.insert(id);
        }
        // This keeps the shared clock right at the cost of no question of its own.
        db.shared_clock.measured(asked, now);
        self.report(now.since(first), heard_now);
        // A database that was replaced by another one may have an earlier clock.
        *heard = SeenChanges { last: Some(now), ids: seen };
        Ok(())
    }

    /// Informs the listeners of a reading, and of the time since the one before.
    ///
    /// It is long after this process was suspended, or cut off from the database.
    fn report(&self, since_last: Duration, heard: Vec<(Change, String)>) {
        let subscribers = &self.inner.db.subscribers;
        // Only after a successful reading. Until then the feed is stale, and caches are not trusted
        // in any case.
        if since_last >= SURELY_KEPT {
            tracing::warn!("the changes feed was not read for long: what was in memory is dropped");
            subscribers.tell_of_gap();
        }
        for (change, subject) in heard {
            subscribers.tell(change, &subject);
        }
    }
}

/// The feed's connection. It is not one of the pool, where requests that wait for a lock may use up
/// all connections.
struct Line {
    on: AnyConnection,
    opened_at: Instant,
    renew_at: Instant,
    next: Option<JoinHandle<Result<AnyConnection>>>,
}

impl Line {
    async fn open(db: &Db) -> Result<Self> {
        let now = monotonic_now();
        Ok(Self { on: connect(db).await?, opened_at: now, renew_at: now + RENEW_EVERY, next: None })
    }

    /// Replaces the connection from time to time. Returns how old the one was that it replaced.
    ///
    /// A failover may leave the server running from which others no longer read. A connection that
    /// stays would read there for ever, without an error and without a note. The old one is used until
    /// the new one is open.
    async fn renew(&mut self, db: &Db) -> Option<Duration> {
        let now = monotonic_now();
        match &mut self.next {
            None if now >= self.renew_at && !db.is_embedded() => {
                let db = db.clone();
                self.next = Some(tokio::spawn(async move { connect(&db).await }));
                None
            }
            Some(next) if next.is_finished() => {
                let opened = next.await.unwrap_or(Err(Error::BrokenOff));
                self.next = None;
                self.renew_at = now + if opened.is_ok() { RENEW_EVERY } else { RETRY_EVERY };
                match opened {
                    Ok(on) => {
                        let old = std::mem::replace(&mut self.on, on);
                        tokio::spawn(timeout(CONNECT, old.close()));
                        let age = now.saturating_duration_since(self.opened_at);
                        self.opened_at = now;
                        Some(age)
                    }
                    Err(cause) => {
                        tracing::warn!(
                            cause = &cause as &dyn std::error::Error,
                            "the connection of the changes feed could not be renewed; the old one is used"
                        );
                        None
                    }
                }
            }
            _ => None,
        }
    }
}

async fn connect(db: &Db) -> Result<AnyConnection> {
    let connect = async {
        let mut connection = db.connect_apart().await?;
        // It has the notes later than its primary, or no longer.
        if db.dialect.is_standby(&mut connection).await? {
            return Err(Error::Standby);
        }
        Ok(connection)
    };
    timeout(CONNECT, connect).await.unwrap_or(Err(Error::BrokenOff))
}

impl SeenChanges {
    /// Lets the next reading begin earlier by `time`. It may then tell a note twice.
    fn look_back(&mut self, time: Duration) {
        self.last = self.last.map(|last| last.minus(time));
    }
}

#[derive(Default)]
struct SeenChanges {
    /// The database's time in the last complete reading.
    last: Option<Timestamp>,
    ids: HashSet<String>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}

/// Removes a batch of notes that every process has read.
pub(crate) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows { table: "changes", key: "id", time: "at", only: None };
    old.sweep(db, SweepRange { until: db.now().await?.minus(KEEP), ..range }).await
}

const EVERY: Duration = Duration::from_secs(1);
/// The age from which caches are no longer trusted. Revocations take effect within 5 s.
const STALE: Duration = Duration::from_millis(STALE_MILLIS.cast_unsigned());
const STALE_MILLIS: i64 = 4_000;
/// How old the feed's connection becomes. Notes of this time are read again from the next one.
const RENEW_EVERY: Duration = Duration::from_mins(1);
const RETRY_EVERY: Duration = Duration::from_secs(10);
/// Several round trips, which may be slow.
const CONNECT: Duration = Duration::from_secs(10);
const OVERLAP: Duration = Duration::from_secs(30);
const KEEP: Duration = Duration::from_mins(10);
/// Notes of this age still exist. After a longer pause notes may have been missed, and all caches are
/// emptied.
const SURELY_KEPT: Duration = Duration::from_mins(8);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::db::on_each_database;
    use crate::db::testing::Fresh;

    on_each_database!(
        a_commit_tells_its_own_process_and_a_rollback_tells_nothing,
        each_subscriber_receives_a_note_once,
        notes_from_before_the_first_reading_are_received,
        notes_from_a_pause_in_reading_are_received,
        notes_are_swept_when_old,
        a_used_up_pool_leaves_the_feed_fresh,
        a_step_of_the_shared_clock_changes_no_freshness
    );

    /// A failover that leaves the old server running.
    #[tokio::test]
    #[ignore = "needs GENKAN_TEST_POSTGRES"]
    async fn the_feed_follows_its_database_to_another_server() {
        let (old, new) = (Fresh::postgres().await, Fresh::postgres().await);
        let feed = Feed::new(old.db.clone());
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&heard);
        feed.subscribe(Change::Session, move |subject| sink.lock().unwrap().push(subject.to_owned()));
        let (mut line, mut state) = (None, SeenChanges::default());
        feed.read_next(&mut line, &mut state).await.unwrap();
        // From now on connections lead to the other server.
        let there = new.db.read.inner.connect_options();
        old.db.read.inner.set_connect_options((*there).clone());
        noted_elsewhere(&new.db, Change::Session, "ended there").await;
        pass(&new.db, OVERLAP + Duration::from_secs(15), &mut SeenChanges::default()).await;
        feed.read_next(&mut line, &mut state).await.unwrap();
        assert_eq!(*heard.lock().unwrap(), [""; 0], "the line is not old yet");
        let opened = line.as_mut().unwrap();
        opened.opened_at = opened.opened_at.checked_sub(RENEW_EVERY).unwrap();
        opened.renew_at = opened.renew_at.checked_sub(RENEW_EVERY).unwrap();
        let limit = monotonic_now() + Duration::from_secs(30);
        while heard.lock().unwrap().is_empty() && monotonic_now() < limit {
            feed.read_next(&mut line, &mut state).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(*heard.lock().unwrap(), ["ended there"]);
        assert!(feed.is_fresh());
    }

    /// As if nothing had been noted or read for this long.
    async fn pass(db: &Db, time: Duration, state: &mut SeenChanges) {
        let millis = i64::try_from(time.as_millis()).unwrap();
        sqlx::query("UPDATE changes SET at = at - $1").bind(millis).execute(db.writer()).await.unwrap();
        state.last = state.last.map(|last| last.minus(time));
    }

    async fn noted_elsewhere(db: &Db, change: Change, subject: &str) {
        let mut tx = db.apart().begin().await.unwrap();
        note(&mut tx, change, subject).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A process that was stopped, or cut off from the database, for less and for more time than
    /// notes are kept.
    async fn notes_from_a_pause_in_reading_are_received(db: Db) {
        let feed = Feed::new(db.clone());
        let (heard, gaps): (Arc<Mutex<Vec<String>>>, Arc<AtomicI64>) = Default::default();
        let (sink, count) = (Arc::clone(&heard), Arc::clone(&gaps));
        feed.subscribe(Change::Session, move |subject| sink.lock().unwrap().push(subject.to_owned()));
        feed.subscribe_to_gaps(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let mut line = db.connect_apart().await.unwrap();
        let mut state = SeenChanges::default();
        feed.read(&mut line, &mut state).await.unwrap();
        noted_elsewhere(&db, Change::Session, "ended while it slept").await;
        let last = state.last;
        pass(&db, OVERLAP * 4, &mut state).await;
        // Noted soon after the last reading.
        assert!(state.last < last);
        feed.read(&mut line, &mut state).await.unwrap();
        feed.read(&mut line, &mut state).await.unwrap();
        assert_eq!(*heard.lock().unwrap(), ["ended while it slept"]);
        assert_eq!(gaps.load(Ordering::SeqCst), 0);
        pass(&db, KEEP * 2, &mut state).await;
        feed.read(&mut line, &mut state).await.unwrap();
        feed.read(&mut line, &mut state).await.unwrap();
        assert_eq!(gaps.load(Ordering::SeqCst), 1);
    }

    async fn each_subscriber_receives_a_note_once(db: Db) {
        let feed = Feed::new(db.clone());
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&heard);
        feed.subscribe(Change::Session, move |subject| sink.lock().unwrap().push(subject.to_owned()));

        let mut line = db.connect_apart().await.unwrap();
        let mut state = SeenChanges::default();
        feed.read(&mut line, &mut state).await.unwrap();
        let other_process = db.apart();
        for (change, subject) in [(Change::Session, "s1"), (Change::Account, "did:plc:x")] {
            let mut tx = other_process.begin().await.unwrap();
            note(&mut tx, change, subject).await.unwrap();
            tx.commit().await.unwrap();
        }
        feed.read(&mut line, &mut state).await.unwrap();
        feed.read(&mut line, &mut state).await.unwrap();

        assert_eq!(*heard.lock().unwrap(), ["s1"]);
    }

    /// Caches fill, and the fleet is read, before the feed is read for the first time.
    async fn notes_from_before_the_first_reading_are_received(db: Db) {
        let feed = Feed::new(db.clone());
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&heard);
        feed.subscribe(Change::Fleet, move |subject| sink.lock().unwrap().push(subject.to_owned()));
        let mut tx = db.apart().begin().await.unwrap();
        note(&mut tx, Change::Fleet, "oak").await.unwrap();
        tx.commit().await.unwrap();
        let mut line = db.connect_apart().await.unwrap();
        let mut state = SeenChanges::default();
        feed.read(&mut line, &mut state).await.unwrap();
        feed.read(&mut line, &mut state).await.unwrap();
        assert_eq!(*heard.lock().unwrap(), ["oak"]);
    }

    async fn a_commit_tells_its_own_process_and_a_rollback_tells_nothing(db: Db) {
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&heard);
        let feed = Feed::new(db.clone());
        feed.subscribe(Change::Session, move |subject| sink.lock().unwrap().push(subject.to_owned()));

        let mut tx = db.begin().await.unwrap();
        note(&mut tx, Change::Session, "rolled back").await.unwrap();
        drop(tx);
        let mut tx = db.begin().await.unwrap();
        note(&mut tx, Change::Session, "s1").await.unwrap();
        note(&mut tx, Change::Link, "another kind").await.unwrap();
        assert!(heard.lock().unwrap().is_empty(), "not before the commit");
        tx.commit().await.unwrap();
        assert_eq!(*heard.lock().unwrap(), ["s1"]);
    }

    async fn notes_are_swept_when_old(db: Db) {
        noted_elsewhere(&db, Change::Fleet, "oak").await;
        pass(&db, KEEP * 2, &mut SeenChanges::default()).await;
        noted_elsewhere(&db, Change::Fleet, "elm").await;
        assert_eq!(sweep(&db, db.now().await.unwrap().into()).await.unwrap().removed, 1);
    }

    /// As after a failover to a machine whose clock is an hour off, and back.
    async fn a_step_of_the_shared_clock_changes_no_freshness(db: Db) {
        let feed = Feed::new(db.clone());
        feed.read_next(&mut None, &mut SeenChanges::default()).await.unwrap();
        let (now, hour) = (db.clock().now(), Duration::from_hours(1));
        for time in [now.plus(hour), now, now.minus(hour), now] {
            db.shared_clock.measured(monotonic_now(), time);
            assert!(db.clock().now().as_millis().abs_diff(time.as_millis()) < 60_000, "it is {time}");
            assert!(feed.is_fresh(), "{time}");
        }
        feed.fall_silent();
        for time in [now.minus(hour), now, now.plus(hour)] {
            db.shared_clock.measured(monotonic_now(), time);
            assert!(!feed.is_fresh(), "{time}");
        }
    }

    async fn a_used_up_pool_leaves_the_feed_fresh(db: Db) {
        let feed = Feed::new(db.clone());
        let _held = db.hold_readers().await;
        feed.fall_silent();
        assert!(!feed.is_fresh(), "nothing could be read for long");
        feed.read_next(&mut None, &mut SeenChanges::default()).await.unwrap();
        assert!(feed.is_fresh());
    }
}
