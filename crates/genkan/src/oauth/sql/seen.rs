//! Table `oauth_seen`.

use std::collections::HashSet;
use std::fmt::Write as _;

use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Result, Tx};

/// Records a hash. Returns `true` if it was not present. The unique key decides, on any number of
/// replicas.
pub(in crate::oauth) async fn insert(
    tx: &mut Tx,
    hash: &str,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    // An expired row counts as absent, swept or not.
    let done = sqlx::query(
        "INSERT INTO oauth_seen (hash, expires_at) VALUES ($1, $2)
         ON CONFLICT (hash) DO UPDATE SET expires_at = excluded.expires_at WHERE oauth_seen.expires_at <= $3",
    )
    .bind(hash)
    .bind(expires_at.as_millis())
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Records many hashes in one statement, which is its own transaction, and returns the new ones.
/// `hashes` is sorted and has no duplicates, so that two replicas never wait for each other.
pub(in crate::oauth) async fn insert_all(
    db: &Db,
    hashes: &[&str],
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<HashSet<String>> {
    // One statement for all of them: under load, a transaction per proof would be the limit of the
    // whole process.
    let mut statement = String::with_capacity(200 + hashes.len() * 12);
    statement.push_str("INSERT INTO oauth_seen (hash, expires_at) VALUES ");
    for place in 0..hashes.len() {
        let joint = if place == 0 { "" } else { ", " };
        let _ = write!(statement, "{joint}(${}, $1)", place + 3);
    }
    statement.push_str(
        " ON CONFLICT (hash) DO UPDATE SET expires_at = excluded.expires_at WHERE oauth_seen.expires_at <= $2
         RETURNING hash",
    );
    // The text is built from numbers only.
    let mut query =
        sqlx::query(sqlx::AssertSqlSafe(statement)).bind(expires_at.as_millis()).bind(now.as_millis());
    for hash in hashes {
        query = query.bind(*hash);
    }
    let rows = query.fetch_all(db.writer()).await?;
    Ok(rows.iter().map(|row| row.try_get("hash")).collect::<sqlx::Result<_>>()?)
}

/// Removes a batch of hashes that expired in `range`.
pub(in crate::oauth) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows { table: "oauth_seen", key: "hash", time: "expires_at", only: None };
    old.sweep(db, range).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(
        a_thing_is_new_once_until_it_expires,
        new_and_known_values_are_told_apart,
        what_is_used_again_during_a_sweep_is_not_forgotten
    );

    async fn what_is_used_again_during_a_sweep_is_not_forgotten(db: Db) {
        let at = Timestamp::from_millis;
        let mut tx = db.begin().await.unwrap();
        assert!(insert(&mut tx, "a", at(100), at(1)).await.unwrap());
        assert!(insert(&mut tx, "b", at(100), at(1)).await.unwrap());
        tx.commit().await.unwrap();
        let mut tx = db.begin().await.unwrap();
        assert!(insert(&mut tx, "a", at(500), at(200)).await.unwrap());
        let sweeping = tokio::spawn({
            let db = db.clone();
            async move { sweep(&db, at(200).into()).await.unwrap().removed }
        });
        db.until_waited_for(&mut tx).await;
        tx.commit().await.unwrap();
        assert_eq!(sweeping.await.unwrap(), 1);
        let mut tx = db.begin().await.unwrap();
        assert!(!insert(&mut tx, "a", at(600), at(300)).await.unwrap(), "it was used");
    }

    async fn new_and_known_values_are_told_apart(db: Db) {
        let at = Timestamp::from_millis;
        let new = async |hashes: &[&str], until: i64, now: i64| {
            let mut new: Vec<String> =
                insert_all(&db, hashes, at(until), at(now)).await.unwrap().into_iter().collect();
            new.sort();
            new.join(" ")
        };
        assert_eq!(new(&["a", "b", "c"], 100, 1).await, "a b c");
        assert_eq!(new(&["b", "c", "d"], 200, 99).await, "d");
        assert_eq!(new(&["a", "d"], 300, 100).await, "a", "what has expired is forgotten");
        let many: Vec<String> = (1000..1256).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(insert_all(&db, &many, at(100), at(1)).await.unwrap().len(), 256);
        assert_eq!(insert_all(&db, &many, at(100), at(1)).await.unwrap().len(), 0);
        let mut tx = db.begin().await.unwrap();
        assert!(!insert(&mut tx, "1000", at(100), at(1)).await.unwrap());
    }

    async fn a_thing_is_new_once_until_it_expires(db: Db) {
        let at = Timestamp::from_millis;
        let mut tx = db.begin().await.unwrap();
        assert!(insert(&mut tx, "a", at(100), at(1)).await.unwrap());
        assert!(!insert(&mut tx, "a", at(100), at(99)).await.unwrap());
        assert!(insert(&mut tx, "b", at(100), at(1)).await.unwrap());
        assert!(insert(&mut tx, "a", at(200), at(100)).await.unwrap());
        assert!(!insert(&mut tx, "a", at(300), at(101)).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(sweep(&db, at(101).into()).await.unwrap().removed, 1);
        let mut tx = db.begin().await.unwrap();
        assert!(!insert(&mut tx, "a", at(300), at(101)).await.unwrap());
    }
}
