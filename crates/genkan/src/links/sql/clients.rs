//! Table `link_clients`.

use std::time::Duration;

use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Result, Tx};

/// Stores a scope under its hash, or notes that it was used. The sweep counts from the last use, so a
/// time in the past makes it remove the row early. A later use is never replaced.
pub(in crate::links) async fn put(tx: &mut Tx, hash: &str, scope: &str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "INSERT INTO link_clients (hash, scope, used_at) VALUES ($1, $2, $3)
         ON CONFLICT (hash) DO UPDATE SET used_at = excluded.used_at
         WHERE link_clients.used_at < excluded.used_at",
    )
    .bind(hash)
    .bind(scope)
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes that a session uses a client, at most once a month.
pub(in crate::links) async fn note_use(tx: &mut Tx, hash: &str, now: Timestamp) -> Result<()> {
    sqlx::query("UPDATE link_clients SET used_at = $2 WHERE hash = $1 AND used_at < $3")
        .bind(hash)
        .bind(now.as_millis())
        .bind(now.minus(MONTH).as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(in crate::links) async fn find(db: &Db, hash: &str) -> Result<Option<String>> {
    let row = sqlx::query("SELECT scope FROM link_clients WHERE hash = $1")
        .bind(hash)
        .fetch_optional(db.reader())
        .await?;
    Ok(row.map(|row| row.try_get("scope")).transpose()?)
}

/// Removes a batch of scopes that were last used in `range`.
pub(in crate::links) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows { table: "link_clients", key: "hash", time: "used_at", only: None };
    old.sweep(db, range).await
}

const MONTH: Duration = Duration::from_hours(30 * 24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(a_client_is_kept_from_its_last_use_on);

    async fn a_client_is_kept_from_its_last_use_on(db: Db) {
        let at = |days: u32| Timestamp::from_seconds(1_700_000_000).plus(MONTH / 30 * days);
        let mut tx = db.begin().await.unwrap();
        for hash in ["begun", "used"] {
            put(&mut tx, hash, "atproto blob:*/*", at(1)).await.unwrap();
        }
        note_use(&mut tx, "used", at(40)).await.unwrap();
        // A sign-in that begins later does not shorten the life of a client that is in use.
        put(&mut tx, "used", "atproto blob:*/*", at(2)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(swept(&db, at(40)).await, 1);
        assert!(find(&db, "begun").await.unwrap().is_none());
        assert!(find(&db, "used").await.unwrap().is_some());
        assert_eq!(swept(&db, at(41)).await, 1);
    }

    async fn swept(db: &Db, before: Timestamp) -> u64 {
        sweep(db, before.into()).await.unwrap().removed
    }
}
