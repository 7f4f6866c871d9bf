//! The table `home_documents`.

use genkan_protocol::syntax::Did;
use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::leases::LONGEST_DELAY;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Result, Tx};

/// A row with a document.
pub(super) struct StoredDocument {
    pub(super) text: String,
    /// When the directory was asked for it, and until when a change is expected.
    pub(super) times: (Timestamp, Timestamp),
}

pub(super) async fn find(db: &Db, did: &Did) -> Result<Option<StoredDocument>> {
    let row = sqlx::query(
        "SELECT text, checked_at, may_change_until FROM home_documents WHERE did = $1 AND text IS NOT NULL",
    )
    .bind(did.as_str())
    .fetch_optional(db.reader())
    .await?;
    row.map(|row| {
        let time = |column| Ok::<_, sqlx::Error>(Timestamp::from_millis(row.try_get(column)?));
        let times = (time("checked_at")?, time("may_change_until")?);
        Ok(StoredDocument { text: row.try_get("text")?, times })
    })
    .transpose()
}

/// Stores what the directory answered to a question at `asked_at`, unless there is a newer answer or
/// the document has changed since. Returns until when a change is expected, if it was stored.
pub(super) async fn put(
    tx: &mut Tx,
    did: &Did,
    text: Option<&str>,
    asked_at: Timestamp,
) -> Result<Option<Timestamp>> {
    let row = sqlx::query(
        "INSERT INTO home_documents (did, text, checked_at) VALUES ($1, $2, $3)
         ON CONFLICT (did) DO UPDATE SET text = excluded.text, checked_at = excluded.checked_at
         WHERE home_documents.checked_at < excluded.checked_at OR home_documents.checked_at > $4
         RETURNING may_change_until",
    )
    .bind(did.as_str())
    .bind(text)
    .bind(asked_at.as_millis())
    // Nothing was checked in the future: a clock was wrong when it was recorded.
    .bind(asked_at.plus(LONGEST_DELAY).as_millis())
    .fetch_optional(&mut **tx)
    .await?;
    Ok(row.map(|row| row.try_get("may_change_until")).transpose()?.map(Timestamp::from_millis))
}

/// Empties a row after a change of the document. The row stays, so that an answer from before the
/// change is not stored after it.
pub(super) async fn forget(tx: &mut Tx, did: &Did, now: Timestamp) -> Result<()> {
    sqlx::query(
        "INSERT INTO home_documents (did, text, checked_at) VALUES ($1, NULL, $2)
         ON CONFLICT (did) DO UPDATE SET text = NULL, checked_at = excluded.checked_at",
    )
    .bind(did.as_str())
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(super) async fn expect_change(tx: &mut Tx, did: &Did, now: Timestamp, until: Timestamp) -> Result<()> {
    sqlx::query(
        "INSERT INTO home_documents (did, text, checked_at, may_change_until) VALUES ($1, NULL, $2, $3)
         ON CONFLICT (did) DO UPDATE SET may_change_until = excluded.may_change_until",
    )
    .bind(did.as_str())
    .bind(now.as_millis())
    .bind(until.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(super) async fn delete(tx: &mut Tx, did: &Did) -> Result<()> {
    sqlx::query("DELETE FROM home_documents WHERE did = $1").bind(did.as_str()).execute(&mut **tx).await?;
    Ok(())
}

/// Removes a batch of rows that were checked in `range`.
pub(super) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows { table: "home_documents", key: "did", time: "checked_at", only: None };
    old.sweep(db, range).await
}
