//! Rows that have their turn at a time of their own, and the healing of turns that a clock which was
//! ahead has chosen.

use sqlx::{Any, AssertSqlSafe, Executor};

use super::Result;
use crate::base::Timestamp;

/// The column of a table that says when each row has its turn in a job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns {
    pub(crate) table: &'static str,
    /// The primary key.
    pub(crate) key: &'static str,
    /// The column of the turn. An index on it serves the job.
    pub(crate) column: &'static str,
    /// A condition on the rows that have turns.
    pub(crate) only: Option<&'static str>,
}

/// Gives a batch of rows their turn now whose turn comes after `latest`, beyond all that the job
/// chooses: a clock was ahead when it was chosen.
pub(crate) async fn heal_turns<'e>(
    on: impl Executor<'e, Database = Any>,
    turns: &Turns,
    now: Timestamp,
    latest: Timestamp,
) -> Result<()> {
    let Turns { table, key, column, only } = turns;
    let only = only.map(|only| format!(" AND {only}")).unwrap_or_default();
    // Apart from the search for due rows: with both in one condition, a database would read all rows
    // between them.
    let text = format!(
        "UPDATE {table} SET {column} = $1 WHERE {column} > $2 AND {key} IN (
            SELECT {key} FROM {table} WHERE {column} > $2{only} ORDER BY {column} DESC LIMIT 200)"
    );
    // The text has no parts but the constants of the code.
    let query = sqlx::query(AssertSqlSafe(text));
    query.bind(now.as_millis()).bind(latest.as_millis()).execute(on).await?;
    Ok(())
}
