//! Table `oauth_requests`.

use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Error, Result, Tx};
use crate::oauth::ids::RequestUri;
use crate::oauth::parameters::RequestParameters;
use crate::signin::DeviceId;

/// A stored request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::oauth) struct StoredRequest {
    pub(in crate::oauth) uri: RequestUri,
    pub(in crate::oauth) client_id: String,
    pub(in crate::oauth) pushed: RequestParameters,
    pub(in crate::oauth) device: Option<DeviceId>,
    pub(in crate::oauth) decided: bool,
}

pub(in crate::oauth) async fn insert(
    tx: &mut Tx,
    uri: &RequestUri,
    client_id: &str,
    pushed: &RequestParameters,
    expires_at: Timestamp,
) -> Result<()> {
    sqlx::query("INSERT INTO oauth_requests (id, client_id, pushed, expires_at) VALUES ($1, $2, $3, $4)")
        .bind(uri.id())
        .bind(client_id)
        .bind(pushed.to_json())
        .bind(expires_at.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Finds a request that has not expired, decided or not, and holds its row until the transaction
/// ends.
pub(in crate::oauth) async fn hold(
    tx: &mut Tx,
    uri: &RequestUri,
    now: Timestamp,
) -> Result<Option<StoredRequest>> {
    // The update changes nothing. It locks the row, so that one of several decisions comes first.
    let row = sqlx::query(
        "UPDATE oauth_requests SET expires_at = expires_at WHERE id = $1 AND expires_at > $2
         RETURNING client_id, pushed, device, decided_at",
    )
    .bind(uri.id())
    .bind(now.as_millis())
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let pushed = serde_json::from_str(row.try_get("pushed")?)
        .map_err(|_| Error::corrupt("oauth_requests", "pushed", uri.id()))?;
    Ok(Some(StoredRequest {
        uri: uri.clone(),
        client_id: row.try_get("client_id")?,
        pushed,
        device: row.try_get::<Option<String>, _>("device")?.map(DeviceId::from),
        decided: row.try_get::<Option<i64>, _>("decided_at")?.is_some(),
    }))
}

/// Assigns a held request to this browser, and extends it.
pub(in crate::oauth) async fn visit(
    tx: &mut Tx,
    uri: &RequestUri,
    device: &DeviceId,
    until: Timestamp,
) -> Result<()> {
    // The first browser to open a request keeps it. The caller has compared the devices under the
    // row's lock.
    sqlx::query("UPDATE oauth_requests SET device = $2, expires_at = $3 WHERE id = $1")
        .bind(uri.id())
        .bind(device.as_str())
        .bind(until.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Marks a held request as decided. It stays until it expires, so that a second decision gets a
/// fitting refusal.
pub(in crate::oauth) async fn decide(tx: &mut Tx, uri: &RequestUri, now: Timestamp) -> Result<bool> {
    // The row stays after the decision, so that a person who goes back in the browser is told so.
    let done = sqlx::query("UPDATE oauth_requests SET decided_at = $2 WHERE id = $1 AND decided_at IS NULL")
        .bind(uri.id())
        .bind(now.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(in crate::oauth) async fn remove(tx: &mut Tx, uri: &RequestUri) -> Result<()> {
    sqlx::query("DELETE FROM oauth_requests WHERE id = $1").bind(uri.id()).execute(&mut **tx).await?;
    Ok(())
}

/// Removes a batch of requests that expired in `range`.
pub(in crate::oauth) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows { table: "oauth_requests", key: "id", time: "expires_at", only: None };
    old.sweep(db, range).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;
    use crate::oauth::testing::pushed;

    on_each_database!(a_request_is_visited_decided_once_and_swept);

    async fn a_request_is_visited_decided_once_and_swept(db: Db) {
        let at = Timestamp::from_millis;
        let (uri, other) = (RequestUri::fresh(), RequestUri::fresh());
        let mut tx = db.begin().await.unwrap();
        insert(&mut tx, &uri, "https://app.example.com/c.json", &pushed(), at(100)).await.unwrap();
        assert_eq!(hold(&mut tx, &uri, at(100)).await.unwrap(), None);
        assert_eq!(hold(&mut tx, &other, at(1)).await.unwrap(), None);
        let stored = hold(&mut tx, &uri, at(99)).await.unwrap().unwrap();
        assert_eq!((stored.device, stored.decided, stored.pushed), (None, false, pushed()));
        visit(&mut tx, &uri, &"dev-1".into(), at(200)).await.unwrap();
        assert!(decide(&mut tx, &uri, at(150)).await.unwrap());
        assert!(!decide(&mut tx, &uri, at(150)).await.unwrap());
        let stored = hold(&mut tx, &uri, at(199)).await.unwrap().unwrap();
        assert_eq!((stored.device, stored.decided), (Some("dev-1".into()), true));
        tx.commit().await.unwrap();
        assert_eq!(sweep(&db, at(200).into()).await.unwrap().removed, 0);
        assert_eq!(sweep(&db, at(201).into()).await.unwrap().removed, 1);
    }
}
