//! The tables `keys` and `web_keys`.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::purpose::{Purpose, WebPurpose};
use crate::base::Timestamp;
use crate::db::{Db, Error, Result, Tx};

pub(super) struct KeyRow {
    pub(super) id: String,
    pub(super) purpose: Purpose,
    pub(super) subject: String,
    pub(super) public: String,
    pub(super) sealed: String,
    pub(super) current: bool,
}

/// Returns every key in use: current keys, and previous ones whose tokens may still be valid.
pub(super) async fn all(db: &Db) -> Result<Vec<KeyRow>> {
    let rows =
        sqlx::query("SELECT id, purpose, subject, public, sealed, state FROM keys WHERE state <> 'retired'")
            .fetch_all(db.reader())
            .await?;
    rows.iter().map(read).collect()
}

/// Adds a current key. `false` if there is one for that purpose and subject.
pub(super) async fn insert(tx: &mut Tx, key: &KeyRow, now: Timestamp) -> Result<bool> {
    let done = sqlx::query(
        // A unique index allows one current key per purpose and subject. A conflict is an answer
        // here, not an error.
        "INSERT INTO keys (id, purpose, subject, public, sealed, state, created_at)
         VALUES ($1, $2, $3, $4, $5, 'current', $6) ON CONFLICT DO NOTHING",
    )
    .bind(&key.id)
    .bind(key.purpose.as_str())
    .bind(&key.subject)
    .bind(&key.public)
    .bind(&key.sealed)
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Retires the keys of one subject.
pub(super) async fn retire_of(tx: &mut Tx, purpose: Purpose, subject: &str) -> Result<()> {
    sqlx::query("UPDATE keys SET state = 'retired' WHERE purpose = $1 AND subject = $2")
        .bind(purpose.as_str())
        .bind(subject)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<KeyRow> {
    let id: String = row.try_get("id")?;
    let purpose: String = row.try_get("purpose")?;
    let purpose = [Purpose::HostSigning, Purpose::PlcRotation, Purpose::Internal]
        .into_iter()
        .find(|known| known.as_str() == purpose)
        .ok_or_else(|| Error::corrupt("keys", "purpose", &id))?;
    Ok(KeyRow {
        purpose,
        subject: row.try_get("subject")?,
        public: row.try_get("public")?,
        sealed: row.try_get("sealed")?,
        current: row.try_get::<String, _>("state")? == "current",
        id,
    })
}

/// A P-256 key pair as it is stored.
pub(super) struct WebRow {
    pub(super) id: String,
    pub(super) purpose: WebPurpose,
    pub(super) public: String,
    pub(super) sealed: String,
    pub(super) usable_from: Timestamp,
    pub(super) created_at: Timestamp,
}

/// Returns every pair that is not retired, the newest of each purpose first.
pub(super) async fn web_keys(db: &Db) -> Result<Vec<WebRow>> {
    let rows = sqlx::query(
        "SELECT id, purpose, public, sealed, usable_from, created_at FROM web_keys
         WHERE retired_at IS NULL ORDER BY purpose, serial DESC",
    )
    .fetch_all(db.reader())
    .await?;
    rows.iter().map(read_web).collect()
}

/// Adds a web key. `false` if another process created the key of that number.
pub(super) async fn insert_web(tx: &mut Tx, key: &WebRow, serial: i64) -> Result<bool> {
    let done = sqlx::query(
        // The serial is unique per purpose: of two rotations at once, one adds its key.
        "INSERT INTO web_keys (id, purpose, serial, public, sealed, usable_from, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(&key.id)
    .bind(key.purpose.as_str())
    .bind(serial)
    .bind(&key.public)
    .bind(&key.sealed)
    .bind(key.usable_from.as_millis())
    .bind(key.created_at.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn last_web_serial(tx: &mut Tx, purpose: WebPurpose) -> Result<i64> {
    let last: Option<i64> = sqlx::query_scalar("SELECT MAX(serial) FROM web_keys WHERE purpose = $1")
        .bind(purpose.as_str())
        .fetch_one(&mut **tx)
        .await?;
    Ok(last.unwrap_or(0))
}

/// Retires a web key and deletes its private half. `false` if it was retired before or does not
/// exist.
pub(super) async fn retire_web(tx: &mut Tx, id: &str, now: Timestamp) -> Result<bool> {
    let done =
        // The private half is erased, because a retired key never signs again.
        sqlx::query("UPDATE web_keys SET retired_at = $2, sealed = '' WHERE id = $1 AND retired_at IS NULL")
            .bind(id)
            .bind(now.as_millis())
            .execute(&mut **tx)
            .await?;
    Ok(done.rows_affected() == 1)
}

fn read_web(row: &AnyRow) -> Result<WebRow> {
    let id: String = row.try_get("id")?;
    let purpose = WebPurpose::parse(row.try_get("purpose")?)
        .ok_or_else(|| Error::corrupt("web_keys", "purpose", &id))?;
    Ok(WebRow {
        purpose,
        public: row.try_get("public")?,
        sealed: row.try_get("sealed")?,
        usable_from: Timestamp::from_millis(row.try_get("usable_from")?),
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
        id,
    })
}
