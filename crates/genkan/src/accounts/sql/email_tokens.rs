//! Table `email_tokens`.

use genkan_protocol::syntax::Did;
use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::sweep::{Batch, sweep_batch};
use crate::db::{self, Db, Error, Tx};
use crate::mail::Reason;

/// A stored code.
#[derive(Debug)]
pub(in crate::accounts) struct Row {
    pub(in crate::accounts) did: Did,
    pub(in crate::accounts) hash: String,
    pub(in crate::accounts) expires_at: Timestamp,
}

/// Replaces the account's code for this purpose.
pub(in crate::accounts) async fn put(tx: &mut Tx, row: &Row, reason: Reason) -> db::Result<()> {
    sqlx::query(
        "INSERT INTO email_tokens (did, purpose, hash, tries, expires_at) VALUES ($1, $2, $3, 0, $4)
         ON CONFLICT (did, purpose) DO UPDATE SET hash = $3, tries = 0, expires_at = $4",
    )
    .bind(row.did.as_str())
    .bind(reason.as_str())
    .bind(&row.hash)
    .bind(row.expires_at.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Counts an attempt at an account's code and returns the code. Returns `None` if there is none or
/// too many attempts were made.
pub(in crate::accounts) async fn attempt(
    tx: &mut Tx,
    did: &Did,
    reason: Reason,
    most: i64,
) -> db::Result<Option<Row>> {
    // Counted in one statement before the code is compared, so parallel guesses cannot share an
    // attempt.
    let row = sqlx::query(
        "UPDATE email_tokens SET tries = tries + 1 WHERE did = $1 AND purpose = $2 AND tries < $3
         RETURNING did, hash, expires_at",
    )
    .bind(did.as_str())
    .bind(reason.as_str())
    .bind(most)
    .fetch_optional(&mut **tx)
    .await?;
    row.as_ref().map(read).transpose()
}

/// Finds the code with this hash. Counts no attempt.
pub(in crate::accounts) async fn find(
    db: &Db,
    hash: &str,
    reason: Reason,
    most: i64,
) -> db::Result<Option<Row>> {
    let row = sqlx::query(
        "SELECT did, hash, expires_at FROM email_tokens WHERE hash = $1 AND purpose = $2 AND tries < $3",
    )
    .bind(hash)
    .bind(reason.as_str())
    .bind(most)
    .fetch_optional(db.reader())
    .await?;
    row.as_ref().map(read).transpose()
}

/// Uses a code up. Returns `false` if it was used or replaced.
pub(in crate::accounts) async fn take(
    tx: &mut Tx,
    did: &Did,
    reason: Reason,
    hash: &str,
) -> db::Result<bool> {
    let done = sqlx::query("DELETE FROM email_tokens WHERE did = $1 AND purpose = $2 AND hash = $3")
        .bind(did.as_str())
        .bind(reason.as_str())
        .bind(hash)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(in crate::accounts) async fn remove_all(tx: &mut Tx, did: &Did) -> db::Result<()> {
    sqlx::query("DELETE FROM email_tokens WHERE did = $1").bind(did.as_str()).execute(&mut **tx).await?;
    Ok(())
}

/// Removes a batch of codes that expired before `before`.
pub(in crate::accounts) async fn sweep(db: &Db, before: Timestamp) -> db::Result<Batch> {
    let text = "DELETE FROM email_tokens WHERE (did, purpose) IN (
        SELECT did, purpose FROM email_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT 200)";
    sweep_batch(db, text, before).await
}

fn read(row: &sqlx::any::AnyRow) -> db::Result<Row> {
    let did: String = row.try_get("did")?;
    Ok(Row {
        did: did.parse().map_err(|_| Error::corrupt("email_tokens", "did", &did))?,
        hash: row.try_get("hash")?,
        expires_at: Timestamp::from_millis(row.try_get("expires_at")?),
    })
}
