//! What ends a server while it runs: a lost file of SQLite, or a schema that excludes this binary.

use std::time::Duration;

use sqlx::{AnyConnection, AssertSqlSafe, Executor as _, Row as _};

use super::error::name_damage;
use super::file::DatabaseFile;
use super::migrate::refuse_newer;
use super::{Db, Error, Result};
use crate::base::monotonic_now;
use crate::telemetry::metrics::{DATABASE_DAMAGED, Metrics};

impl Db {
    /// Waits until the database's file is deleted, replaced or found damaged, and returns that as an
    /// error. Keeps its write-ahead log small meanwhile. On PostgreSQL it waits for ever.
    pub(crate) async fn watch_file(&self, metrics: &Metrics) -> Error {
        let Some(file) = self.write.state.file() else { return std::future::pending().await };
        tokio::select! {
            gone = self.watch_place(file) => gone,
            damaged = self.check_pages(file, metrics) => damaged,
            never = self.keep_log_small(file) => never,
        }
    }

    async fn watch_place(&self, file: &DatabaseFile) -> Error {
        // Other connections come and go. This one keeps the write-ahead log in place.
        let mut anchor = None;
        loop {
            if anchor.is_none() {
                anchor = self.open_reader().await.ok();
                if anchor.is_some() {
                    file.remember_logs();
                }
            }
            if let Some(lost) = file.lost() {
                return Error::Gone(lost.to_owned());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Opens a connection that has read, so that it has opened the write-ahead log.
    async fn open_reader(&self) -> Result<AnyConnection> {
        let mut connection = self.connect_apart().await?;
        self.now_on(&mut connection).await?;
        Ok(connection)
    }

    /// Reads every page once. Returns if a table or an index cannot be read.
    async fn check_pages(&self, file: &DatabaseFile, metrics: &Metrics) -> Error {
        match self.quick_check(file).await {
            Ok(report) if report == "ok" => {}
            // A report alone may be about a page that nothing uses, or one row. Without a backup a
            // server that ended for it could not run again.
            Ok(report) => {
                metrics.gauge(&DATABASE_DAMAGED, &[]).set(1);
                tracing::error!(
                    report,
                    file = %file.path.display(),
                    "the database is damaged; restore it from a backup, or copy it with VACUUM INTO"
                );
                if let Err(Error::Damaged(mut damaged)) = self.read_all(file).await {
                    damaged.report = format!("{}; {report}", damaged.report);
                    return damaged.into();
                }
            }
            Err(damaged @ Error::Damaged(_)) => return damaged,
            Err(cause) => tracing::warn!(
                cause = &cause as &dyn std::error::Error,
                file = %file.path.display(),
                "the database could not be checked for damage"
            ),
        }
        std::future::pending().await
    }

    async fn quick_check(&self, file: &DatabaseFile) -> Result<String> {
        let mut connection = self.connect_apart().await?;
        // One finding is enough.
        let report = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await;
        Ok(report.map_err(|cause| name_damage(cause, &file.path))?)
    }

    /// Reads every table and every index.
    async fn read_all(&self, file: &DatabaseFile) -> Result<()> {
        let mut connection = self.connect_apart().await?;
        let parts = "SELECT type, name, tbl_name FROM sqlite_master WHERE type IN ('table', 'index')";
        let parts = sqlx::query(parts).fetch_all(&mut connection).await;
        for part in parts.map_err(|cause| name_damage(cause, &file.path))? {
            let [kind, name, table] =
                ["type", "name", "tbl_name"].map(|column| part.try_get::<String, _>(column));
            let (name, table) = (quoted(&name?), quoted(&table?));
            let text = if kind? == "table" {
                // It reads no pages that long values overflow to. Each of them belongs to one row, and
                // the others can be read.
                format!("SELECT COUNT(*) AS found FROM {table} NOT INDEXED")
            } else {
                // SQLite refuses this for an index on some of the rows.
                format!("SELECT COUNT(*) AS found FROM {table} INDEXED BY {name}")
            };
            let read = sqlx::query(AssertSqlSafe(text)).fetch_one(&mut connection).await;
            if let Err(damaged @ Error::Damaged(_)) =
                read.map_err(|cause| name_damage(cause, &file.path).into())
            {
                return Err(damaged);
            }
        }
        Ok(())
    }

    async fn keep_log_small(&self, file: &DatabaseFile) -> Error {
        let (mut log, mut looked_at) = (Log::default(), monotonic_now());
        loop {
            tokio::time::sleep(MOVE_EVERY).await;
            let size = file.log_size();
            let done = if size > SMALL_LOG && looked_at.elapsed() >= TRUNCATE_EVERY {
                looked_at = monotonic_now();
                self.move_log(&mut log, size).await
            } else if size > MOVED_LOG {
                self.move_pages(&mut log).await.map(drop)
            } else {
                continue;
            };
            if let Err(cause) = done {
                log = Log::default();
                tracing::warn!(
                    cause = &cause as &dyn std::error::Error,
                    file = %file.path.display(),
                    "the write-ahead log could not be moved into the database"
                );
            }
        }
    }

    /// Moves the write-ahead log into the database. Makes its file empty when little was written
    /// for a while, or when it has become large.
    ///
    /// Otherwise the file is written from its beginning again. A file that grows costs each commit
    /// another write, and a busy server would let it grow all the time.
    async fn move_log(&self, log: &mut Log, size: u64) -> Result<()> {
        log.quiet_looks += 1;
        let mut left = self.move_pages(log).await?;
        if log.quiet_looks < QUIET_LOOKS && size <= LARGE_LOG {
            return Ok(());
        }
        // What is left is moved below, while writers wait.
        for _ in 0..MOST_MOVES {
            if left <= FEW_PAGES {
                break;
            }
            left = self.move_pages(log).await?;
        }
        let Some(on) = &mut log.connection else { return Ok(()) };
        // Keeps writers waiting until the last readers have left the log. It does not wait for them
        // unless the log has become large, and tries again later.
        let patience = if size > LARGE_LOG { "PRAGMA busy_timeout = 500" } else { "PRAGMA busy_timeout = 0" };
        on.execute(patience).await?;
        on.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        Ok(())
    }

    /// Moves the pages of the log into the database, while others read and write. Returns how many are
    /// left, because they were written meanwhile or are being read.
    async fn move_pages(&self, log: &mut Log) -> Result<i64> {
        let on = match &mut log.connection {
            Some(on) => on,
            None => log.connection.insert(self.connect_apart().await?),
        };
        let moved = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut *on).await?;
        let pages: i64 = moved.try_get("log")?;
        // The log is written again from its beginning after all pages were moved. Even a server without
        // requests writes a few pages.
        if pages > FEW_PAGES {
            log.quiet_looks = 0;
        }
        Ok(pages - moved.try_get::<i64, _>("checkpointed")?)
    }
}

/// What [`Db::move_log`] knows of its last look at the write-ahead log.
#[derive(Default)]
struct Log {
    connection: Option<AnyConnection>,
    /// Looks in a row between which little was written.
    quiet_looks: u32,
}

impl Db {
    /// Waits until the schema has a step that excludes this binary, and returns that as an error.
    pub(crate) async fn watch_schema(&self) -> Error {
        loop {
            // A database that does not answer excludes nothing.
            if let Err(newer @ Error::Newer { .. }) = refuse_newer(self.reader()).await {
                return newer;
            }
            tokio::time::sleep(READ_SCHEMA_EVERY).await;
        }
    }
}

/// A name in a statement of SQLite.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

const READ_SCHEMA_EVERY: Duration = Duration::from_secs(4);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A log that grows fast is moved this often. It stays far from the size at which a commit would move
/// it itself, and all other writes would wait for that.
const MOVE_EVERY: Duration = Duration::from_secs(1);
const TRUNCATE_EVERY: Duration = Duration::from_secs(10);
const MOST_MOVES: usize = 4;
/// Bytes. A log of this size is left as it is.
const SMALL_LOG: u64 = 1 << 20;
/// Bytes. A larger log is moved before it is time to truncate it.
const MOVED_LOG: u64 = 4 << 20;
/// Pages of 4 KiB that a server without much to do writes between two looks.
const FEW_PAGES: i64 = 256;
/// Looks after which a server counts as quiet: a minute.
const QUIET_LOOKS: u32 = 6;
/// Bytes. A commit moves a log of this size itself (`wal_autocheckpoint`). It grows past that while
/// there are always readers.
const LARGE_LOG: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;
    use crate::db::testing::Fresh;

    on_each_database!(a_running_process_stops_when_a_step_excludes_it);

    async fn a_running_process_stops_when_a_step_excludes_it(db: Db) {
        let record = async |version: i64, oldest: i64| {
            let text = "INSERT INTO schema_steps (version, name, checksum, oldest_binary, applied_at)
                VALUES ($1, 'later', '', $2, 0)";
            sqlx::query(text).bind(version).bind(oldest).execute(db.writer()).await.unwrap();
        };
        record(99_998, 10).await;
        refuse_newer(db.reader()).await.expect("a step that this binary can live with");
        record(99_999, 99_999).await;
        let stopped = tokio::time::timeout(Duration::from_secs(30), db.watch_schema()).await;
        // The next test may get the same schema.
        sqlx::query("DELETE FROM schema_steps WHERE version > 99000").execute(db.writer()).await.unwrap();
        assert!(matches!(stopped, Ok(Error::Newer { needed: 99_999, .. })), "{stopped:?}");
    }

    #[tokio::test]
    async fn a_finding_in_what_can_be_read_ends_nothing() {
        let fresh = Fresh::sqlite().await;
        let db = &fresh.db;
        let file = db.write.state.file().unwrap();
        for statement in [
            "CREATE TABLE unused (a TEXT)",
            "INSERT INTO unused (a) VALUES (NULL)",
            "PRAGMA writable_schema = ON",
            "UPDATE sqlite_master SET sql = 'CREATE TABLE unused (a TEXT NOT NULL)' WHERE name = 'unused'",
            "PRAGMA writable_schema = RESET",
        ] {
            sqlx::query(statement).execute(db.writer()).await.unwrap();
        }
        assert_ne!(db.quick_check(file).await.unwrap(), "ok");
        db.read_all(file).await.unwrap();
        let metrics = Metrics::default();
        {
            let checking = db.check_pages(file, &metrics);
            tokio::pin!(checking);
            // It has reported as soon as the metric says so, and never returns.
            while !metrics.text().contains("genkan_database_damaged 1") {
                tokio::select! {
                    error = &mut checking => panic!("{error}"),
                    () = tokio::time::sleep(Duration::from_millis(10)) => {}
                }
            }
            let ended = tokio::time::timeout(Duration::from_secs(1), &mut checking).await;
            assert!(ended.is_err(), "it serves all the same");
        }
    }

    /// Moving it means thousands of writes in all parts of the file, and everything else that writes
    /// would wait for them.
    #[tokio::test]
    async fn no_commit_moves_a_log_that_is_not_large() {
        let fresh = Fresh::sqlite().await;
        let db = &fresh.db;
        let file = db.write.state.file().unwrap();
        let size = || std::fs::metadata(&file.path).unwrap().len();
        let before = size();
        let text = "x".repeat(1 << 20);
        for id in 0..24 {
            sqlx::query("INSERT INTO replicas (id, name, started_at, seen_at) VALUES ($1, $2, 0, 0)")
                .bind(id.to_string())
                .bind(&text)
                .execute(db.writer())
                .await
                .unwrap();
        }
        assert!(file.log_size() > 24 << 20, "{}", file.log_size());
        assert_eq!(size(), before);
        let mut log = Log::default();
        assert_eq!(db.move_pages(&mut log).await.unwrap(), 0);
        assert!(size() > 24 << 20);
        // A reader keeps the pages in the log that were written after it began.
        let mut reader = db.connect_apart().await.unwrap();
        for statement in ["BEGIN", "SELECT id FROM replicas"] {
            sqlx::query(statement).execute(&mut reader).await.unwrap();
        }
        sqlx::query("DELETE FROM replicas").execute(db.writer()).await.unwrap();
        assert!(db.move_pages(&mut log).await.unwrap() > 0);
        sqlx::query("COMMIT").execute(&mut reader).await.unwrap();
        assert_eq!(db.move_pages(&mut log).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_log_is_emptied_beside_readers_and_writers() {
        let fresh = Fresh::sqlite().await;
        let db = &fresh.db;
        let file = db.write.state.file().unwrap();
        let text = "x".repeat(1 << 20);
        let write = async |name: &str, text: &str| {
            for id in 0..3 {
                sqlx::query("INSERT INTO replicas (id, name, started_at, seen_at) VALUES ($1, $2, 0, 0)")
                    .bind(format!("{name} {id}"))
                    .bind(text)
                    .execute(db.writer())
                    .await
                    .unwrap();
            }
        };
        write("a", &text).await;
        let size = file.log_size();
        assert!(size > 3 * SMALL_LOG);
        let mut log = Log::default();
        for name in ["b", "c", "d"] {
            db.move_log(&mut log, file.log_size()).await.unwrap();
            write(name, &text).await;
            assert!((size..=size + SMALL_LOG).contains(&file.log_size()), "written again from its beginning");
        }
        db.move_log(&mut log, file.log_size()).await.unwrap();
        assert_eq!(log.quiet_looks, 0);
        for look in 1..QUIET_LOOKS {
            write(&format!("look {look}"), "little").await;
            db.move_log(&mut log, file.log_size()).await.unwrap();
        }
        assert!(file.log_size() >= size);
        // A writer at work is not disturbed.
        let mut tx = db.begin().await.unwrap();
        sqlx::query("DELETE FROM replicas WHERE id = 'b 1'").execute(&mut *tx).await.unwrap();
        db.move_log(&mut log, file.log_size()).await.unwrap();
        tx.commit().await.unwrap();
        db.move_log(&mut log, file.log_size()).await.unwrap();
        assert_eq!(file.log_size(), 0, "little was written for a while");
        let kept: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM replicas WHERE name <> 'little'")
            .fetch_one(db.reader())
            .await
            .unwrap();
        assert_eq!(kept, 11);
        assert_eq!(db.quick_check(file).await.unwrap(), "ok");
    }
}
