//! Table `oauth_grants`.

use std::collections::HashSet;

use genkan_protocol::syntax::Did;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Error, Result, Tx};
use crate::oauth::grant::{Grant, GrantPlace};
use crate::oauth::ids::GrantId;
use crate::oauth::scope::ApprovedScope;
use crate::oauth::sql::codes;

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

/// Returns which of these grants are alive.
pub(in crate::oauth) async fn alive_among(
    db: &Db,
    ids: &[GrantId],
    now: Timestamp,
) -> Result<HashSet<GrantId>> {
    // One statement for a page. The text is built from numbers only.
    let places: Vec<String> = (2..ids.len() + 2).map(|place| format!("${place}")).collect();
    let text = format!(
        "SELECT id FROM oauth_grants WHERE ended_at IS NULL AND idle_until > $1 AND id IN ({})",
        places.join(", ")
    );
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let mut query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(now.as_millis());
    for id in ids {
        query = query.bind(id.as_str());
    }
    query.fetch_all(db.reader()).await?.iter().map(id_of).collect()
}

/// Which grants to list.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GrantsOf<'a> {
    Everybody,
    Account(&'a Did),
    Client(&'a str),
    Both(&'a Did, &'a str),
}

/// Returns live grants, the newest first.
pub(in crate::oauth) async fn list(
    db: &Db,
    whose: GrantsOf<'_>,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Grant>> {
    // A text for each kind: with `did = $2 OR $2 IS NULL` no index would serve any of them.
    let condition = match whose {
        GrantsOf::Everybody => "",
        GrantsOf::Account(_) => "AND did = $3",
        GrantsOf::Client(_) => "AND client_id = $3",
        GrantsOf::Both(..) => "AND did = $3 AND client_id = $4",
    };
    let text = format!(
        "SELECT {COLUMNS} FROM oauth_grants WHERE ended_at IS NULL AND idle_until > $1 {condition}
         ORDER BY created_at DESC, id LIMIT $2"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(now.as_millis()).bind(limit);
    let query = match whose {
        GrantsOf::Everybody => query,
        GrantsOf::Account(did) => query.bind(did.as_str()),
        GrantsOf::Client(client_id) => query.bind(client_id),
        GrantsOf::Both(did, client_id) => query.bind(did.as_str()).bind(client_id),
    };
    query.fetch_all(db.reader()).await?.iter().map(read).collect()
}

/// Writes the changes of a rotation. Returns `false`, and writes nothing, if the row is no longer as
/// `found`: another request has rotated or ended the grant.
pub(in crate::oauth) async fn rotate(tx: &mut Tx, found: &Grant, grant: &Grant) -> Result<bool> {
    // Only rotations change the compared columns, and `client_auth` with them.
    let done = sqlx::query(
        "UPDATE oauth_grants SET generation = $2, rotated_at = $3, rotated_before_at = $4, idle_until = $5,
            expires_at = $6, client_auth = $7
         WHERE id = $1 AND generation = $8 AND rotated_at = $9 AND ended_at IS NULL",
    )
    .bind(grant.id.as_str())
    .bind(grant.generation)
    .bind(grant.rotated_at.as_millis())
    .bind(grant.rotated_before_at.as_millis())
    .bind(grant.idle_until.as_millis())
    .bind(grant.expires_at.as_millis())
    .bind(grant.client_auth.to_json())
    .bind(found.generation)
    .bind(found.rotated_at.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
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

/// Ends the grants of a home account, and returns their ids.
pub(in crate::oauth) async fn end_all_at_home(
    tx: &mut Tx,
    did: &Did,
    now: Timestamp,
) -> Result<Vec<GrantId>> {
    let rows = sqlx::query(
        "UPDATE oauth_grants SET ended_at = $1 WHERE ended_at IS NULL AND place = 'home' AND did = $2
         RETURNING id",
    )
    .bind(now.as_millis())
    .bind(did.as_str())
    .fetch_all(&mut **tx)
    .await?;
    rows.iter().map(id_of).collect()
}

/// Returns the grants of a linked account that have not ended, in the order of ids.
pub(in crate::oauth) async fn linked(tx: &mut Tx, did: &Did) -> Result<Vec<GrantId>> {
    let rows = sqlx::query(
        "SELECT id FROM oauth_grants WHERE ended_at IS NULL AND place = 'link' AND did = $1 ORDER BY id",
    )
    .bind(did.as_str())
    .fetch_all(&mut **tx)
    .await?;
    rows.iter().map(id_of).collect()
}

/// Returns a batch of a client's grants that have not ended, in the order of ids.
pub(in crate::oauth) async fn some_of_client(
    tx: &mut Tx,
    client_id: &str,
    most: u64,
) -> Result<Vec<GrantId>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT id FROM oauth_grants WHERE ended_at IS NULL AND client_id = $1
         ORDER BY created_at LIMIT {most}"
    )))
    .bind(client_id)
    .fetch_all(&mut **tx)
    .await?;
    let mut ids: Vec<GrantId> = rows.iter().map(id_of).collect::<Result<_>>()?;
    ids.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    Ok(ids)
}

/// A grant that ran out, and when: a position in the order of these times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::oauth) struct IdleGrant {
    pub(in crate::oauth) id: GrantId,
    until: i64,
}

/// Returns a batch of linked accounts' grants that ran out and have not ended, after another one in
/// the order of the times at which they ran out.
pub(in crate::oauth) async fn linked_and_idle(
    db: &Db,
    after: Option<&IdleGrant>,
    now: Timestamp,
) -> Result<Vec<IdleGrant>> {
    let rows = sqlx::query(
        "SELECT id, idle_until FROM oauth_grants WHERE ended_at IS NULL AND place = 'link'
         AND idle_until <= $1 AND (idle_until, id) > ($2, $3) ORDER BY idle_until, id LIMIT 200",
    )
    .bind(now.as_millis())
    .bind(after.map_or(i64::MIN, |after| after.until))
    .bind(after.map_or("", |after| after.id.as_str()))
    .fetch_all(db.reader())
    .await?;
    rows.iter().map(|row| Ok(IdleGrant { id: id_of(row)?, until: row.try_get("idle_until")? })).collect()
}

/// Removes a batch of grants that ended in `range`, with their codes.
pub(in crate::oauth) async fn sweep_ended(db: &Db, range: SweepRange) -> Result<Batch> {
    sweep(db, range, OldRows { table: "oauth_grants", key: "id", time: "ended_at", only: None }).await
}

/// Removes a batch of home accounts' grants that ran out in `range`, with their codes. Those of
/// linked accounts end first, together with their links.
pub(in crate::oauth) async fn sweep_idle(db: &Db, range: SweepRange) -> Result<Batch> {
    let only = Some("place = 'home'");
    sweep(db, range, OldRows { table: "oauth_grants", key: "id", time: "idle_until", only }).await
}

async fn sweep(db: &Db, range: SweepRange, old: OldRows) -> Result<Batch> {
    let mut tx = db.begin().await?;
    let rows = old.remove(&mut *tx, range, db.rows_at_once()).await?;
    for row in &rows {
        codes::remove_of_grant(&mut tx, &id_of(row)?).await?;
    }
    tx.commit().await?;
    old.batch(db, range, &rows).await
}

fn id_of(row: &AnyRow) -> Result<GrantId> {
    Ok(row.try_get::<String, _>("id")?.into())
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

    on_each_database!(
        a_grant_is_read_as_it_was_written,
        a_grant_that_has_changed_is_not_rotated,
        grants_end_one_by_one_or_together
    );

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    async fn a_grant_is_read_as_it_was_written(db: Db) {
        let mut tx = db.begin().await.unwrap();
        insert(&mut tx, &grant()).await.unwrap();
        assert_eq!(hold(&mut tx, &grant().id).await.unwrap(), Some(grant()));
        let rotated = Grant { generation: 7, rotated_at: NOW, idle_until: NOW, ..grant() };
        assert!(rotate(&mut tx, &grant(), &rotated).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(find(&db, &grant().id).await.unwrap(), Some(rotated));
        assert_eq!(find(&db, &"other".into()).await.unwrap(), None);
    }

    async fn a_grant_that_has_changed_is_not_rotated(db: Db) {
        let mut tx = db.begin().await.unwrap();
        insert(&mut tx, &grant()).await.unwrap();
        let once = Grant { generation: grant().generation + 1, rotated_at: NOW, ..grant() };
        assert!(rotate(&mut tx, &grant(), &once).await.unwrap());
        let twice = Grant { generation: once.generation + 1, ..once.clone() };
        assert!(!rotate(&mut tx, &grant(), &twice).await.unwrap(), "another request was first");
        assert_eq!(hold(&mut tx, &grant().id).await.unwrap(), Some(once.clone()));
        assert!(end(&mut tx, &grant().id, NOW).await.unwrap());
        assert!(!rotate(&mut tx, &once, &twice).await.unwrap(), "it has ended");
        tx.commit().await.unwrap();
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
        let ids = async |whose| {
            let grants = list(&db, whose, NOW, 9).await.unwrap();
            let mut ids: Vec<_> = grants.into_iter().map(|grant| grant.id.to_string()).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(GrantsOf::Account(&ann)).await, ["1", "2"]);
        assert_eq!(ids(GrantsOf::Client("app")).await, ["1", "3"]);
        assert_eq!(ids(GrantsOf::Both(&ann, "app")).await, ["1"]);
        assert_eq!(ids(GrantsOf::Everybody).await, ["1", "2", "3"]);
        let mut tx = db.begin().await.unwrap();
        for id in ["6", "5"] {
            let (place, did) = (GrantPlace::Link, "did:plc:bob".parse().unwrap());
            let grant = Grant { id: id.into(), place, did, client_id: "app".into(), ..grant() };
            insert(&mut tx, &grant).await.unwrap();
        }
        let mut ended = end_all_at_home(&mut tx, &ann, NOW).await.unwrap();
        ended.sort_by_key(ToString::to_string);
        assert_eq!(ended, ["1".into(), "2".into()]);
        assert_eq!(some_of_client(&mut tx, "app", 9).await.unwrap(), ["3".into(), "5".into(), "6".into()]);
        let bob = "did:plc:bob".parse().unwrap();
        assert_eq!(linked(&mut tx, &bob).await.unwrap(), ["5".into(), "6".into()]);
        assert!(linked(&mut tx, &ann).await.unwrap().is_empty());
        for id in ["3", "5"] {
            assert!(end(&mut tx, &id.into(), NOW).await.unwrap());
        }
        assert_eq!(linked(&mut tx, &bob).await.unwrap(), ["6".into()]);
        tx.commit().await.unwrap();
        let swept = async |before: Timestamp| {
            let (ended, idle) = (
                sweep_ended(&db, before.into()).await.unwrap(),
                sweep_idle(&db, before.into()).await.unwrap(),
            );
            ended.removed + idle.removed
        };
        assert_eq!(swept(NOW).await, 0);
        assert_eq!(swept(Timestamp::from_millis(1_001)).await, 5);
        let idle = grant().idle_until.plus(std::time::Duration::from_secs(1));
        let found = linked_and_idle(&db, None, idle).await.unwrap();
        assert_eq!(found.iter().map(|idle| idle.id.as_str()).collect::<Vec<_>>(), ["6"]);
        assert_eq!(linked_and_idle(&db, found.last(), idle).await.unwrap(), []);
        assert_eq!(swept(idle).await, 0, "a linked account's grant ends first");
    }
}
