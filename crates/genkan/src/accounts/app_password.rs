//! App passwords: made here, shown once, good for sessions with less reach.
//!
//! Four groups of four base32 characters hold 80 random bits, so a plain SHA-256 is enough at rest;
//! it lets the one that was typed be looked up. Dashes and case do not count.

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use genkan_protocol::jwt::session::Scope;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use crate::base::{Secret, Timestamp, random};
use crate::db::{self, Db, Tx};

/// One app password, without itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppPassword {
    pub(crate) name: String,
    /// May it speak for the account in chats, and move it elsewhere?
    pub(crate) privileged: bool,
    pub(crate) created_at: Timestamp,
}

impl AppPassword {
    /// The scope of sessions that it opens.
    pub(crate) const fn scope(&self) -> Scope {
        if self.privileged { Scope::AppPassPrivileged } else { Scope::AppPass }
    }
}

/// Makes one. `None`: the account has one of that name.
pub(crate) async fn create(
    tx: &mut Tx,
    did: &str,
    name: &str,
    privileged: bool,
    now: Timestamp,
) -> db::Result<Option<Secret<String>>> {
    let password = generate();
    let done = sqlx::query(
        "INSERT INTO app_passwords (did, name, hash, privilege, created_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
    )
    .bind(did)
    .bind(name)
    .bind(hash(did, password.expose()))
    .bind(if privileged { "privileged" } else { "plain" })
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok((done.rows_affected() == 1).then_some(password))
}

/// The app password that was typed, if it is one of the account's.
pub(crate) async fn find(db: &Db, did: &str, typed: &Secret<String>) -> db::Result<Option<AppPassword>> {
    let row =
        sqlx::query("SELECT name, privilege, created_at FROM app_passwords WHERE did = $1 AND hash = $2")
            .bind(did)
            .bind(hash(did, typed.expose()))
            .fetch_optional(db.reader())
            .await?;
    row.as_ref().map(read).transpose()
}

pub(crate) async fn list(db: &Db, did: &str) -> db::Result<Vec<AppPassword>> {
    let rows = sqlx::query(
        "SELECT name, privilege, created_at FROM app_passwords WHERE did = $1 ORDER BY created_at",
    )
    .bind(did)
    .fetch_all(db.reader())
    .await?;
    rows.iter().map(read).collect()
}

/// Removes one; the sessions opened with it are the caller's to end. `false`: there was none.
pub(crate) async fn remove(tx: &mut Tx, did: &str, name: &str) -> db::Result<bool> {
    let done = sqlx::query("DELETE FROM app_passwords WHERE did = $1 AND name = $2")
        .bind(did)
        .bind(name)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Holds one's row until `tx` ends. `false`: it was removed.
pub(crate) async fn hold(tx: &mut Tx, did: &str, name: &str) -> db::Result<bool> {
    let done = sqlx::query("UPDATE app_passwords SET name = name WHERE did = $1 AND name = $2")
        .bind(did)
        .bind(name)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn remove_all(tx: &mut Tx, did: &str) -> db::Result<()> {
    sqlx::query("DELETE FROM app_passwords WHERE did = $1").bind(did).execute(&mut **tx).await?;
    Ok(())
}

fn read(row: &sqlx::any::AnyRow) -> db::Result<AppPassword> {
    Ok(AppPassword {
        name: row.try_get("name")?,
        privileged: row.try_get::<String, _>("privilege")? == "privileged",
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
    })
}

fn generate() -> Secret<String> {
    let letters = BASE32_NOPAD.encode(&random::bytes::<10>()).to_ascii_lowercase();
    let groups: Vec<&str> =
        [0..4, 4..8, 8..12, 12..16].into_iter().filter_map(|range| letters.get(range)).collect();
    Secret::new(groups.join("-"))
}

fn hash(did: &str, password: &str) -> String {
    let letters: String =
        password.chars().filter(|letter| *letter != '-').flat_map(char::to_lowercase).collect();
    HEXLOWER.encode(&Sha256::new().chain_update(did).chain_update(b"\0").chain_update(letters).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(it_opens_its_own_account_only);

    async fn it_opens_its_own_account_only(db: Db) {
        let now = Timestamp::from_millis(1000);
        let mut tx = db.begin().await.unwrap();
        let made = create(&mut tx, "did:plc:ann", "phone", true, now).await.unwrap().unwrap();
        assert!(create(&mut tx, "did:plc:ann", "phone", false, now).await.unwrap().is_none());
        tx.commit().await.unwrap();
        assert_eq!(made.expose().len(), 19);

        let loud = Secret::new(made.expose().to_uppercase().replace('-', ""));
        let found = find(&db, "did:plc:ann", &loud).await.unwrap().unwrap();
        assert_eq!((found.name.as_str(), found.scope()), ("phone", Scope::AppPassPrivileged));
        assert!(find(&db, "did:plc:bob", &made).await.unwrap().is_none());
        assert_eq!(list(&db, "did:plc:ann").await.unwrap(), [found]);

        let mut tx = db.begin().await.unwrap();
        assert!(remove(&mut tx, "did:plc:ann", "phone").await.unwrap());
        assert!(!remove(&mut tx, "did:plc:ann", "phone").await.unwrap());
        tx.commit().await.unwrap();
        assert!(find(&db, "did:plc:ann", &made).await.unwrap().is_none());
    }
}
