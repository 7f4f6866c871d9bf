//! Table `link_visits`.

use genkan_protocol::syntax::Did;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Error, Result, Tx};

pub(in crate::links) async fn put(
    tx: &mut Tx,
    device: &str,
    did: &Did,
    handle: Option<&str>,
    until: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO link_visits (device, did, handle, expires_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (device, did) DO UPDATE SET handle = excluded.handle, expires_at = excluded.expires_at",
    )
    .bind(device)
    .bind(did.as_str())
    .bind(handle)
    .bind(until.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Returns the DIDs and handles that are signed in to a browser.
pub(in crate::links) async fn of_device(
    db: &Db,
    device: &str,
    now: Timestamp,
) -> Result<Vec<(Did, Option<String>)>> {
    let rows = sqlx::query(
        "SELECT did, handle FROM link_visits WHERE device = $1 AND expires_at > $2 ORDER BY expires_at DESC",
    )
    .bind(device)
    .bind(now.as_millis())
    .fetch_all(db.reader())
    .await?;
    let read = |row: &AnyRow| {
        let did: String = row.try_get("did")?;
        let did = did.parse().map_err(|_| Error::corrupt("link_visits", "did", &did))?;
        Ok((did, row.try_get("handle")?))
    };
    rows.iter().map(read).collect()
}

pub(in crate::links) async fn remove(tx: &mut Tx, device: &str, did: &Did) -> Result<()> {
    sqlx::query("DELETE FROM link_visits WHERE device = $1 AND did = $2")
        .bind(device)
        .bind(did.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Removes a batch of visits that expired in `range`.
pub(in crate::links) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows { table: "link_visits", key: "device, did", time: "expires_at", only: None };
    old.sweep(db, range).await
}
