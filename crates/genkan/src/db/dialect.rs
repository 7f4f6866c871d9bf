//! What differs between SQLite and PostgreSQL.

use std::path::Path;
use std::time::Duration;

use sqlx::AnyConnection;
use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _, SqlStr};

use super::error::name_damage;
use super::{Error, Result};
use crate::base::Secret;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    pub(super) fn begin_write(self) -> SqlStr {
        match self {
            // Takes the write lock now. A deferred transaction that has read can fail with
            // SQLITE_BUSY at its first write, and `busy_timeout` does not help there.
            Self::Sqlite => "BEGIN IMMEDIATE".into_sql_str(),
            Self::Postgres => "BEGIN".into_sql_str(),
        }
    }

    /// An embedded database does not go away between two uses of a connection.
    pub(super) const fn tests_connections(self) -> bool {
        matches!(self, Self::Postgres)
    }

    /// Whether a connection needs no look between two uses.
    pub(super) const fn keeps_connections(self) -> bool {
        matches!(self, Self::Sqlite)
    }

    /// How long a statement may take, answer included, before its connection is given up. Longer
    /// than the `statement_timeout`, which a server that can be reached keeps.
    ///
    /// SQLite has no one that could be out of reach, and its statements cannot be given up.
    pub(super) const fn statement_limit(self) -> Option<Duration> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(Duration::from_secs(12)),
        }
    }

    /// How long a connection may take to be ready for its next user.
    pub(super) const fn return_limit(self) -> Option<Duration> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(Duration::from_secs(5)),
        }
    }

    /// The expression of the database's own clock, in milliseconds since the epoch.
    pub(super) const fn clock(self) -> &'static str {
        match self {
            // Julian days; 2440587.5 is the epoch.
            Self::Sqlite => "CAST((julianday('now') - 2440587.5) * 86400000 AS BIGINT)",
            // Not `now()`, which stands still in a transaction.
            Self::Postgres => "CAST(date_part('epoch', clock_timestamp()) * 1000 AS BIGINT)",
        }
    }

    /// A statement with the expression of the database's own clock in the place of `{clock}`.
    pub(super) fn with_clock(self, statement: &str) -> SqlStr {
        AssertSqlSafe(statement.replace("{clock}", self.clock())).into_sql_str()
    }

    /// The statement that holds a name, `$1`, until the transaction ends. On SQLite, with one writer
    /// at a time, every name is held already.
    pub(super) const fn lock_name(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"),
        }
    }

    /// The query that returns a row if a table, `$1`, exists.
    pub(super) const fn find_table(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT 1 AS found FROM sqlite_master WHERE type = 'table' AND name = $1",
            Self::Postgres => "SELECT 1 AS found WHERE to_regclass($1) IS NOT NULL",
        }
    }

    /// The query that takes the lock of upgrades of this schema for the session, or returns `false`.
    pub(super) const fn try_lock_upgrades(self) -> Option<&'static str> {
        match self {
            // Each step takes the only write lock.
            Self::Sqlite => None,
            // The lock is the whole database's, and its schemas are upgraded each by itself.
            Self::Postgres => {
                Some("SELECT pg_try_advisory_lock(hashtextextended('upgrade of ' || current_schema(), 0))")
            }
        }
    }

    /// A statement of an upgrade in the form that can be repeated after a lost answer, and that
    /// blocks no writes.
    pub(super) fn repeatable(self, statement: &str) -> String {
        match self {
            // SQLite has no such forms, and needs none: every step is a transaction.
            Self::Sqlite => statement.to_owned(),
            // Dropping an index takes a moment, for which the table is locked.
            Self::Postgres if statement.starts_with("DROP INDEX IF EXISTS ") => statement.to_owned(),
            Self::Postgres => statement
                .replacen(" INDEX ", " INDEX CONCURRENTLY IF NOT EXISTS ", 1)
                .replacen(" ADD COLUMN ", " ADD COLUMN IF NOT EXISTS ", 1),
        }
    }

    /// Settings of a connection for upgrades.
    pub(super) async fn prepare_upgrade(self, connection: &mut AnyConnection) -> sqlx::Result<()> {
        match self {
            Self::Sqlite => {
                self.prepare(connection).await?;
                // The first start of another process, or its upgrade, is waited for.
                connection.execute("PRAGMA busy_timeout = 60000").await?;
            }
            // A step on a large table takes its time. What waits for a lock on a table makes all
            // later statements on the table wait behind it, so it must not wait long.
            Self::Postgres => {
                connection.execute("SET statement_timeout = 0; SET lock_timeout = '1s'").await?;
                set_where_known(connection, SESSION).await?;
                set_where_known(connection, UPGRADE).await?;
            }
        }
        Ok(())
    }

    /// Whether the server copies another one, whose changes it has later.
    pub(super) async fn is_standby(self, connection: &mut AnyConnection) -> sqlx::Result<bool> {
        match self {
            Self::Sqlite => Ok(false),
            Self::Postgres => {
                let asked =
                    "SELECT CASE WHEN pg_is_in_recovery() THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END";
                match sqlx::query_scalar::<_, i64>(asked).fetch_one(connection).await {
                    // A server that speaks PostgreSQL's protocol may have no such function.
                    Err(sqlx::Error::Database(_)) => Ok(false),
                    answer => Ok(answer? == 1),
                }
            }
        }
    }

    pub(super) async fn prepare(self, connection: &mut AnyConnection) -> sqlx::Result<()> {
        match self {
            // FULL: an answer 200 means that the write survives a power cut.
            // A server moves the log in the background (`watch`). A commit moves it only when it has
            // 64 MiB, because all other writes wait for the commit.
            Self::Sqlite => {
                connection
                    .execute(
                        "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                         PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 16000;",
                    )
                    .await?;
            }
            // The pool has few connections. A statement that hangs must not keep one of them.
            Self::Postgres => {
                connection.execute("SET statement_timeout = '10s'").await?;
                set_where_known(connection, SESSION).await?;
            }
        }
        Ok(())
    }
}

/// Lets the server notice within half a minute that this machine is gone, and release what its
/// session holds. A setting that a server or its platform does not know is left out.
async fn set_where_known(
    connection: &mut AnyConnection,
    settings: &'static [&'static str],
) -> sqlx::Result<()> {
    // One round trip. The server applies all of them, or none.
    let all = settings.join("; ");
    match connection.execute(AssertSqlSafe(all)).await {
        Err(sqlx::Error::Database(_)) => {}
        outcome => return outcome.map(drop),
    }
    for one in settings {
        match connection.execute(*one).await {
            Err(sqlx::Error::Database(_)) => {}
            outcome => {
                outcome?;
            }
        }
    }
    Ok(())
}

/// Nothing but the database is awaited in a transaction, so a session that is idle in one for this
/// long has lost its process. The others end a connection whose machine is silent, also while a
/// statement runs.
const SESSION: &[&str] = &[
    "SET idle_in_transaction_session_timeout = '10s'",
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
    "SET tcp_user_timeout = '20s'",
    "SET client_connection_check_interval = '5s'",
];

/// The session of an upgrade holds the lock that other upgrades wait for. It pauses for 10 s at most
/// (`migrate`), so one that is idle for longer has lost its process.
const UPGRADE: &[&str] = &["SET idle_session_timeout = '30s'"];

/// Where the database is. May hold a password, so it prints as `[sealed]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseUrl {
    url: Secret<String>,
    file: Option<std::path::PathBuf>,
}

impl DatabaseUrl {
    /// A SQLite file. It is made when it is missing, and only then.
    pub fn sqlite(file: &Path) -> Self {
        let url = format!("sqlite://{}?mode=rwc", file.display());
        Self { url: Secret::new(url), file: Some(file.to_path_buf()) }
    }

    /// `postgres://user:password@host/name`.
    pub fn postgres(url: String) -> Self {
        Self { url: Secret::new(url), file: None }
    }

    pub(super) const fn dialect(&self) -> Dialect {
        if self.file.is_some() { Dialect::Sqlite } else { Dialect::Postgres }
    }

    /// The file of SQLite.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    pub(super) fn expose(&self) -> &str {
        self.url.expose()
    }

    /// An error of SQLite with the name of its file.
    pub(crate) fn name_file(&self, cause: Error) -> Error {
        match (&self.file, cause) {
            (Some(file), Error::Away(cause)) => match name_damage(cause, file).into() {
                Error::Away(cause) => Error::FileAway(file.clone(), cause),
                cause => cause,
            },
            (_, cause) => cause,
        }
    }

    /// A file that is no SQLite database is refused by name, never replaced.
    pub(super) fn check(&self) -> Result<()> {
        use std::io::Read as _;
        let Some(file) = &self.file else { return Ok(()) };
        let mut head = Vec::new();
        match std::fs::File::open(file).and_then(|opened| opened.take(16).read_to_end(&mut head)) {
            // SQLite itself takes an empty file for an empty database.
            Ok(0) => Ok(()),
            Ok(_) if head == b"SQLite format 3\0" => Ok(()),
            Ok(_) => Err(Error::NotADatabase(file.clone())),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(Error::Unreadable(file.clone(), cause)),
        }
    }
}

impl From<&crate::config::DatabaseUrl> for DatabaseUrl {
    fn from(setting: &crate::config::DatabaseUrl) -> Self {
        match setting {
            crate::config::DatabaseUrl::Sqlite(file) => Self::sqlite(file),
            crate::config::DatabaseUrl::Postgres(url) => Self::postgres(url.expose().clone()),
        }
    }
}
