//! Table `link_clients`.

use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::{Db, Result, Tx};

/// Stores a scope under its hash, or notes that it was used again.
pub(in crate::links) async fn put(tx: &mut Tx, hash: &str, scope: &str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "INSERT INTO link_clients (hash, scope, used_at) VALUES ($1, $2, $3)
         ON CONFLICT (hash) DO UPDATE SET used_at = excluded.used_at",
    )
    .bind(hash)
    .bind(scope)
    .bind(now.as_millis())
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

pub(in crate::links) async fn sweep(tx: &mut Tx, before: Timestamp) -> Result<u64> {
    let done = sqlx::query("DELETE FROM link_clients WHERE used_at < $1")
        .bind(before.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected())
}
