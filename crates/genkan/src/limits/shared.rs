//! Counts in the database, for all replicas together: the table `rate_counters`.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::verdict::{Verdict, window_start};
use crate::base::Timestamp;
use crate::config::Rate;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Error, Tx};

/// Counts one event in the current window of each rate, as part of `tx`.
///
/// The statement counts and reads in one step, so concurrent attempts get different counts.
pub(super) async fn count(
    tx: &mut Tx,
    limit: &str,
    key: &str,
    rates: &[Rate],
    now: Timestamp,
) -> Result<Vec<Verdict>, Error> {
    let mut verdicts = Vec::with_capacity(rates.len());
    for rate in rates {
        let start = window_start(now, rate.per);
        let row = sqlx::query(
            // Count and read are one statement, so concurrent attempts on several replicas get
            // different numbers.
            "INSERT INTO rate_counters (bucket, window_start, count) VALUES ($1, $2, 1) \
             ON CONFLICT (bucket, window_start) DO UPDATE SET count = rate_counters.count + 1 \
             RETURNING count",
        )
        .bind(bucket(limit, *rate, key))
        .bind(start.as_millis())
        .fetch_one(&mut **tx)
        .await?;
        let count: i64 = row.try_get("count")?;
        // A negative count cannot occur. If it did, the attempt would be refused.
        verdicts.push(Verdict::of(*rate, u64::try_from(count).unwrap_or(u64::MAX), start));
    }
    Ok(verdicts)
}

/// Takes back one event that was counted at this time.
pub(super) async fn take_back(
    tx: &mut Tx,
    limit: &str,
    key: &str,
    rates: &[Rate],
    counted_at: Timestamp,
) -> Result<(), Error> {
    for rate in rates {
        sqlx::query(
            "UPDATE rate_counters SET count = count - 1 WHERE bucket = $1 AND window_start = $2 AND count > 0",
        )
        .bind(bucket(limit, *rate, key))
        .bind(window_start(counted_at, rate.per).as_millis())
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// Removes a batch of counts of windows that began in `range`.
pub(super) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch, Error> {
    let old =
        OldRows { table: "rate_counters", key: "bucket, window_start", time: "window_start", only: None };
    old.sweep(db, range).await
}

/// Returns the name of a counter. It is a hash, because email and client addresses should not be
/// stored.
///
/// The rate is a part of it, so a changed limit starts a new count.
fn bucket(limit: &str, rate: Rate, key: &str) -> String {
    // Hashed, because the key can be an e-mail address. The rate is part of it, so a changed limit
    // starts with new counts.
    let digest = Sha256::digest(format!("{limit} {rate} {key}"));
    // 128 bits of the hash are enough that no two keys collide by chance.
    digest.iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::db::on_each_database;

    const RATES: [Rate; 2] =
        [Rate { count: 2, per: Duration::from_mins(5) }, Rate { count: 3, per: Duration::from_hours(24) }];
    const NOW: Timestamp = Timestamp::from_seconds(1_000_000_000);

    on_each_database!(replicas_count_together, attempts_at_once_do_not_slip_through, old_windows_are_swept);

    async fn allowed(db: &Db, key: &str, now: Timestamp) -> Vec<bool> {
        let mut tx = db.begin().await.unwrap();
        let verdicts = count(&mut tx, "test", key, &RATES, now).await.unwrap();
        tx.commit().await.unwrap();
        verdicts.iter().map(|verdict| verdict.allowed).collect()
    }

    async fn replicas_count_together(db: Db) {
        assert_eq!(allowed(&db, "ann", NOW).await, [true, true]);
        assert_eq!(allowed(&db.clone(), "ann", NOW).await, [true, true]);
        assert_eq!(allowed(&db, "ann", NOW).await, [false, true]);
        assert_eq!(allowed(&db, "eve", NOW).await, [true, true]);
        // One is taken back, and then one more is allowed.
        let mut tx = db.begin().await.unwrap();
        for _ in 0..2 {
            take_back(&mut tx, "test", "eve", &RATES, NOW).await.unwrap();
        }
        tx.commit().await.unwrap();
        assert_eq!(allowed(&db, "eve", NOW).await, [true, true]);
        assert_eq!(allowed(&db, "eve", NOW).await, [true, true]);
        assert_eq!(allowed(&db, "eve", NOW).await, [false, true]);
        assert_eq!(allowed(&db, "ann", NOW.plus(Duration::from_mins(5))).await, [true, false]);
    }

    async fn attempts_at_once_do_not_slip_through(db: Db) {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let db = db.clone();
                tokio::spawn(async move { allowed(&db, "ann", NOW).await == [true, true] })
            })
            .collect();
        let mut passed = 0;
        for task in tasks {
            passed += usize::from(task.await.unwrap());
        }
        assert_eq!(passed, 2);
    }

    async fn old_windows_are_swept(db: Db) {
        allowed(&db, "ann", NOW).await;
        let [short, long] = RATES.map(|rate| window_start(NOW, rate.per));
        assert_eq!(sweep(&db, long.into()).await.unwrap().removed, 0);
        assert_eq!(sweep(&db, short.into()).await.unwrap().removed, 1);
        assert_eq!(sweep(&db, NOW.plus(Duration::from_mins(5)).into()).await.unwrap().removed, 1);
    }
}
