//! Table `link_visits`.

use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::{Db, Result, Tx};

pub(in crate::links) async fn put(
    tx: &mut Tx,
    device: &str,
    did: &str,
    handle: Option<&str>,
    until: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO link_visits (device, did, handle, expires_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (device, did) DO UPDATE SET handle = excluded.handle, expires_at = excluded.expires_at",
    )
    .bind(device)
    .bind(did)
    .bind(handle)
    .bind(until.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Who is signed in at a browser: DIDs and handles.
pub(in crate::links) async fn of_device(
    db: &Db,
    device: &str,
    now: Timestamp,
) -> Result<Vec<(String, Option<String>)>> {
    let rows = sqlx::query(
        "SELECT did, handle FROM link_visits WHERE device = $1 AND expires_at > $2 ORDER BY expires_at DESC",
    )
    .bind(device)
    .bind(now.as_millis())
    .fetch_all(db.reader())
    .await?;
    rows.iter().map(|row| Ok((row.try_get("did")?, row.try_get("handle")?))).collect()
}

pub(in crate::links) async fn remove(tx: &mut Tx, device: &str, did: &str) -> Result<()> {
    sqlx::query("DELETE FROM link_visits WHERE device = $1 AND did = $2")
        .bind(device)
        .bind(did)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(in crate::links) async fn sweep(tx: &mut Tx, now: Timestamp) -> Result<u64> {
    let done = sqlx::query("DELETE FROM link_visits WHERE expires_at < $1")
        .bind(now.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected())
}
