//! Table `oauth_grants`.

use genkan_protocol::syntax::Did;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::base::Timestamp;
use crate::db::{Db, Error, Result, Tx};
use crate::oauth::grant::{Grant, GrantPlace};
use crate::oauth::ids::GrantId;
use crate::oauth::scope::ApprovedScope;

const COLUMNS: &str = "id, did, client_id, scope, dpop_key, client_auth, device, place, refreshable, \
    generation, rotated_at, rotated_before_at, idle_until, expires_at, created_at, ended_at";

pub(in crate::oauth) async fn insert(tx: &mut Tx, grant: &Grant) -> Result<()> {
    sqlx::query(
        "INSERT INTO oauth_grants (id, did, client_id, scope, dpop_key, client_auth, device, refreshable, generation,
            rotated_at, rotated_before_at, idle_until, expires_at, created_at, place)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(grant.id.as_str())
    .bind(grant.did.as_str())
    .bind(&grant.client_id)
    .bind(grant.scope.as_str())
    .bind(grant.dpop_key.as_deref().unwrap_or_default())
    .bind(grant.client_auth.to_json())
    .bind(grant.device.as_str())
    .bind(if grant.refreshable { "yes" } else { "no" })
    .bind(grant.generation)
    .bind(grant.rotated_at.as_millis())
    .bind(grant.rotated_before_at.as_millis())
    .bind(grant.idle_until.as_millis())
    .bind(grant.expires_at.as_millis())
    .bind(grant.created_at.as_millis())
    .bind(grant.place.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Finds a grant, ended or not.
pub(in crate::oauth) async fn find(db: &Db, id: &GrantId) -> Result<Option<Grant>> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM oauth_grants WHERE id = $1")))
        .bind(id.as_str())
        .fetch_optional(db.reader())
        .await?;
    row.map(|row| read(&row)).transpose()
}

/// Finds a grant, ended or not, and holds its row until the transaction ends.
pub(in crate::oauth) async fn hold(tx: &mut Tx, id: &GrantId) -> Result<Option<Grant>> {
    // The update changes nothing. It locks the row in the one way that both databases support.
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "UPDATE oauth_grants SET generation = generation WHERE id = $1 RETURNING {COLUMNS}"
    )))
    .bind(id.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    row.map(|row| read(&row)).transpose()
}

/// Returns live grants of an account, of a client, or of both, the newest first.
pub(in crate::oauth) async fn list(
    db: &Db,
    did: Option<&Did>,
    client_id: Option<&str>,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Grant>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM oauth_grants
         WHERE ended_at IS NULL AND idle_until > $1 AND (did = $2 OR $2 IS NULL) AND (client_id = $3 OR $3 IS NULL)
         ORDER BY created_at DESC, id LIMIT $4"
    )))
    .bind(now.as_millis())
    .bind(did.map(Did::as_str))
    .bind(client_id)
    .bind(limit)
    .fetch_all(db.reader())
    .await?;
    rows.iter().map(read).collect()
}

/// Writes the changes of a rotation to a held grant.
pub(in crate::oauth) async fn rotate(tx: &mut Tx, grant: &Grant) -> Result<()> {
    sqlx::query(
        "UPDATE oauth_grants SET generation = $2, rotated_at = $3, rotated_before_at = $4, idle_until = $5,
            expires_at = $6, client_auth = $7 WHERE id = $1",
    )
    .bind(grant.id.as_str())
    .bind(grant.generation)
    .bind(grant.rotated_at.as_millis())
    .bind(grant.rotated_before_at.as_millis())
    .bind(grant.idle_until.as_millis())
    .bind(grant.expires_at.as_millis())
    .bind(grant.client_auth.to_json())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Ends a grant. Returns `false` if it had ended or never existed.
pub(in crate::oauth) async fn end(tx: &mut Tx, id: &GrantId, now: Timestamp) -> Result<bool> {
    let done = sqlx::query("UPDATE oauth_grants SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL")
        .bind(id.as_str())
        .bind(now.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends the grants of a home account, or those that home accounts gave a client, and returns their ids.
pub(in crate::oauth) async fn end_all_at_home(
    tx: &mut Tx,
    did: Option<&Did>,
    client_id: Option<&str>,
    now: Timestamp,
) -> Result<Vec<GrantId>> {
    let rows = sqlx::query(
        "UPDATE oauth_grants SET ended_at = $1
         WHERE ended_at IS NULL AND place = 'home' AND (did = $2 OR $2 IS NULL)
            AND (client_id = $3 OR $3 IS NULL) RETURNING id",
    )
    .bind(now.as_millis())
    .bind(did.map(Did::as_str))
    .bind(client_id)
    .fetch_all(&mut **tx)
    .await?;
    rows.iter().map(|row| Ok(row.try_get::<String, _>("id")?.into())).collect()
}

/// Returns the grants of a linked account, or those that linked accounts gave a client, which have not
/// ended: in the order of ids.
pub(in crate::oauth) async fn linked(
    tx: &mut Tx,
    did: Option<&Did>,
    client_id: Option<&str>,
) -> Result<Vec<GrantId>> {
    let rows = sqlx::query(
        "SELECT id FROM oauth_grants
         WHERE ended_at IS NULL AND place = 'link' AND (did = $1 OR $1 IS NULL)
            AND (client_id = $2 OR $2 IS NULL) ORDER BY id",
    )
    .bind(did.map(Did::as_str))
    .bind(client_id)
    .fetch_all(&mut **tx)
    .await?;
    rows.iter().map(|row| Ok(row.try_get::<String, _>("id")?.into())).collect()
}

/// Removes grants that ended or expired before `before`.
pub(in crate::oauth) async fn sweep(tx: &mut Tx, before: Timestamp) -> Result<u64> {
    let done = sqlx::query("DELETE FROM oauth_grants WHERE ended_at < $1 OR idle_until < $1")
        .bind(before.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected())
}

fn read(row: &AnyRow) -> Result<Grant> {
    let id: GrantId = row.try_get::<String, _>("id")?.into();
    let client_auth = serde_json::from_str(row.try_get("client_auth")?)
        .map_err(|_| Error::corrupt("oauth_grants", "client_auth", id.as_str()))?;
    let place = GrantPlace::parse(row.try_get("place")?)
        .ok_or_else(|| Error::corrupt("oauth_grants", "place", id.as_str()))?;
    let at = |column: &str| Ok::<_, Error>(Timestamp::from_millis(row.try_get(column)?));
    Ok(Grant {
        did: row
            .try_get::<String, _>("did")?
            .parse()
            .map_err(|_| Error::corrupt("oauth_grants", "did", id.as_str()))?,
        client_id: row.try_get("client_id")?,
        scope: ApprovedScope::stored(row.try_get("scope")?),
        dpop_key: Some(row.try_get("dpop_key")?).filter(|key: &String| !key.is_empty()),
        client_auth,
        device: row.try_get::<String, _>("device")?.into(),
        place,
        refreshable: row.try_get::<String, _>("refreshable")? == "yes",
        generation: row.try_get("generation")?,
        rotated_at: at("rotated_at")?,
        rotated_before_at: at("rotated_before_at")?,
        idle_until: at("idle_until")?,
        expires_at: at("expires_at")?,
        created_at: at("created_at")?,
        ended_at: row.try_get::<Option<i64>, _>("ended_at")?.map(Timestamp::from_millis),
        id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;
    use crate::oauth::testing::grant;

    on_each_database!(a_grant_is_read_as_it_was_written, grants_end_one_by_one_or_together);

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    async fn a_grant_is_read_as_it_was_written(db: Db) {
        let mut tx = db.begin().await.unwrap();
        insert(&mut tx, &grant()).await.unwrap();
        assert_eq!(hold(&mut tx, &grant().id).await.unwrap(), Some(grant()));
        let rotated = Grant { generation: 7, rotated_at: NOW, idle_until: NOW, ..grant() };
        rotate(&mut tx, &rotated).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(find(&db, &grant().id).await.unwrap(), Some(rotated));
        assert_eq!(find(&db, &"other".into()).await.unwrap(), None);
    }

    const ANN: &str = "did:plc:ann";

    async fn grants_end_one_by_one_or_together(db: Db) {
        let mut tx = db.begin().await.unwrap();
        for (id, did, client) in
            [("1", ANN, "app"), ("2", ANN, "other"), ("3", "did:plc:bob", "app"), ("4", ANN, "app")]
        {
            let grant =
                Grant { id: id.into(), did: did.parse().unwrap(), client_id: client.into(), ..grant() };
            insert(&mut tx, &grant).await.unwrap();
        }
        assert!(end(&mut tx, &"4".into(), NOW).await.unwrap());
        assert!(!end(&mut tx, &"4".into(), NOW).await.unwrap());
        tx.commit().await.unwrap();
        let ann: Did = ANN.parse().unwrap();
        let ids = async |did, client| {
            let grants = list(&db, did, client, NOW, 9).await.unwrap();
            let mut ids: Vec<_> = grants.into_iter().map(|grant| grant.id.to_string()).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(Some(&ann), None).await, ["1", "2"]);
        assert_eq!(ids(None, Some("app")).await, ["1", "3"]);
        assert_eq!(ids(None, None).await, ["1", "2", "3"]);
        let mut tx = db.begin().await.unwrap();
        for id in ["6", "5"] {
            let (place, did) = (GrantPlace::Link, "did:plc:bob".parse().unwrap());
            let grant = Grant { id: id.into(), place, did, client_id: "app".into(), ..grant() };
            insert(&mut tx, &grant).await.unwrap();
        }
        let mut ended = end_all_at_home(&mut tx, Some(&ann), None, NOW).await.unwrap();
        ended.sort_by_key(ToString::to_string);
        assert_eq!(ended, ["1".into(), "2".into()]);
        assert_eq!(end_all_at_home(&mut tx, None, Some("app"), NOW).await.unwrap(), ["3".into()]);
        assert_eq!(linked(&mut tx, None, Some("app")).await.unwrap(), ["5".into(), "6".into()]);
        assert!(linked(&mut tx, Some(&ann), None).await.unwrap().is_empty());
        assert!(end(&mut tx, &"5".into(), NOW).await.unwrap());
        assert_eq!(linked(&mut tx, None, None).await.unwrap(), ["6".into()]);
        assert_eq!(sweep(&mut tx, NOW).await.unwrap(), 0);
        assert_eq!(sweep(&mut tx, Timestamp::from_millis(1_001)).await.unwrap(), 5);
    }
}
