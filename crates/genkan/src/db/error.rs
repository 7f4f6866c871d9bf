//! What can go wrong with the database, sorted by what the caller should do.

use std::path::PathBuf;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database is busy, away or shutting down. Another try may succeed in a moment.
    #[error("the database does not answer")]
    Away(#[source] sqlx::Error),
    /// A shared reading ended without a result. Another try may succeed.
    #[error("a shared database lookup ended without a result")]
    BrokenOff,
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
    #[error("step {version} of the database's schema has another text than this version of Genkan knows")]
    ChangedStep { version: i64 },
    #[error("{} is not a SQLite database; move it away or name another file", .0.display())]
    NotADatabase(PathBuf),
    #[error("{} cannot be read", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error("the schema could not be brought up to date: step {version} ({name}) failed")]
    Migrate {
        version: i64,
        name: &'static str,
        #[source]
        cause: sqlx::Error,
    },
}

impl Error {
    /// Whether a caller may be told to come back soon (503).
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Away(_) | Self::BrokenOff)
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
        match &cause {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::WorkerCrashed => Self::Away(cause),
            sqlx::Error::Database(database) if is_passing_code(database.code().as_deref()) => {
                Self::Away(cause)
            }
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Conflict(cause),
            _ => Self::Statement(cause),
        }
    }
}

/// SQLite: busy (5), locked (6), read-only disk (8), I/O (10), full (13), cannot open (14), and
/// their extended forms. PostgreSQL: classes 08 connection, 40 rollback, 53 resources, 57 operator
/// intervention, 58 system; 25006 read-only standby.
fn is_passing_code(code: Option<&str>) -> bool {
    let Some(code) = code else { return false };
    if code.len() == 5 {
        return ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class)) || code == "25006";
    }
    code.parse::<u32>().is_ok_and(|number| matches!(number & 0xff, 5 | 6 | 8 | 10 | 13 | 14))
}

#[cfg(test)]
mod tests {
    use super::is_passing_code;

    #[test]
    fn tells_passing_trouble_from_bugs() {
        for code in
            ["5", "6", "261", "517", "10", "778", "13", "08006", "40001", "40P01", "53300", "57P01", "25006"]
        {
            assert!(is_passing_code(Some(code)), "{code}");
        }
        for code in ["1", "19", "2067", "1555", "23505", "42P01", "22001"] {
            assert!(!is_passing_code(Some(code)), "{code}");
        }
        assert!(!is_passing_code(None));
    }
}
