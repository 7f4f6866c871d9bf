//! Sweeps: removal of rows that nothing can use any more, a bounded number in each transaction.
//!
//! A sweep that removed everything at once would hold locks for minutes after a busy day, and
//! SQLite's only writer with them. So each room lists its sweeps as batches, and the job repeats a
//! batch until it finds no more.

use std::fmt;
use std::ops::Add;

use futures_util::future::BoxFuture;

use super::{Db, Result};
use crate::base::Timestamp;

/// The removal of rows of one kind.
#[derive(Clone, Copy)]
pub(crate) struct Sweep {
    /// The name for the log and the metrics.
    pub(crate) name: &'static str,
    /// Removes one batch, in one transaction.
    pub(crate) batch: for<'a> fn(&'a Db, Timestamp) -> BoxFuture<'a, Result<Batch>>,
}

/// The result of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) removed: u64,
    /// Whether there may be more rows to remove.
    pub(crate) has_more: bool,
}

impl Batch {
    /// A batch that looks at [`ROWS`] rows at most and removes each.
    pub(crate) const fn of_rows(removed: u64) -> Self {
        Self { removed, has_more: removed >= ROWS }
    }
}

impl Add for Batch {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { removed: self.removed + other.removed, has_more: self.has_more || other.has_more }
    }
}

/// An entry of a room's list of sweeps.
macro_rules! sweep {
    ($name:literal, |$db:ident, $now:ident| $work:expr) => {
        $crate::db::sweep::Sweep { name: $name, batch: |$db, $now| Box::pin($work) }
    };
}
pub(crate) use sweep;

/// Removes a batch with one statement that is its own transaction. `text` has `$1`, the time before
/// which rows are removed, and `LIMIT 200`.
///
/// The limit is part of the text and no parameter, so that PostgreSQL's planner knows how few rows
/// it concerns.
pub(crate) async fn sweep_batch(db: &Db, text: &'static str, before: Timestamp) -> Result<Batch> {
    let done = sqlx::query(text).bind(before.as_millis()).execute(db.writer()).await?;
    Ok(Batch::of_rows(done.rows_affected()))
}

/// The number of rows in a batch: the `LIMIT` of every statement of a sweep.
pub(crate) const ROWS: u64 = 200;

impl fmt::Debug for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweep").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Runs a sweep until nothing is left, and returns the number of removed rows.
#[cfg(test)]
pub(crate) async fn all(db: &Db, now: Timestamp, sweeps: &[Sweep]) -> Result<u64> {
    let mut removed = 0;
    for sweep in sweeps {
        loop {
            let batch = (sweep.batch)(db, now).await?;
            removed += batch.removed;
            if !batch.has_more {
                break;
            }
        }
    }
    Ok(removed)
}
