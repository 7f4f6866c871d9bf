//! Table `email_tokens`.

use genkan_protocol::syntax::Did;
use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
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

/// Removes a batch of codes that expired in `range`.
pub(in crate::accounts) async fn sweep(db: &Db, range: SweepRange) -> db::Result<Batch> {
    let old = OldRows { table: "email_tokens", key: "did, purpose", time: "expires_at", only: None };
    old.sweep(db, range).await
}

fn read(row: &sqlx::any::AnyRow) -> db::Result<Row> {
    let did: String = row.try_get("did")?;
    Ok(Row {
        did: did.parse().map_err(|_| Error::corrupt("email_tokens", "did", &did))?,
        hash: row.try_get("hash")?,
        expires_at: Timestamp::from_millis(row.try_get("expires_at")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(a_code_that_is_sent_during_a_sweep_stays);

    async fn a_code_that_is_sent_during_a_sweep_stays(db: Db) {
        let did: Did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
        let at = Timestamp::from_millis;
        let code = |hash: &str, expires_at| Row { did: did.clone(), hash: hash.to_owned(), expires_at };
        let mut tx = db.begin().await.unwrap();
        put(&mut tx, &code("old", at(100)), Reason::ResetPassword).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = db.begin().await.unwrap();
        put(&mut tx, &code("new", at(500)), Reason::ResetPassword).await.unwrap();
        let sweeping = tokio::spawn({
            let db = db.clone();
            async move { sweep(&db, at(200).into()).await.unwrap().removed }
        });
        db.until_waited_for(&mut tx).await;
        tx.commit().await.unwrap();
        assert_eq!(sweeping.await.unwrap(), 0);
        assert!(find(&db, "new", Reason::ResetPassword, 9).await.unwrap().is_some());
    }
}
