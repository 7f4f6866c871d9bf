//! Sweeps: removal of rows that nothing can use any more, a bounded number in each transaction.
//!
//! A sweep that removed everything at once would hold locks for minutes after a busy day, and
//! SQLite's only writer with them. So each room lists its sweeps as batches, and the job repeats a
//! batch until it finds no more. [`OldRows`] is a sweep of rows whose time has passed.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Executor, Row as _};

use super::{Db, Result};
use crate::base::Timestamp;

/// The removal of rows of one kind.
#[derive(Clone, Copy)]
pub(crate) struct Sweep {
    /// The name for the log and the metrics.
    pub(crate) name: &'static str,
    /// Removes one batch, in one transaction.
    pub(crate) batch: for<'a> fn(&'a Db, SweepRange) -> BoxFuture<'a, Result<Batch>>,
}

/// The times whose rows a batch removes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SweepRange {
    /// The time that the batch before it has reached. A row of that time may be left.
    ///
    /// PostgreSQL keeps the index entries of removed rows for as long as an old snapshot is open. A
    /// batch that began at the oldest of them would read all of them again.
    pub(crate) from: Option<Timestamp>,
    /// The first time whose rows stay.
    pub(crate) until: Timestamp,
}

impl SweepRange {
    pub(crate) const fn until(until: Timestamp) -> Self {
        Self { from: None, until }
    }

    /// Keeps rows for `kept` longer.
    pub(crate) fn keeping(self, kept: Duration) -> Self {
        Self { until: self.until.minus(kept), ..self }
    }
}

impl From<Timestamp> for SweepRange {
    fn from(until: Timestamp) -> Self {
        Self::until(until)
    }
}

/// The result of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) removed: u64,
    /// Whether there may be more rows to remove.
    pub(crate) has_more: bool,
    /// Where the next batch of the same sweep goes on.
    pub(crate) reached: Option<Timestamp>,
}

/// An entry of a room's list of sweeps.
macro_rules! sweep {
    ($name:literal, |$db:ident, $range:ident| $work:expr) => {
        $crate::db::sweep::Sweep { name: $name, batch: |$db, $range| Box::pin($work) }
    };
}
pub(crate) use sweep;

/// The rows of a table that are removed once a time in them has passed, the oldest first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OldRows {
    pub(crate) table: &'static str,
    /// The columns of the primary key, joined by commas.
    pub(crate) key: &'static str,
    /// The column of the time. An index on it serves the sweep.
    pub(crate) time: &'static str,
    /// A further condition.
    pub(crate) only: Option<&'static str>,
}

impl OldRows {
    /// Removes a batch with one statement that is its own transaction.
    pub(crate) async fn sweep(&self, db: &Db, range: impl Into<SweepRange>) -> Result<Batch> {
        let range = range.into();
        let rows = self.remove(db.writer(), range, db.rows_at_once()).await?;
        self.batch(db, range, &rows).await
    }

    /// Removes a batch of at most `most` rows, which is [`Db::rows_at_once`]. Each row of the answer
    /// has the columns of the key. After the commit, [`batch`](Self::batch) counts them.
    pub(crate) async fn remove<'e>(
        &self,
        on: impl Executor<'e, Database = Any>,
        range: SweepRange,
        most: u64,
    ) -> Result<Vec<AnyRow>> {
        let Self { table, key, time, .. } = self;
        let is_old = self.condition();
        // PostgreSQL waits for a transaction that changes one of the rows, and then looks at the
        // outer condition only. So `is_old` is repeated there: a row that was renewed stays.
        // It is hidden in a CASE, because an index on it would lead to all old rows and not to the
        // few that the subquery chose.
        // The limit is part of the text and no parameter, so that PostgreSQL's planner knows how few
        // rows it concerns.
        let text = format!(
            "DELETE FROM {table} WHERE CASE WHEN {is_old} THEN 1 ELSE 0 END = 1 AND ({key}) IN (
                SELECT {key} FROM {table} WHERE {is_old} ORDER BY {time} LIMIT {most})
             RETURNING {key}, {time} AS reached"
        );
        // The text has no parts but the constants of the code, and a number.
        let query = sqlx::query(AssertSqlSafe(text));
        Ok(query.bind(range.until.as_millis()).bind(range.first()).fetch_all(on).await?)
    }

    /// Returns the result of a batch that removed `rows`.
    pub(crate) async fn batch(&self, db: &Db, range: SweepRange, rows: &[AnyRow]) -> Result<Batch> {
        let mut reached = range.from;
        for row in rows {
            reached = reached.max(Some(Timestamp::from_millis(row.try_get("reached")?)));
        }
        let removed = rows.len() as u64;
        // Another replica may have removed some of the chosen rows. Then it is not known whether
        // there were more.
        let range = SweepRange { from: reached, ..range };
        let has_more = removed >= db.rows_at_once() || (!db.is_embedded() && self.has_any(db, range).await?);
        Ok(Batch { removed, has_more, reached })
    }

    async fn has_any(&self, db: &Db, range: SweepRange) -> Result<bool> {
        let Self { table, time, .. } = self;
        let is_old = self.condition();
        let text = format!("SELECT 1 FROM {table} WHERE {is_old} ORDER BY {time} LIMIT 1");
        let query = sqlx::query(AssertSqlSafe(text)).bind(range.until.as_millis()).bind(range.first());
        Ok(query.fetch_optional(db.reader()).await?.is_some())
    }

    fn condition(&self) -> String {
        let time = self.time;
        let only = self.only.map(|only| format!(" AND {only}")).unwrap_or_default();
        format!("{time} < $1 AND {time} >= $2{only}")
    }
}

impl SweepRange {
    /// The first time, as the parameter of a statement.
    fn first(self) -> i64 {
        self.from.map_or(i64::MIN, Timestamp::as_millis)
    }
}

impl Db {
    /// The most rows that one transaction of a job changes: the `LIMIT` of its statement.
    ///
    /// Everything else that writes to SQLite waits for the batch. In a file that is much larger than
    /// the memory, each row costs the reading of a page of the table and of each index, and a disk
    /// that is busy reads a hundred pages a second. PostgreSQL keeps others from these rows only.
    pub(crate) const fn rows_at_once(&self) -> u64 {
        if self.is_embedded() { 20 } else { 200 }
    }
}

impl fmt::Debug for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweep").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Runs sweeps until nothing is left, and returns the number of removed rows.
#[cfg(test)]
pub(crate) async fn all(db: &Db, now: Timestamp, sweeps: &[Sweep]) -> Result<u64> {
    let mut removed = 0;
    for sweep in sweeps {
        let mut range = SweepRange::until(now);
        loop {
            let batch = (sweep.batch)(db, range).await?;
            removed += batch.removed;
            range.from = batch.reached;
            if !batch.has_more {
                break;
            }
        }
    }
    Ok(removed)
}
