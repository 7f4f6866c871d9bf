//! Bringing the schema up to date: forward only, one process at a time, beside running replicas.
//!
//! An [`Upgrade`] has a connection of its own, because a step on a large table takes longer than
//! any statement of a request may. No step waits long for a lock on a table: statements of running
//! replicas would queue behind it. On PostgreSQL an index is built concurrently, outside of a
//! transaction. An interrupted build is dropped and repeated.
//!
//! Each step records the oldest binary that may start and run on a schema with it. An older binary
//! refuses such a schema with [`Error::Newer`]; every other binary ignores steps that it does not
//! know.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::migrate::{Migrate as _, MigrateError};
use sqlx::{Any, AnyConnection, AssertSqlSafe, Connection as _, Executor, Row as _};

use super::dialect::{DatabaseUrl, Dialect};
use super::pooler::refuse_shared_sessions;
use super::steps::{LAST_OF_SQLX, STEPS, Step, newest};
use super::{Error, Result};
use crate::base::{Clock, monotonic_now};

/// The steps that a database lacks, and the connection that applies them.
#[derive(Debug)]
pub(crate) struct Upgrade {
    connection: AnyConnection,
    dialect: Dialect,
    steps: &'static [Step],
}

impl Upgrade {
    /// Returns the upgrade that the database needs, or `None` if its schema has every step.
    ///
    /// # Errors
    ///
    /// [`Error::Newer`] if this binary is too old for the schema, and [`Error::ChangedStep`] if the
    /// schema was made from other texts.
    pub(crate) async fn find(url: &DatabaseUrl) -> Result<Option<Self>> {
        url.check()?;
        Self::find_among(STEPS, url).await
    }

    /// Refuses a schema that needs an upgrade, for a process that has the database open.
    ///
    /// It does not open the file of SQLite by itself: closing it again would end all locks that the
    /// process has on it (fcntl(2)), and another program could take the log away.
    pub(super) async fn require_none(url: &DatabaseUrl) -> Result<()> {
        match Self::find_among(STEPS, url).await? {
            Some(missing) => {
                missing.connection.close().await?;
                Err(Error::Outdated)
            }
            None => Ok(()),
        }
    }

    async fn find_among(steps: &'static [Step], url: &DatabaseUrl) -> Result<Option<Self>> {
        sqlx::any::install_default_drivers();
        let dialect = url.dialect();
        let mut connection = AnyConnection::connect(url.expose()).await?;
        if dialect == Dialect::Postgres {
            refuse_shared_sessions(url, &mut connection).await?;
        }
        dialect.prepare_upgrade(&mut connection).await?;
        let mut found = Self { connection, dialect, steps };
        let applied = found.applied().await?;
        if steps.iter().all(|step| applied.contains(step)) {
            found.connection.close().await?;
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// Applies the steps. Waits for another process that does the same.
    pub(crate) async fn apply(mut self) -> Result<()> {
        self.lock().await?;
        // Again under the lock: another process may have applied steps before it released the lock.
        let applied = self.applied().await?;
        let is_new = applied.is_empty();
        for step in self.steps {
            if !applied.contains(step) {
                self.apply_patiently(step).await?;
                // A new database has only this process, and its operator expects nothing else.
                if !is_new {
                    tracing::info!("the schema has a new step: {} ({})", step.name, step.version);
                }
            }
        }
        // The lock goes with the connection.
        self.connection.close().await?;
        Ok(())
    }

    /// Takes the lock of upgrades of this schema, on PostgreSQL. On SQLite each step takes the write
    /// lock and looks again.
    async fn lock(&mut self) -> Result<()> {
        let Some(statement) = self.dialect.try_lock_upgrades() else { return Ok(()) };
        let mut attempt = 0_u32;
        // Polled, because a session that waits inside of the database would itself be waited for by
        // the concurrent build of an index.
        while !sqlx::query_scalar::<_, bool>(statement).fetch_one(&mut self.connection).await? {
            if attempt.is_multiple_of(120) {
                tracing::info!("another process brings the schema up to date: waiting for it");
            }
            attempt = attempt.wrapping_add(1);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Reads which steps the schema has.
    async fn applied(&mut self) -> Result<Applied> {
        let mut applied = Applied { dialect: self.dialect, by_sqlx: HashMap::new(), by_us: HashMap::new() };
        let mut needed = 0;
        if self.exists("schema_steps").await? {
            let all = sqlx::query("SELECT version, checksum, oldest_binary FROM schema_steps");
            for row in all.fetch_all(&mut self.connection).await? {
                needed = needed.max(row.try_get("oldest_binary")?);
                applied.by_us.insert(row.try_get("version")?, row.try_get("checksum")?);
            }
        }
        if self.exists("_sqlx_migrations").await? {
            let all = sqlx::query("SELECT version, checksum FROM _sqlx_migrations");
            for row in all.fetch_all(&mut self.connection).await? {
                let version: i64 = row.try_get("version")?;
                // Steps of both tables are there for binaries that read only this one.
                if !applied.by_us.contains_key(&version) {
                    needed = needed.max(version);
                }
                applied.by_sqlx.insert(version, row.try_get("checksum")?);
            }
        }
        let known = newest(self.steps);
        // Before the texts are compared: what is wrong with a newer schema is that it is newer.
        if needed > known {
            return Err(Error::Newer { needed, known });
        }
        match self.steps.iter().find(|step| applied.has_other_text(step)) {
            Some(step) => Err(Error::ChangedStep { version: step.version }),
            None => Ok(applied),
        }
    }

    async fn exists(&mut self, table: &str) -> Result<bool> {
        let found =
            sqlx::query(self.dialect.find_table()).bind(table).fetch_optional(&mut self.connection).await?;
        Ok(found.is_some())
    }

    /// Applies a step, and repeats it as long as others hold locks that it needs.
    async fn apply_patiently(&mut self, step: &Step) -> Result<()> {
        let began = monotonic_now();
        let mut pause = FIRST_PAUSE;
        loop {
            let cause = match self.apply_one(step).await {
                Ok(()) => return Ok(()),
                Err(cause) => cause,
            };
            if !is_blocked(&cause) || began.elapsed() >= PATIENCE {
                return Err(failure(step, cause));
            }
            tracing::warn!(
                cause = &cause as &dyn std::error::Error,
                "a step of the schema waits for other transactions: {} ({})",
                step.name,
                step.version
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn apply_one(&mut self, step: &Step) -> sqlx::Result<()> {
        if step.version <= LAST_OF_SQLX {
            self.apply_for_sqlx(step).await
        } else if let (Dialect::Postgres, Some(index)) = (self.dialect, step.index(self.dialect)) {
            self.build_index(step, index).await
        } else {
            self.apply_in_transaction(step).await
        }
    }

    /// Applies a step of those that older binaries look for, under the lock that they take.
    async fn apply_for_sqlx(&mut self, step: &Step) -> sqlx::Result<()> {
        self.connection.lock().await.map_err(cause_of)?;
        let outcome = self.apply_where_sqlx_looks(step).await;
        // Released at once: a binary that waits for it is a session that the build of an index waits
        // for.
        self.connection.unlock().await.map_err(cause_of)?;
        outcome
    }

    async fn apply_where_sqlx_looks(&mut self, step: &Step) -> sqlx::Result<()> {
        self.connection.ensure_migrations_table("_sqlx_migrations").await.map_err(cause_of)?;
        let mut tx = self.connection.begin_with(self.dialect.begin_write()).await?;
        let find = "SELECT version FROM _sqlx_migrations WHERE version = $1";
        if !is_recorded(&mut tx, find, step).await? {
            tx.execute(sqlx::raw_sql(step.text(self.dialect))).await?;
            tx.skip("_sqlx_migrations", &step.for_sqlx(self.dialect)).await.map_err(cause_of)?;
        }
        tx.commit().await
    }

    async fn apply_in_transaction(&mut self, step: &Step) -> sqlx::Result<()> {
        // The record of the first such step needs the table that the step creates.
        let is_first = step.version == LAST_OF_SQLX + 1;
        let mut tx = self.connection.begin_with(self.dialect.begin_write()).await?;
        // On SQLite another process may have applied it, while this one waited for the write lock.
        if is_first || !is_recorded(&mut tx, FIND_STEP, step).await? {
            let text = self.dialect.repeatable(step.statement(self.dialect));
            tx.execute(sqlx::raw_sql(AssertSqlSafe(text))).await?;
            record(&mut tx, self.dialect, step).await?;
        }
        tx.commit().await
    }

    async fn build_index(&mut self, step: &Step, index: &str) -> sqlx::Result<()> {
        // The build waits for the end of transactions that began before it, and blocks none of them.
        self.connection.execute("SET lock_timeout = 0").await?;
        // A build that broke off leaves an index that costs each write and serves no read.
        let is_broken =
            "SELECT 1 AS found FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid";
        if sqlx::query(is_broken).bind(index).fetch_optional(&mut self.connection).await?.is_some() {
            let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {index}");
            self.connection.execute(sqlx::raw_sql(AssertSqlSafe(drop))).await?;
        }
        let text = self.dialect.repeatable(step.statement(self.dialect));
        let built = self.connection.execute(sqlx::raw_sql(AssertSqlSafe(text))).await;
        self.dialect.prepare_upgrade(&mut self.connection).await?;
        built?;
        // Together: a step that only one of the tables has would not be recorded in the other again.
        let mut tx = self.connection.begin_with(self.dialect.begin_write()).await?;
        record(&mut tx, self.dialect, step).await?;
        tx.commit().await
    }
}

/// Refuses a schema with a step that excludes this binary ([`Error::Newer`]).
pub(super) async fn refuse_newer(on: impl Executor<'_, Database = Any>) -> Result<()> {
    let read = sqlx::query_scalar("SELECT MAX(oldest_binary) FROM schema_steps");
    let needed: Option<i64> = read.fetch_one(on).await?;
    let known = newest(STEPS);
    match needed {
        Some(needed) if needed > known => Err(Error::Newer { needed, known }),
        _ => Ok(()),
    }
}

const FIND_STEP: &str = "SELECT version FROM schema_steps WHERE version = $1";

async fn is_recorded(connection: &mut AnyConnection, find: &'static str, step: &Step) -> sqlx::Result<bool> {
    Ok(sqlx::query(find).bind(step.version).fetch_optional(connection).await?.is_some())
}

async fn record(connection: &mut AnyConnection, dialect: Dialect, step: &Step) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO schema_steps (version, name, checksum, oldest_binary, applied_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (version) DO NOTHING",
    )
    .bind(step.version)
    .bind(step.name)
    .bind(step.checksum(dialect))
    .bind(step.oldest_binary)
    .bind(Clock::of_process().now().as_millis())
    .execute(&mut *connection)
    .await?;
    if step.oldest_binary > LAST_OF_SQLX {
        // Binaries that know no later step than that read only this table.
        connection.skip("_sqlx_migrations", &step.for_sqlx(dialect)).await.map_err(cause_of)?;
    }
    Ok(())
}

/// The steps that a schema has, with what it remembers of their texts.
#[derive(Debug)]
struct Applied {
    dialect: Dialect,
    by_sqlx: HashMap<i64, Vec<u8>>,
    by_us: HashMap<i64, String>,
}

impl Applied {
    fn is_empty(&self) -> bool {
        self.by_sqlx.is_empty()
    }

    fn contains(&self, step: &Step) -> bool {
        if step.version <= LAST_OF_SQLX {
            self.by_sqlx.contains_key(&step.version)
        } else {
            self.by_us.contains_key(&step.version)
        }
    }

    fn has_other_text(&self, step: &Step) -> bool {
        if step.version <= LAST_OF_SQLX {
            let found = self.by_sqlx.get(&step.version);
            found.is_some_and(|found| **found != *step.for_sqlx(self.dialect).checksum)
        } else {
            self.by_us.get(&step.version).is_some_and(|found| *found != step.checksum(self.dialect))
        }
    }
}

/// Whether a statement failed only because others were at work. PostgreSQL: lock not available,
/// deadlock, serialization failure. SQLite: busy, locked.
fn is_blocked(cause: &sqlx::Error) -> bool {
    let sqlx::Error::Database(cause) = cause else { return false };
    let code = cause.code().unwrap_or_default();
    ["55P03", "40P01", "40001"].contains(&&*code)
        || (code.len() < 5 && code.parse::<u32>().is_ok_and(|number| matches!(number & 0xff, 5 | 6)))
}

/// The database's own error, which tells whether another try may help.
fn cause_of(error: MigrateError) -> sqlx::Error {
    match error {
        MigrateError::Execute(cause) => cause,
        other => other.into(),
    }
}

fn failure(step: &Step, cause: sqlx::Error) -> Error {
    match Error::from(cause) {
        passing if passing.is_passing() => passing,
        Error::Conflict(cause) | Error::Statement(cause) => {
            Error::Migrate { version: step.version, name: step.name, cause }
        }
        other => other,
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a step is tried again while other transactions hold the locks that it needs.
const PATIENCE: Duration = Duration::from_mins(15);

#[cfg(test)]
mod tests;
