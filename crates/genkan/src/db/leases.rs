//! Leases: one worker at a time on a saga's row.
//!
//! A row names its holder in `lease`, until `lease_until`. A lease is short, and its worker renews
//! it while it works. So a row that a crash left behind is free within seconds, and a row that is
//! being worked on is not. Every write of a saga names the holder in its condition. So a worker
//! that lost its lease, for example because it was suspended, changes nothing. A holder's name
//! belongs to one task: two tasks of one process keep each other out as two processes do. The
//! table's owner mounts the statements in its `sql.rs` with [`leases_on`].
//!
//! Times are those of the database's clock ([`Db::clock`](super::Db::clock)). A row that
//! is put off for longer than anything puts a row off is due: a clock was wrong when it was written.

use std::future::Future;
use std::time::Duration;

/// How long a lease holds without being renewed.
pub(crate) const LEASE: Duration = Duration::from_secs(6);
/// Longer than any lease and any pause of a row, by more than clocks of replicas differ.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_mins(5);
/// How often a worker renews its lease.
const RENEWAL: Duration = Duration::from_secs(2);
const _: () = assert!(3 * RENEWAL.as_millis() <= LEASE.as_millis(), "one renewal may fail");

/// Does `work` and renews its lease meanwhile. `renew` returns whether the lease is still held.
///
/// A failed renewal does not stop `work`. The condition of its next write decides whether the lease
/// was lost.
pub(crate) async fn while_held<T, E, F>(work: impl Future<Output = T>, renew: impl Fn() -> F) -> T
where
    F: Future<Output = Result<bool, E>>,
{
    while_renewed_each(RENEWAL, work, renew).await
}

async fn while_renewed_each<T, E, F>(
    pace: Duration,
    work: impl Future<Output = T>,
    renew: impl Fn() -> F,
) -> T
where
    F: Future<Output = Result<bool, E>>,
{
    let renewing = async {
        loop {
            tokio::time::sleep(pace).await;
            // The lease is lost, so there is nothing left to renew. After an error the next round
            // may still be in time.
            if let Ok(false) = renew().await {
                // The work goes on: its next write fails by its condition, and it must reach that
                // point to stop in order.
                return std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        // If the work ends at the moment when a renewal is due, the work wins.
        biased;
        outcome = work => outcome,
        () = renewing => unreachable!("renewing never ends"),
    }
}

/// Defines the statements of leases on one table, whose key is `did`, for the `sql.rs` of its
/// owner.
macro_rules! leases_on {
    ($table:literal) => {
        /// Returns rows without a holder, those that have been free the longest first.
        pub(super) async fn abandoned(
            db: &$crate::db::Db,
            now: $crate::base::Timestamp,
            limit: i64,
        ) -> $crate::db::Result<Vec<String>> {
            use sqlx::Row as _;
            // Two ranges of the index. With an OR, PostgreSQL would read all rows that are put off.
            let rows = sqlx::query(concat!(
                "SELECT did, lease_until FROM (SELECT did, lease_until FROM ",
                $table,
                " WHERE lease_until <= $1 ORDER BY lease_until LIMIT $2) AS free \
                 UNION ALL SELECT did, lease_until FROM (SELECT did, lease_until FROM ",
                $table,
                // The oldest first, so that one row that fails again and again does not keep others
                // waiting.
                " WHERE lease_until > $3 ORDER BY lease_until LIMIT $2) AS delayed \
                 ORDER BY lease_until LIMIT $2"
            ))
            .bind(now.as_millis())
            .bind(limit)
            .bind(now.plus($crate::db::leases::LONGEST_DELAY).as_millis())
            .fetch_all(db.reader())
            .await?;
            rows.iter().map(|row| Ok(row.try_get("did")?)).collect()
        }

        /// Takes a free lease. Returns `false` if another worker has it or the row no longer
        /// exists.
        pub(super) async fn take_lease(
            db: &$crate::db::Db,
            did: &genkan_protocol::syntax::Did,
            holder: &str,
            now: $crate::base::Timestamp,
        ) -> $crate::db::Result<bool> {
            let done = sqlx::query(concat!(
                "UPDATE ",
                $table,
                // The condition makes this a compare-and-set: of two workers, one changes the row.
                " SET lease = $2, lease_until = $4, attempts = attempts + 1 \
                 WHERE did = $1 AND (lease_until <= $3 OR lease_until > $5)"
            ))
            .bind(did.as_str())
            .bind(holder)
            .bind(now.as_millis())
            .bind(now.plus($crate::db::leases::LEASE).as_millis())
            .bind(now.plus($crate::db::leases::LONGEST_DELAY).as_millis())
            .execute(db.writer())
            .await?;
            Ok(done.rows_affected() == 1)
        }

        /// Extends a lease. Returns `false` if it was lost, and with it the right to continue.
        pub(super) async fn keep_lease(
            db: &$crate::db::Db,
            did: &genkan_protocol::syntax::Did,
            holder: &str,
            now: $crate::base::Timestamp,
        ) -> $crate::db::Result<bool> {
            let done = sqlx::query(concat!(
                "UPDATE ",
                $table,
                " SET lease_until = $3 WHERE did = $1 AND lease = $2"
            ))
            .bind(did.as_str())
            .bind(holder)
            .bind(now.plus($crate::db::leases::LEASE).as_millis())
            .execute(db.writer())
            .await?;
            Ok(done.rows_affected() == 1)
        }

        /// Releases the lease. The row is free from `again_at`, and records what went wrong.
        pub(super) async fn put_off(
            tx: &mut $crate::db::Tx,
            did: &genkan_protocol::syntax::Did,
            holder: &str,
            again_at: $crate::base::Timestamp,
            why: &str,
        ) -> $crate::db::Result<()> {
            sqlx::query(concat!(
                "UPDATE ",
                $table,
                " SET lease = NULL, lease_until = $3, last_error = $4 WHERE did = $1 AND lease = $2"
            ))
            .bind(did.as_str())
            .bind(holder)
            .bind(again_at.as_millis())
            .bind(why)
            .execute(&mut **tx)
            .await?;
            Ok(())
        }

        /// Removes the row of a finished saga. Returns `false` if the lease was lost.
        pub(super) async fn remove(
            tx: &mut $crate::db::Tx,
            did: &genkan_protocol::syntax::Did,
            holder: &str,
        ) -> $crate::db::Result<bool> {
            let done = sqlx::query(concat!("DELETE FROM ", $table, " WHERE did = $1 AND lease = $2"))
                .bind(did.as_str())
                .bind(holder)
                .execute(&mut **tx)
                .await?;
            Ok(done.rows_affected() == 1)
        }

        /// Ends every lease, when a process starts that has the database to itself.
        pub(super) async fn end_leases(db: &$crate::db::Db) -> $crate::db::Result<()> {
            sqlx::query(concat!(
                "UPDATE ",
                $table,
                // On SQLite only: no other process can hold a lease there, so every lease is from a
                // process that ended.
                " SET lease = NULL, lease_until = 0 WHERE lease IS NOT NULL"
            ))
            .execute(db.writer())
            .await?;
            Ok(())
        }
    };
}
pub(crate) use leases_on;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_worker_at_work_renews_its_lease_until_it_is_lost() {
        let renewals = Cell::new(0);
        let renew = || {
            renewals.set(renewals.get() + 1);
            std::future::ready(match renewals.get() {
                2 => Err("the database is away for a moment"),
                count => Ok(count < 4),
            })
        };
        let work = tokio::time::sleep(Duration::from_millis(500));
        while_renewed_each(Duration::from_millis(5), work, renew).await;
        assert_eq!(renewals.get(), 4, "once more after the trouble, and never again after the loss");
    }
}
