//! The connections to the database.

use std::sync::Arc;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool, Connection as _, Row as _};

use super::changes::Subscribers;
use super::connection::Pool;
use super::dialect::{DatabaseUrl, Dialect};
use super::file::DatabaseFile;
use super::migrate::Upgrade;
use super::write_state::WriteState;
use super::{Error, Result, Tx, write_state};
use crate::base::{Clock, SharedClock, Timestamp, monotonic_now};

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    pub(super) dialect: Dialect,
    pub(super) write: Pool,
    pub(super) read: Pool,
    /// The listeners for changes in this process. Shared by all clones.
    pub(super) subscribers: Arc<Subscribers>,
    /// What this process knows of the database's clock. Shared by all clones.
    pub(super) shared_clock: Arc<SharedClock>,
}

/// The number of connections, and how long a caller waits for one before it gets 503. A write on
/// SQLite waits four times as long, since its writers queue.
#[derive(Clone, Copy, Debug)]
pub struct PoolSize {
    pub connections: u32,
    pub acquire: Duration,
}

/// A busy pool is a shortage, so a caller soon gets 503. SQLite's only writer is a queue: each
/// commit waits for the disk, and all writes wait for the one whose commit does. With the default
/// of 2 s, a write waits 8 s, which is less than the time in which a call ends.
const QUEUE_FACTOR: u32 = 4;

impl Default for PoolSize {
    fn default() -> Self {
        Self { connections: 8, acquire: Duration::from_secs(5) }
    }
}

/// Connects a pool. Waits for a server that is starting, for as long as the operator lets a request
/// wait for a connection.
///
/// # Errors
///
/// The cause of the failure. A pool alone would only report that its time was up.
async fn connect_or_tell(pool: AnyPoolOptions, url: &DatabaseUrl, acquire: Duration) -> Result<AnyPool> {
    let patience = PATIENCE.max(acquire);
    if let Ok(Ok(connected)) = tokio::time::timeout(patience, pool.clone().connect(url.expose())).await {
        return Ok(connected);
    }
    // A single connection reports its cause, such as a wrong password. A pool would report a
    // timeout.
    let alone = AnyConnection::connect(url.expose());
    if let Ok(Err(cause)) = tokio::time::timeout(TELL_WITHIN, alone).await {
        return Err(cause.into());
    }
    // A single connection found no cause either, so the server is probably starting. The pool's own
    // limit ends this wait.
    Ok(pool.connect(url.expose()).await?)
}

/// Together less than the time that a start of the server may take.
const PATIENCE: Duration = Duration::from_secs(3);
const TELL_WITHIN: Duration = Duration::from_secs(1);

impl Db {
    /// Opens the database.
    ///
    /// # Errors
    ///
    /// [`Error::Outdated`] if its schema lacks a step. `Upgrade` applies it, without a limit of time.
    pub async fn open(url: &DatabaseUrl, size: PoolSize) -> Result<Self> {
        let opened = async {
            let db = Self::connect(url, size).await?;
            Upgrade::require_none(url).await?;
            // Everything goes by it from the first moment on.
            db.now().await?;
            Ok::<Self, Error>(db)
        };
        opened.await.map_err(|cause| url.name_file(cause))
    }

    async fn connect(url: &DatabaseUrl, size: PoolSize) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let dialect = url.dialect();
        let pool = |connections: u32, acquire: Duration| {
            AnyPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(acquire)
                .test_before_acquire(dialect.tests_connections())
                .after_connect(move |connection, _| Box::pin(dialect.prepare(connection)))
        };
        // Checked before sqlx opens the file: an error about a wrong file should name it.
        url.check()?;
        // SQLite has one writer at a time. Waiting in the pool's queue is fair, and cheaper than
        // SQLite's busy loop.
        let write = match dialect {
            Dialect::Sqlite => pool(1, size.acquire * QUEUE_FACTOR).connect(url.expose()).await?,
            Dialect::Postgres => {
                connect_or_tell(pool(size.connections, size.acquire), url, size.acquire).await?
            }
        };
        // Readers never block SQLite's writer (WAL mode), and a few are enough for one file.
        // PostgreSQL shares one pool for both.
        let read = match dialect {
            Dialect::Sqlite => pool(size.connections.clamp(1, 4), size.acquire).connect(url.expose()).await?,
            Dialect::Postgres => write.clone(),
        };
        // After the pools, which create a missing file.
        let file = url.file().map(DatabaseFile::opened).transpose()?;
        let state = Arc::new(WriteState::of(file));
        let pool = |inner, is_writer| Pool::new(inner, dialect, Arc::clone(&state), is_writer);
        Ok(Self {
            dialect,
            write: pool(write, true),
            read: pool(read, false),
            subscribers: Arc::default(),
            shared_clock: Arc::default(),
        })
    }

    /// The pool for single `SELECT`s.
    pub(crate) const fn reader(&self) -> &Pool {
        &self.read
    }

    /// The pool for a write of one statement, which is its own transaction.
    pub(crate) const fn writer(&self) -> &Pool {
        &self.write
    }

    /// Begins a write transaction. On SQLite it takes the write lock at once.
    pub(crate) async fn begin(&self) -> Result<Tx> {
        Ok(Tx::new(self.write.begin().await?, Arc::clone(&self.subscribers)))
    }

    /// Opens a connection outside of the pools.
    pub(super) async fn connect_apart(&self) -> Result<AnyConnection> {
        let mut connection = AnyConnection::connect_with(&self.read.inner.connect_options()).await?;
        self.dialect.prepare(&mut connection).await?;
        Ok(connection)
    }

    /// Whether no other process can serve from the database (SQLite).
    pub(crate) const fn is_embedded(&self) -> bool {
        matches!(self.dialect, Dialect::Sqlite)
    }

    /// The database's clock, by which all replicas go. Reading it asks the database nothing.
    pub(crate) fn clock(&self) -> Clock {
        Clock::shared(Arc::clone(&self.shared_clock))
    }

    /// Asks the database for its time, and remembers it for [`clock`](Self::clock).
    pub(super) async fn now(&self) -> Result<Timestamp> {
        self.now_on(self.reader()).await
    }

    pub(super) async fn now_on(
        &self,
        on: impl sqlx::Executor<'_, Database = sqlx::Any>,
    ) -> Result<Timestamp> {
        let asked = monotonic_now();
        let row = sqlx::query(self.dialect.with_clock("SELECT {clock} AS now")).fetch_one(on).await?;
        let time = Timestamp::from_millis(row.try_get("now")?);
        self.shared_clock.measured(asked, time);
        Ok(time)
    }

    /// Returns by how many milliseconds this machine's clock is ahead of the database's, to within
    /// the time that the answer takes.
    pub(crate) async fn clock_offset(&self) -> Result<i64> {
        self.offset_of(&Clock::of_process()).await
    }

    async fn offset_of(&self, clock: &Clock) -> Result<i64> {
        let (asked, before) = (monotonic_now(), clock.now());
        let time = self.now().await?;
        Ok(before.plus(asked.elapsed() / 2).as_millis() - time.as_millis())
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1").fetch_one(self.reader()).await?;
        Ok(())
    }

    /// Whether the last writes reached the disk.
    pub(crate) fn is_writable(&self) -> bool {
        self.write.state.is_writable()
    }

    /// Runs a recurring small write. When it succeeds, the database can write again.
    pub(super) async fn probe_with(&self, write: impl Future<Output = Result<()>>) -> Result<()> {
        let state = &self.write.state;
        let failures = state.failures();
        // Where a larger write found no room, a small one may still find some.
        if !state.is_writable()
            && let Some(file) = state.file()
        {
            write_state::find_room(&file.path).await?;
        }
        write.await?;
        state.settle(failures);
        Ok(())
    }

    pub async fn close(&self) {
        self.write.close().await;
        self.read.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ManualClock;
    use crate::db::on_each_database;
    use crate::db::testing::Fresh;

    on_each_database!(a_process_with_a_wrong_clock_knows_the_time, the_offset_of_a_clock_is_measured);

    async fn a_process_with_a_wrong_clock_knows_the_time(db: Db) {
        // A measurement from before the database's clock was put forward by an hour.
        let before = db.now().await.unwrap();
        let hour = Duration::from_hours(1);
        db.shared_clock.measured(monotonic_now(), before.minus(hour));
        let clock = db.clock();
        let behind = before.since(clock.now());
        assert!(behind > Duration::from_mins(59), "the database decides: {behind:?}");
        db.now().await.unwrap();
        let now = clock.now();
        assert!(now.plus(Duration::from_millis(2)) >= before, "a new answer replaces the old one: {now}");
    }

    async fn the_offset_of_a_clock_is_measured(db: Db) {
        let ahead = ManualClock::at_present();
        ahead.advance(Duration::from_secs(90));
        let offset = db.offset_of(&ahead.clock()).await.unwrap();
        assert!((80_000..100_000).contains(&offset), "{offset}");
    }

    /// A file without its lock looks unused to another program, which then takes its log away.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_open_file_of_sqlite_stays_locked() {
        use std::os::unix::fs::MetadataExt as _;
        let fresh = Fresh::sqlite().await;
        let file = &fresh.db.write.state.file().unwrap().path;
        let (process, inode) =
            (std::process::id().to_string(), std::fs::metadata(file).unwrap().ino().to_string());
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        // `1: POSIX  ADVISORY  READ 4242 fe:00:131071 1073741826 1073742335` (proc_locks(5))
        let is_held = locks.lines().any(|lock| {
            let fields: Vec<_> = lock.split_whitespace().collect();
            matches!(fields[..], [_, "POSIX", _, _, owner, place, ..]
                if owner == process && place.rsplit(':').next() == Some(&*inode))
        });
        assert!(is_held, "{locks}");
    }

    /// The disk stalls in a commit: everything else that writes waits for it.
    #[tokio::test]
    async fn a_write_on_sqlite_waits_longer_for_its_turn_than_a_read() {
        let size = PoolSize { connections: 1, acquire: Duration::from_secs(2) };
        let fresh = Fresh::sqlite_of(size).await;
        let db = &fresh.db;
        let stalled = db.begin().await.unwrap();
        let busy = db.reader().take().await.unwrap();
        let reads = async {
            for _ in 0..2 {
                let refused = Error::from(db.reader().take().await.unwrap_err());
                assert!(refused.is_passing(), "{refused:?}");
            }
            // Two reads gave up, one after the other: the first write has been stalled for 4 s.
            stalled.commit().await.unwrap();
        };
        let (written, ()) = tokio::join!(db.begin(), reads);
        written.unwrap().commit().await.unwrap();
        drop(busy);
    }
}
