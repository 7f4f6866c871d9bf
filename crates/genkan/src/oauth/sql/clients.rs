//! Table `oauth_clients`.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::base::Timestamp;
use crate::db::sweep::Batch;
use crate::db::turns::{Turns, heal_turns};
use crate::db::{Db, Error, Result, Tx};
use crate::oauth::client_trust::ClientTrust;

/// A stored client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredClient {
    pub(crate) client_id: String,
    pub(crate) trust: ClientTrust,
    /// Whether the operator registered it for plain Bearer tokens.
    pub(crate) bearer: bool,
    /// The last good metadata document, and when it was fetched.
    pub(crate) document: Option<(String, Timestamp)>,
    /// The last good key set at its `jwks_uri`, and when it was fetched.
    pub(crate) key_set: Option<(String, Timestamp)>,
}

const COLUMNS: &str = "client_id, standing, bearer, document, fetched_at, key_set, keys_at";

pub(in crate::oauth) async fn find(db: &Db, client_id: &str) -> Result<Option<StoredClient>> {
    let row =
        sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM oauth_clients WHERE client_id = $1")))
            .bind(client_id)
            .fetch_optional(db.reader())
            .await?;
    row.map(|row| read(&row)).transpose()
}

/// Returns the operator's decisions about a client without its documents: the trust, and whether it
/// gets Bearer tokens.
pub(in crate::oauth) async fn trust(db: &Db, client_id: &str) -> Result<Option<(ClientTrust, bool)>> {
    // The documents can be large, and only the decision is needed here.
    let row = sqlx::query("SELECT standing, bearer FROM oauth_clients WHERE client_id = $1")
        .bind(client_id)
        .fetch_optional(db.reader())
        .await?;
    let Some(row) = row else { return Ok(None) };
    let trust = ClientTrust::parse(row.try_get("standing")?);
    let trust = trust.ok_or_else(|| Error::corrupt("oauth_clients", "standing", client_id))?;
    Ok(Some((trust, row.try_get::<String, _>("bearer")? == "yes")))
}

/// Returns the clients with this trust, or all clients, by name: up to 200 after `after`.
pub(in crate::oauth) async fn list(
    db: &Db,
    trust: Option<ClientTrust>,
    after: &str,
) -> Result<Vec<StoredClient>> {
    let condition = if trust.is_some() { "standing = $2 AND" } else { "" };
    let text = format!(
        "SELECT {COLUMNS} FROM oauth_clients WHERE {condition} client_id > $1 ORDER BY client_id LIMIT 200"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(after);
    let query = if let Some(trust) = trust { query.bind(trust.as_str()) } else { query };
    query.fetch_all(db.reader()).await?.iter().map(read).collect()
}

/// Returns the ids of blocked clients.
pub(in crate::oauth) async fn blocked(db: &Db) -> Result<Vec<String>> {
    let rows = sqlx::query("SELECT client_id FROM oauth_clients WHERE standing = 'blocked'")
        .fetch_all(db.reader())
        .await?;
    rows.iter().map(|row| Ok(row.try_get("client_id")?)).collect()
}

/// Holds the row of a client that is blocked until `tx` ends. Returns `false` if it is not blocked.
pub(in crate::oauth) async fn hold_blocked(tx: &mut Tx, client_id: &str) -> Result<bool> {
    let held = sqlx::query(
        "UPDATE oauth_clients SET standing = standing WHERE client_id = $1 AND standing = 'blocked'",
    )
    .bind(client_id)
    .execute(&mut **tx)
    .await?;
    Ok(held.rows_affected() == 1)
}

pub(in crate::oauth) async fn put_document(
    tx: &mut Tx,
    client_id: &str,
    document: &str,
    now: Timestamp,
) -> Result<()> {
    // `standing` does not change, so the operator's decision survives every fetch.
    sqlx::query(
        "INSERT INTO oauth_clients (client_id, standing, document, fetched_at, created_at)
         VALUES ($1, 'known', $2, $3, $3)
         ON CONFLICT (client_id) DO UPDATE SET document = excluded.document, fetched_at = excluded.fetched_at",
    )
    .bind(client_id)
    .bind(document)
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(in crate::oauth) async fn put_keys(
    tx: &mut Tx,
    client_id: &str,
    keys: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO oauth_clients (client_id, standing, key_set, keys_at, created_at)
         VALUES ($1, 'known', $2, $3, $3)
         ON CONFLICT (client_id) DO UPDATE SET key_set = excluded.key_set, keys_at = excluded.keys_at",
    )
    .bind(client_id)
    .bind(keys)
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(in crate::oauth) async fn set_trust(
    tx: &mut Tx,
    client_id: &str,
    trust: ClientTrust,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO oauth_clients (client_id, standing, created_at) VALUES ($1, $2, $3)
         ON CONFLICT (client_id) DO UPDATE SET standing = excluded.standing",
    )
    .bind(client_id)
    .bind(trust.as_str())
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(in crate::oauth) async fn set_bearer(
    tx: &mut Tx,
    client_id: &str,
    bearer: bool,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO oauth_clients (client_id, standing, bearer, created_at) VALUES ($1, 'known', $2, $3)
         ON CONFLICT (client_id) DO UPDATE SET bearer = excluded.bearer",
    )
    .bind(client_id)
    .bind(if bearer { "yes" } else { "no" })
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Looks at a batch of clients whose turn has come. Removes those that have no decision and no
/// grant, and whose documents were not fetched since `before`; looks at the others again at
/// `again_at`.
pub(in crate::oauth) async fn sweep(
    db: &Db,
    before: Timestamp,
    now: Timestamp,
    again_at: Timestamp,
) -> Result<Batch> {
    let mut tx = db.begin().await?;
    heal_turns(&mut *tx, &TURNS, now, again_at).await?;
    let most = db.rows_at_once();
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        // In turns, because most clients have a grant: a look at all of them each time would read
        // the whole table.
        "UPDATE oauth_clients SET sweep_at = $2 WHERE sweep_at <= $1 AND client_id IN (
            SELECT client_id FROM oauth_clients WHERE sweep_at <= $1 ORDER BY sweep_at LIMIT {most})
         RETURNING client_id"
    )))
    .bind(now.as_millis())
    .bind(again_at.as_millis())
    .fetch_all(&mut *tx)
    .await?;
    let mut removed = 0;
    for row in &rows {
        let done = sqlx::query(
            // Anyone can have a client stored by a request. Rows with a decision of the operator
            // are kept.
            "DELETE FROM oauth_clients WHERE client_id = $1 AND standing = 'known' AND bearer = 'no'
             AND created_at < $2 AND (fetched_at IS NULL OR fetched_at < $2)
             AND NOT EXISTS (SELECT 1 FROM oauth_grants WHERE oauth_grants.client_id = $1 AND ended_at IS NULL)
             AND NOT EXISTS (
                SELECT 1 FROM oauth_grants WHERE oauth_grants.client_id = $1 AND ended_at IS NOT NULL)",
        )
        .bind(row.try_get::<String, _>("client_id")?)
        .bind(before.as_millis())
        .execute(&mut *tx)
        .await?;
        removed += done.rows_affected();
    }
    tx.commit().await?;
    Ok(Batch { removed, has_more: rows.len() as u64 >= most, reached: None })
}

const TURNS: Turns = Turns { table: "oauth_clients", key: "client_id", column: "sweep_at", only: None };

fn read(row: &AnyRow) -> Result<StoredClient> {
    let client_id: String = row.try_get("client_id")?;
    let trust = ClientTrust::parse(row.try_get("standing")?)
        .ok_or_else(|| Error::corrupt("oauth_clients", "standing", &client_id))?;
    Ok(StoredClient {
        client_id,
        trust,
        bearer: row.try_get::<String, _>("bearer")? == "yes",
        document: dated(row, "document", "fetched_at")?,
        key_set: dated(row, "key_set", "keys_at")?,
    })
}

fn dated(row: &AnyRow, text: &str, at: &str) -> Result<Option<(String, Timestamp)>> {
    let text: Option<String> = row.try_get(text)?;
    let at: Option<i64> = row.try_get(at)?;
    // Text and time are written together. A row with only one of them counts as having neither.
    Ok(text.zip(at.map(Timestamp::from_millis)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;
    use crate::oauth::testing::grant;

    on_each_database!(
        what_is_known_and_what_is_decided_are_kept_apart,
        unregistered_clients_without_grants_are_forgotten
    );

    const AT: Timestamp = Timestamp::from_millis(100);

    async fn what_is_known_and_what_is_decided_are_kept_apart(db: Db) {
        let mut tx = db.begin().await.unwrap();
        put_document(&mut tx, "b", "{}", AT).await.unwrap();
        set_trust(&mut tx, "b", ClientTrust::Blocked, AT).await.unwrap();
        put_document(&mut tx, "b", "{\"a\":1}", AT).await.unwrap();
        set_trust(&mut tx, "a", ClientTrust::Trusted, AT).await.unwrap();
        put_keys(&mut tx, "a", "[]", AT).await.unwrap();
        tx.commit().await.unwrap();
        let found = find(&db, "b").await.unwrap().unwrap();
        assert_eq!(found.trust, ClientTrust::Blocked);
        assert_eq!(trust(&db, "b").await.unwrap(), Some((ClientTrust::Blocked, false)));
        assert_eq!(trust(&db, "c").await.unwrap(), None);
        assert_eq!(found.document, Some(("{\"a\":1}".to_owned(), AT)));
        let names = |all: Vec<StoredClient>| all.into_iter().map(|one| one.client_id).collect::<Vec<_>>();
        assert_eq!(names(list(&db, None, "").await.unwrap()), ["a", "b"]);
        assert_eq!(names(list(&db, None, "a").await.unwrap()), ["b"]);
        assert_eq!(blocked(&db).await.unwrap(), ["b"]);
        assert_eq!(names(list(&db, Some(ClientTrust::Trusted), "").await.unwrap()), ["a"]);
        let found = find(&db, "a").await.unwrap().unwrap();
        assert_eq!((found.document, found.key_set), (None, Some(("[]".to_owned(), AT))));
    }

    async fn unregistered_clients_without_grants_are_forgotten(db: Db) {
        let mut tx = db.begin().await.unwrap();
        put_document(&mut tx, "unregistered", "{}", AT).await.unwrap();
        put_document(&mut tx, &grant().client_id, "{}", AT).await.unwrap();
        set_trust(&mut tx, "trusted", ClientTrust::Trusted, AT).await.unwrap();
        super::super::grants::insert(&mut tx, &grant()).await.unwrap();
        tx.commit().await.unwrap();
        let (later, again_at) = (Timestamp::from_millis(101), Timestamp::from_millis(200));
        assert_eq!(sweep(&db, AT, later, later).await.unwrap().removed, 0);
        let ahead = "UPDATE oauth_clients SET sweep_at = 1000000";
        sqlx::query(ahead).execute(db.writer()).await.unwrap();
        assert_eq!(sweep(&db, later, later, again_at).await.unwrap().removed, 1, "by a clock that was ahead");
        assert!(find(&db, "trusted").await.unwrap().is_some());
        assert!(find(&db, "unregistered").await.unwrap().is_none());
    }
}
