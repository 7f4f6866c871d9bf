//! What can go wrong with the database, sorted by what the caller should do.

use std::path::{Path, PathBuf};

use super::repeat::UnconfirmedCommit;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database is busy, away or shutting down. Another try may succeed in a moment.
    #[error("the database does not answer")]
    Away(#[source] sqlx::Error),
    /// The connection was lost during a commit.
    #[error("the database did not confirm a commit")]
    Unconfirmed(#[source] UnconfirmedCommit),
    /// A shared reading ended without a result. Another try may succeed.
    #[error("a shared database lookup ended without a result")]
    BrokenOff,
    /// Nothing was written: the answer would not have reached its client.
    #[error("the client did not wait for the answer")]
    ClientGone,
    /// A unique index already has one of the values.
    #[error("another row has that value")]
    Conflict(#[source] sqlx::Error),
    #[error("the database refused a statement")]
    Statement(#[source] sqlx::Error),
    #[error("{table}.{column} of row {row} has a value that this version cannot read")]
    Corrupt { table: &'static str, column: &'static str, row: String },
    #[error(
        "the database needs a newer version of Genkan (one that knows step {needed} of the schema; this one knows {known})"
    )]
    Newer { needed: i64, known: i64 },
    #[error("the database server is a standby, which has changes later than its primary")]
    Standby,
    #[error("a pooler lends database sessions to single transactions; use it in session mode")]
    SharedSessions,
    #[error("the database's schema is not up to date; start the server, which brings it up to date")]
    Outdated,
    #[error("step {version} of the database's schema has another text than this version of Genkan knows")]
    ChangedStep { version: i64 },
    #[error("{} is not a SQLite database; move it away or name another file", .0.display())]
    NotADatabase(PathBuf),
    #[error("{} cannot be read", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error(transparent)]
    Damaged(#[from] DamagedFile),
    /// SQLite cannot use its file for the moment: it is locked, or its disk fails.
    #[error("{} cannot be used", .0.display())]
    FileAway(PathBuf, #[source] sqlx::Error),
    #[error("{} was deleted or replaced while Genkan ran", .0.display())]
    Gone(PathBuf),
    #[error("another Genkan serves from {}; stop it, or use PostgreSQL for several", .0.display())]
    InUse(PathBuf),
    #[error(
        "{} is missing or empty, although its sealing key {} exists; restore the database from a backup, \
         or move the sealing key away to start without its accounts",
        database.display(),
        sealing_key.display()
    )]
    Lost { database: PathBuf, sealing_key: PathBuf },
    #[error("{} cannot be written", .0.display())]
    Unwritable(PathBuf, #[source] std::io::Error),
    #[error("the schema could not be brought up to date: step {version} ({name}) failed")]
    Migrate {
        version: i64,
        name: &'static str,
        #[source]
        cause: sqlx::Error,
    },
}

/// A file of SQLite with a damaged page.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} is damaged ({report}); restore it from a backup", file.display())]
pub struct DamagedFile {
    pub(super) file: PathBuf,
    /// SQLite's own words.
    pub(super) report: String,
}

impl Error {
    /// Whether a caller may be told to come back soon (503).
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Away(_)
                | Self::FileAway(..)
                | Self::Damaged(_)
                | Self::BrokenOff
                | Self::Standby
                | Self::Unconfirmed(_)
                | Self::ClientGone
        )
    }

    /// Whether it is a conflict in this column.
    ///
    /// `PostgreSQL` names the index in its message, and SQLite the column. Genkan's indexes are
    /// named after their columns. There is no field that both drivers fill.
    pub(crate) fn conflicts_in(&self, column: &str) -> bool {
        matches!(self, Self::Conflict(cause) if cause.to_string().contains(column))
    }

    pub(crate) fn corrupt(table: &'static str, column: &'static str, row: &str) -> Self {
        Self::Corrupt { table, column, row: row.to_owned() }
    }
}

impl From<sqlx::Error> for Error {
    fn from(cause: sqlx::Error) -> Self {
        if let Some(damaged) = named_damage(&cause) {
            return Self::Damaged(damaged.clone());
        }
        match &cause {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            // What a proxy says or cuts off when its server is away.
            | sqlx::Error::Protocol(_)
            | sqlx::Error::BeginFailed
            | sqlx::Error::WorkerCrashed => Self::Away(cause),
            sqlx::Error::Database(database) if Code::of(&**database).is_passing() => Self::Away(cause),
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Conflict(cause),
            _ => Self::Statement(cause),
        }
    }
}

/// Whether the connection may be in another state than its user believes: in a transaction, out of
/// one, or without a server.
pub(super) fn leaves_connection_in_doubt(cause: &sqlx::Error) -> bool {
    match cause {
        sqlx::Error::Database(database) => match Code::of(&**database) {
            // SQLite rolls back by itself after these, or its file is not what it was.
            Code::Sqlite(number) => matches!(number, 4 | 7..=11 | 13..=15 | 26),
            // A statement that took too long (57014) is over, and its connection is not. A server that
            // only reads (25006) is a standby since a fail-over, and a new connection finds the
            // primary. In a failed transaction (25P02) no statement succeeds.
            Code::Postgres(code) => {
                let is_over = ["08", "57", "58"].iter().any(|class| code.starts_with(class));
                is_over && code != "57014" || ["25006", "25P02"].contains(&&*code)
            }
            Code::None => true,
        },
        sqlx::Error::RowNotFound
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_) => false,
        _ => true,
    }
}

/// Puts the name of `file` into an error which says that it is damaged. SQLite's own error names none.
pub(super) fn name_damage(cause: sqlx::Error, file: &Path) -> sqlx::Error {
    if !says_that_file_is_damaged(&cause) {
        return cause;
    }
    let damaged = DamagedFile { file: file.to_owned(), report: cause.to_string() };
    sqlx::Error::Io(std::io::Error::other(damaged))
}

fn named_damage(cause: &sqlx::Error) -> Option<&DamagedFile> {
    let sqlx::Error::Io(cause) = cause else { return None };
    cause.get_ref()?.downcast_ref()
}

/// Whether SQLite found its file damaged (11), or no database at all (26).
fn says_that_file_is_damaged(cause: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = cause else { return false };
    matches!(Code::of(&**database), Code::Sqlite(11 | 26))
}

/// Whether the disk is full, read-only or damaged, or the server only reads.
pub(super) fn says_that_writes_fail(cause: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = cause else { return false };
    match Code::of(&**database) {
        Code::Sqlite(number) => matches!(number, 8 | 10 | 11 | 13 | 14 | 26),
        Code::Postgres(code) => code == "53100" || code == "25006" || code.starts_with("58"),
        Code::None => false,
    }
}

/// The code of an error of the database.
enum Code {
    /// The primary code, without its extension: <https://www.sqlite.org/rescode.html>.
    Sqlite(u32),
    /// Five characters, of which the first two are the class.
    Postgres(String),
    None,
}

impl Code {
    fn of(error: &dyn sqlx::error::DatabaseError) -> Self {
        error.code().map_or(Self::None, |code| Self::parse(&code))
    }

    fn parse(code: &str) -> Self {
        if code.len() == 5 {
            return Self::Postgres(code.to_owned());
        }
        code.parse::<u32>().map_or(Self::None, |number| Self::Sqlite(number & 0xff))
    }

    /// SQLite: aborted (4), busy (5), locked (6), no memory (7), read-only disk (8), interrupted (9),
    /// I/O (10), damaged (11), full (13), cannot open (14), locking (15), no database (26).
    /// PostgreSQL: classes 08 connection, 40 rollback, 53 resources, 57 operator intervention, 58
    /// system; 25006 read-only standby, 25P02 failed transaction, 25P03 ended in an idle transaction.
    fn is_passing(&self) -> bool {
        match self {
            Self::Sqlite(number) => matches!(number, 4..=11 | 13..=15 | 26),
            Self::Postgres(code) => {
                ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                    || ["25006", "25P02", "25P03"].contains(&&**code)
            }
            Self::None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn tells_passing_trouble_from_bugs() {
        for code in
            ["5", "6", "261", "517", "10", "778", "13", "08006", "40001", "40P01", "53300", "57P01", "25006"]
        {
            assert!(Code::parse(code).is_passing(), "{code}");
        }
        for code in ["1", "19", "2067", "1555", "23505", "42P01", "22001"] {
            assert!(!Code::parse(code).is_passing(), "{code}");
        }
        assert!(!Code::parse("").is_passing());
    }
}
