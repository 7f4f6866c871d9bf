//! App passwords: created here, shown once, and valid for sessions with fewer rights.
//!
//! Four groups of four base32 characters contain 80 random bits, so a plain SHA-256 is enough at
//! rest. By that hash a typed password is looked up. Dashes and case do not count.

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use genkan_protocol::syntax::Did;
use sha2::{Digest as _, Sha256};

use super::AppPassword;
use super::sql::app_passwords as sql;
use crate::base::{Clock, Secret, WaitingClient, random};
use crate::db::audit::{self, Actor};
use crate::db::{self, Db, Tx};

/// The app passwords of all accounts. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct AppPasswords {
    db: Db,
    clock: Clock,
}

impl AppPasswords {
    pub(crate) const fn new(db: Db, clock: Clock) -> Self {
        Self { db, clock }
    }

    /// Creates an app password, and returns it with the password itself, which is stored nowhere
    /// and shown to `client` only. Returns `None` if the account has one of that name.
    pub(crate) async fn create(
        &self,
        did: &Did,
        name: &str,
        privileged: bool,
        actor: Actor<'_>,
        client: &WaitingClient,
    ) -> db::Result<Option<(AppPassword, Secret<String>)>> {
        let (now, secret) = (self.clock.now(), generate());
        let created = AppPassword { name: name.to_owned(), privileged, created_at: now };
        let mut tx = self.db.begin().await?;
        // The account already has an app password with this name.
        if !sql::insert(&mut tx, did, &created, &hash(did, &secret)).await? {
            return Ok(None);
        }
        audit::record(&mut tx, now, actor, "app_password.create", did.as_str(), name).await?;
        tx.commit_for(client).await?;
        Ok(Some((created, secret)))
    }

    /// Finds the typed app password among the account's.
    pub(crate) async fn find(&self, did: &Did, typed: &Secret<String>) -> db::Result<Option<AppPassword>> {
        sql::find(&self.db, did, &hash(did, typed)).await
    }

    /// Returns an account's app passwords, the oldest first.
    pub(crate) async fn list(&self, did: &Did) -> db::Result<Vec<AppPassword>> {
        sql::list(&self.db, did).await
    }

    /// Removes an app password as part of `tx`; `credentials` ends its sessions. Returns `false` if
    /// there was none.
    pub(crate) async fn remove(&self, tx: &mut Tx, did: &Did, name: &str) -> db::Result<bool> {
        sql::remove(tx, did, name).await
    }

    /// Holds an app password's row until `tx` ends. Returns `false` if it was removed.
    pub(crate) async fn hold(&self, tx: &mut Tx, did: &Did, name: &str) -> db::Result<bool> {
        sql::hold(tx, did, name).await
    }
}

fn generate() -> Secret<String> {
    // Ten bytes are exactly sixteen letters of base32.
    let letters = BASE32_NOPAD.encode(&random::bytes::<10>()).to_ascii_lowercase();
    let groups: Vec<&str> =
        [0..4, 4..8, 8..12, 12..16].into_iter().filter_map(|range| letters.get(range)).collect();
    Secret::new(groups.join("-"))
}

fn hash(did: &Did, password: &Secret<String>) -> String {
    let letters: String =
        // People copy the password with or without its dashes, and phones write the first letter
        // large.
        password.expose().chars().filter(|letter| *letter != '-').flat_map(char::to_lowercase).collect();
    // With the DID in it, equal passwords of two accounts have different hashes.
    HEXLOWER.encode(
        &Sha256::new().chain_update(did.as_str()).chain_update(b"\0").chain_update(letters).finalize(),
    )
}

#[cfg(test)]
mod tests {
    use genkan_protocol::jwt::session::Scope;

    use super::*;
    use crate::db::on_each_database;

    on_each_database!(it_opens_its_own_account_only, a_password_that_nobody_sees_is_not_kept);

    async fn a_password_that_nobody_sees_is_not_kept(db: Db) {
        let passwords = AppPasswords::new(db, Clock::of_process());
        let ann: Did = "did:plc:ann".parse().unwrap();
        let gone = WaitingClient::new();
        assert!(gone.leave());
        let late = passwords.create(&ann, "phone", false, Actor::Genkan, &gone).await;
        assert!(matches!(late, Err(db::Error::ClientGone)), "{late:?}");
        let again = passwords.create(&ann, "phone", false, Actor::Genkan, &WaitingClient::new()).await;
        assert!(again.unwrap().is_some());
    }

    async fn it_opens_its_own_account_only(db: Db) {
        let passwords = AppPasswords::new(db.clone(), Clock::of_process());
        let (ann, bob): (Did, Did) = ("did:plc:ann".parse().unwrap(), "did:plc:bob".parse().unwrap());
        let client = WaitingClient::patient();
        let create = async |privileged| {
            passwords.create(&ann, "phone", privileged, Actor::Genkan, &client).await.unwrap()
        };
        let (created, secret) = create(true).await.unwrap();
        assert!(create(false).await.is_none());
        assert_eq!(secret.expose().len(), 19);

        let loud = Secret::new(secret.expose().to_uppercase().replace('-', ""));
        let found = passwords.find(&ann, &loud).await.unwrap().unwrap();
        assert_eq!((found.name.as_str(), found.scope()), ("phone", Scope::AppPassPrivileged));
        assert_eq!(found, created);
        assert!(passwords.find(&bob, &secret).await.unwrap().is_none());
        assert_eq!(passwords.list(&ann).await.unwrap(), [found]);

        let mut tx = db.begin().await.unwrap();
        assert!(passwords.hold(&mut tx, &ann, "phone").await.unwrap());
        assert!(passwords.remove(&mut tx, &ann, "phone").await.unwrap());
        assert!(!passwords.hold(&mut tx, &ann, "phone").await.unwrap());
        assert!(!passwords.remove(&mut tx, &ann, "phone").await.unwrap());
        tx.commit().await.unwrap();
        assert!(passwords.find(&ann, &secret).await.unwrap().is_none());
    }
}
