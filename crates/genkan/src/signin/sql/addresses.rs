//! Table `known_addresses`.

use genkan_protocol::syntax::Did;
use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Result, Tx};

/// Returns when an account was last signed in to from an address.
pub(in crate::signin) async fn seen_at(db: &Db, did: &Did, address: &str) -> Result<Option<Timestamp>> {
    let row = sqlx::query("SELECT seen_at FROM known_addresses WHERE did = $1 AND address = $2")
        .bind(did.as_str())
        .bind(address)
        .fetch_optional(db.reader())
        .await?;
    row.map(|row| Ok(Timestamp::from_millis(row.try_get("seen_at")?))).transpose()
}

pub(in crate::signin) async fn put(tx: &mut Tx, did: &Did, address: &str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "INSERT INTO known_addresses (did, address, seen_at) VALUES ($1, $2, $3)
         ON CONFLICT (did, address) DO UPDATE SET seen_at = $3",
    )
    .bind(did.as_str())
    .bind(address)
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Removes all addresses of an account but the latest.
pub(in crate::signin) async fn trim(tx: &mut Tx, did: &Did, most: i64) -> Result<()> {
    sqlx::query(
        "DELETE FROM known_addresses WHERE did = $1 AND address NOT IN (
            SELECT address FROM known_addresses WHERE did = $1 ORDER BY seen_at DESC, address LIMIT $2
         )",
    )
    .bind(did.as_str())
    .bind(most)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(in crate::signin) async fn forget(tx: &mut Tx, did: &Did) -> Result<()> {
    sqlx::query("DELETE FROM known_addresses WHERE did = $1").bind(did.as_str()).execute(&mut **tx).await?;
    Ok(())
}

pub(in crate::signin) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows { table: "known_addresses", key: "did, address", time: "seen_at", only: None };
    old.sweep(db, range).await
}
