//! Table `oauth_codes`.

use genkan_protocol::syntax::Did;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Error, Result, Tx};
use crate::oauth::ids::{CodeId, GrantId};
use crate::oauth::parameters::RequestParameters;
use crate::oauth::scope::ApprovedScope;
use crate::signin::DeviceId;

/// A stored code, without the code itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::oauth) struct StoredCode {
    pub(in crate::oauth) client_id: String,
    pub(in crate::oauth) pushed: RequestParameters,
    pub(in crate::oauth) scope: ApprovedScope,
    pub(in crate::oauth) did: Did,
    pub(in crate::oauth) device: DeviceId,
    pub(in crate::oauth) expires_at: Timestamp,
    pub(in crate::oauth) grant_id: Option<GrantId>,
    /// The id of the link that waits for this code, for an account on an external PDS. The grant gets
    /// that id.
    pub(in crate::oauth) link: Option<GrantId>,
}

pub(in crate::oauth) async fn insert(tx: &mut Tx, id: &CodeId, code: &StoredCode) -> Result<()> {
    sqlx::query(
        "INSERT INTO oauth_codes (hash, client_id, pushed, scope, did, device, expires_at, link)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(id.as_str())
    .bind(&code.client_id)
    .bind(code.pushed.to_json())
    .bind(code.scope.as_str())
    .bind(code.did.as_str())
    .bind(code.device.as_str())
    .bind(code.expires_at.as_millis())
    .bind(code.link.as_ref().map(GrantId::as_str))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Uses a code up, for a grant of this id, or of its link's if it has one. Returns `true` for its
/// first use, and `None` if there is no such code.
///
/// A caller that makes no grant of it calls [`disown`] in the same transaction.
pub(in crate::oauth) async fn take(
    tx: &mut Tx,
    id: &CodeId,
    grant: &GrantId,
    now: Timestamp,
) -> Result<Option<(bool, StoredCode)>> {
    // The update decides who is first. Of two at once, the second waits for the first one's
    // transaction and then matches no row.
    let taken = sqlx::query(
        "UPDATE oauth_codes SET used_at = $2, grant_id = COALESCE(link, $3)
         WHERE hash = $1 AND used_at IS NULL
         RETURNING client_id, pushed, scope, did, device, expires_at, grant_id, link",
    )
    .bind(id.as_str())
    .bind(now.as_millis())
    .bind(grant.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    let first = taken.is_some();
    let row = if let Some(row) = taken {
        Some(row)
    } else {
        let used = sqlx::query(
            "SELECT client_id, pushed, scope, did, device, expires_at, grant_id, link
             FROM oauth_codes WHERE hash = $1",
        );
        used.bind(id.as_str()).fetch_optional(&mut **tx).await?
    };
    let Some(row) = row else { return Ok(None) };
    let pushed = serde_json::from_str(row.try_get("pushed")?)
        .map_err(|_| Error::corrupt("oauth_codes", "pushed", id.as_str()))?;
    let stored = StoredCode {
        client_id: row.try_get("client_id")?,
        pushed,
        scope: ApprovedScope::stored(row.try_get("scope")?),
        did: did_of(&row, id)?,
        device: row.try_get::<String, _>("device")?.into(),
        expires_at: Timestamp::from_millis(row.try_get("expires_at")?),
        grant_id: row.try_get::<Option<String>, _>("grant_id")?.map(GrantId::from),
        link: row.try_get::<Option<String>, _>("link")?.map(GrantId::from),
    };
    Ok(Some((first, stored)))
}

/// What is known of a code before it is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::oauth) struct PeekedCode {
    pub(in crate::oauth) client_id: String,
    pub(in crate::oauth) did: Did,
    pub(in crate::oauth) scope: ApprovedScope,
    pub(in crate::oauth) expires_at: Timestamp,
    pub(in crate::oauth) is_used: bool,
}

/// Reads a code without using it up.
pub(in crate::oauth) async fn peek(db: &Db, id: &CodeId) -> Result<Option<PeekedCode>> {
    let row =
        sqlx::query("SELECT client_id, did, scope, expires_at, used_at FROM oauth_codes WHERE hash = $1")
            .bind(id.as_str())
            .fetch_optional(db.reader())
            .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(PeekedCode {
        client_id: row.try_get("client_id")?,
        did: did_of(&row, id)?,
        scope: ApprovedScope::stored(row.try_get("scope")?),
        expires_at: Timestamp::from_millis(row.try_get("expires_at")?),
        is_used: row.try_get::<Option<i64>, _>("used_at")?.is_some(),
    }))
}

fn did_of(row: &AnyRow, id: &CodeId) -> Result<Did> {
    row.try_get::<String, _>("did")?.parse().map_err(|_| Error::corrupt("oauth_codes", "did", id.as_str()))
}

/// Returns the grant that a code became.
pub(in crate::oauth) async fn grant_of(db: &Db, id: &CodeId) -> Result<Option<GrantId>> {
    let row = sqlx::query("SELECT grant_id FROM oauth_codes WHERE hash = $1")
        .bind(id.as_str())
        .fetch_optional(db.reader())
        .await?;
    let grant = row.map(|row| row.try_get::<Option<String>, _>("grant_id")).transpose()?.flatten();
    Ok(grant.map(GrantId::from))
}

/// Says that a code which was taken in `tx` became no grant.
pub(in crate::oauth) async fn disown(tx: &mut Tx, id: &CodeId) -> Result<()> {
    sqlx::query("UPDATE oauth_codes SET grant_id = NULL WHERE hash = $1")
        .bind(id.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Removes an account's unused codes.
pub(in crate::oauth) async fn remove_unused_of(tx: &mut Tx, did: &Did) -> Result<()> {
    sqlx::query("DELETE FROM oauth_codes WHERE did = $1 AND used_at IS NULL")
        .bind(did.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Removes a batch of codes that expired in `range` and never became a grant.
///
/// A second use of a code ends its grant, so the code of a grant is kept as long as the grant: see
/// [`remove_of_grant`].
pub(in crate::oauth) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch> {
    let old =
        OldRows { table: "oauth_codes", key: "hash", time: "expires_at", only: Some("grant_id IS NULL") };
    old.sweep(db, range).await
}

/// Removes the code of a grant that is removed in `tx`.
pub(in crate::oauth) async fn remove_of_grant(tx: &mut Tx, grant: &GrantId) -> Result<()> {
    sqlx::query("DELETE FROM oauth_codes WHERE grant_id = $1")
        .bind(grant.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Returns a batch of links whose code expired before `now` without becoming a grant.
pub(in crate::oauth) async fn unredeemed(db: &Db, now: Timestamp) -> Result<Vec<(CodeId, GrantId)>> {
    let rows = sqlx::query(
        "SELECT hash, link FROM oauth_codes WHERE grant_id IS NULL AND link IS NOT NULL AND expires_at <= $1
         ORDER BY expires_at LIMIT 200",
    )
    .bind(now.as_millis())
    .fetch_all(db.reader())
    .await?;
    rows.iter()
        .map(|row| {
            let (hash, link): (String, String) = (row.try_get("hash")?, row.try_get("link")?);
            Ok((CodeId::from(hash.as_str()), link.into()))
        })
        .collect()
}

/// Separates an expired code from its link, which ends. Returns `false` if the code became a grant.
pub(in crate::oauth) async fn drop_link(tx: &mut Tx, id: &CodeId) -> Result<bool> {
    let done = sqlx::query("UPDATE oauth_codes SET link = NULL WHERE hash = $1 AND grant_id IS NULL")
        .bind(id.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;
    use crate::oauth::testing::{grant, pushed};

    on_each_database!(
        a_code_is_first_used_once,
        a_code_loses_its_link_unless_it_became_a_grant,
        a_code_stays_as_long_as_its_grant
    );

    fn code() -> StoredCode {
        StoredCode {
            client_id: "https://app.example.com/c.json".to_owned(),
            pushed: pushed(),
            scope: ApprovedScope::stored("atproto".to_owned()),
            did: "did:plc:ann".parse().unwrap(),
            device: "dev-1".into(),
            expires_at: Timestamp::from_millis(100),
            grant_id: None,
            link: None,
        }
    }

    async fn a_code_is_first_used_once(db: Db) {
        let now = Timestamp::from_millis(50);
        let mut tx = db.begin().await.unwrap();
        insert(&mut tx, &"h".into(), &code()).await.unwrap();
        let g = GrantId::from("g".to_owned());
        assert_eq!(take(&mut tx, &"other".into(), &g, now).await.unwrap(), None);
        let taken = StoredCode { grant_id: Some(g.clone()), ..code() };
        assert_eq!(take(&mut tx, &"h".into(), &g, now).await.unwrap(), Some((true, taken)));
        let (first, again) = take(&mut tx, &"h".into(), &"g2".into(), now).await.unwrap().unwrap();
        assert_eq!((first, again.grant_id), (false, Some(g)));
        tx.commit().await.unwrap();
        assert_eq!(grant_of(&db, &"h".into()).await.unwrap(), Some("g".into()));
        let peeked = peek(&db, &"h".into()).await.unwrap().unwrap();
        assert_eq!((peeked.did.as_str(), peeked.scope.as_str()), ("did:plc:ann", "atproto"));
        assert!(peeked.is_used);
    }

    async fn a_code_loses_its_link_unless_it_became_a_grant(db: Db) {
        let mut tx = db.begin().await.unwrap();
        for hash in ["unused", "used"] {
            let linked = StoredCode { link: Some("link".into()), ..code() };
            insert(&mut tx, &hash.into(), &linked).await.unwrap();
        }
        let now = Timestamp::from_millis(50);
        let (_, used) = take(&mut tx, &"used".into(), &"g".into(), now).await.unwrap().unwrap();
        assert_eq!(used.grant_id, Some("link".into()), "the grant of a linked account has its link's id");
        assert!(drop_link(&mut tx, &"unused".into()).await.unwrap());
        assert!(!drop_link(&mut tx, &"used".into()).await.unwrap());
        let (_, unused) = take(&mut tx, &"unused".into(), &"g".into(), now).await.unwrap().unwrap();
        assert_eq!(unused.link, None);
        disown(&mut tx, &"unused".into()).await.unwrap();
        let (first, refused) = take(&mut tx, &"unused".into(), &"g".into(), now).await.unwrap().unwrap();
        assert_eq!((first, refused.grant_id), (false, None), "used up, and no grant");
        tx.commit().await.unwrap();
    }

    async fn a_code_stays_as_long_as_its_grant(db: Db) {
        let later = Timestamp::from_millis(101);
        let mut tx = db.begin().await.unwrap();
        for hash in ["used", "unused", "of-bob"] {
            let did = if hash == "of-bob" { "did:plc:bob" } else { "did:plc:ann" };
            insert(&mut tx, &hash.into(), &StoredCode { did: did.parse().unwrap(), ..code() }).await.unwrap();
        }
        let grant = grant();
        take(&mut tx, &"used".into(), &grant.id, later).await.unwrap();
        super::super::grants::insert(&mut tx, &grant).await.unwrap();
        remove_unused_of(&mut tx, &"did:plc:ann".parse().unwrap()).await.unwrap();
        assert!(take(&mut tx, &"unused".into(), &grant.id, later).await.unwrap().is_none());
        tx.commit().await.unwrap();
        assert_eq!(sweep(&db, later.into()).await.unwrap().removed, 1);
        let mut tx = db.begin().await.unwrap();
        assert!(take(&mut tx, &"of-bob".into(), &grant.id, later).await.unwrap().is_none());
        assert!(take(&mut tx, &"used".into(), &grant.id, later).await.unwrap().is_some());
        tx.commit().await.unwrap();
        let end = grant.idle_until.plus(std::time::Duration::from_secs(1));
        assert_eq!(super::super::grants::sweep_idle(&db, end.into()).await.unwrap().removed, 1);
        let mut tx = db.begin().await.unwrap();
        assert!(
            take(&mut tx, &"used".into(), &grant.id, later).await.unwrap().is_none(),
            "it goes with its grant"
        );
    }
}
