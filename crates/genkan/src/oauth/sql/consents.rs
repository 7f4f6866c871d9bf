//! Table `oauth_consents`.

use genkan_protocol::syntax::Did;
use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::{Db, Result, Tx};
use crate::oauth::scope::ApprovedScope;

/// Returns every scope value that the account ever granted to the client.
pub(in crate::oauth) async fn of(db: &Db, did: &Did, client_id: &str) -> Result<Vec<String>> {
    let row = sqlx::query("SELECT scope FROM oauth_consents WHERE did = $1 AND client_id = $2")
        .bind(did.as_str())
        .bind(client_id)
        .fetch_optional(db.reader())
        .await?;
    let scope: Option<String> = row.map(|row| row.try_get("scope")).transpose()?;
    Ok(scope.unwrap_or_default().split_whitespace().map(str::to_owned).collect())
}

/// Adds these values to the remembered ones. If there are too many, the newest stay.
pub(in crate::oauth) async fn add(
    tx: &mut Tx,
    did: &Did,
    client_id: &str,
    scope: &ApprovedScope,
    now: Timestamp,
) -> Result<()> {
    let values: Vec<&str> = scope.values().collect();
    let row = sqlx::query("SELECT scope FROM oauth_consents WHERE did = $1 AND client_id = $2")
        .bind(did.as_str())
        .bind(client_id)
        .fetch_optional(&mut **tx)
        .await?;
    let known: Option<String> = row.map(|row| row.try_get("scope")).transpose()?;
    // The new values come first, so that `take` drops the oldest ones.
    let known = known.unwrap_or_default();
    let older = known.split_whitespace().filter(|value| !values.contains(value));
    let all: Vec<&str> = values.iter().copied().chain(older).take(MOST).collect();
    sqlx::query(
        "INSERT INTO oauth_consents (did, client_id, scope, updated_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (did, client_id) DO UPDATE SET scope = excluded.scope, updated_at = excluded.updated_at",
    )
    .bind(did.as_str())
    .bind(client_id)
    .bind(all.join(" "))
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Forgets everything that an account allowed.
pub(in crate::oauth) async fn remove_all(tx: &mut Tx, did: &Did) -> Result<()> {
    sqlx::query("DELETE FROM oauth_consents WHERE did = $1").bind(did.as_str()).execute(&mut **tx).await?;
    Ok(())
}

/// Forgets what an account allowed one client.
pub(in crate::oauth) async fn remove(tx: &mut Tx, did: &Did, client_id: &str) -> Result<()> {
    sqlx::query("DELETE FROM oauth_consents WHERE did = $1 AND client_id = $2")
        .bind(did.as_str())
        .bind(client_id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The most values remembered per client. A client that asks for more each time leads to another
/// consent page.
const MOST: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    fn approved(scope: &str) -> ApprovedScope {
        ApprovedScope::stored(scope.to_owned())
    }

    on_each_database!(consents_are_remembered_until_they_are_revoked);

    async fn consents_are_remembered_until_they_are_revoked(db: Db) {
        let now = Timestamp::from_millis(1);
        let [ann, bob]: [Did; 2] = ["did:plc:ann", "did:plc:bob"].map(|did| did.parse().unwrap());
        let mut tx = db.begin().await.unwrap();
        add(&mut tx, &ann, "app", &approved("atproto"), now).await.unwrap();
        add(&mut tx, &ann, "app", &approved("repo:*"), now).await.unwrap();
        add(&mut tx, &ann, "other", &approved("atproto"), now).await.unwrap();
        add(&mut tx, &bob, "app", &approved("atproto"), now).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(of(&db, &ann, "app").await.unwrap(), ["repo:*", "atproto"]);
        assert!(of(&db, &ann, "third").await.unwrap().is_empty());

        let mut tx = db.begin().await.unwrap();
        remove(&mut tx, &ann, "app").await.unwrap();
        tx.commit().await.unwrap();
        assert!(of(&db, &ann, "app").await.unwrap().is_empty());
        assert_eq!(of(&db, &ann, "other").await.unwrap(), ["atproto"]);

        let mut tx = db.begin().await.unwrap();
        remove_all(&mut tx, &ann).await.unwrap();
        tx.commit().await.unwrap();
        assert!(of(&db, &ann, "other").await.unwrap().is_empty());
        assert_eq!(of(&db, &bob, "app").await.unwrap(), ["atproto"]);
    }
}
