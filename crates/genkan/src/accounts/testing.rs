//! Accounts for tests.

use genkan_protocol::crypto::K256PrivateKey;

use super::{NewAccount, NewError, insert_creating, open};
use crate::base::{Secret, Timestamp};
use crate::db::Db;

/// An account named `ann.test` for `ann`, with an address to match, on the host `oak`.
///
/// Its DID ends in the name. Its password hash fits no password.
pub(crate) fn new_account(name: &str) -> NewAccount {
    NewAccount {
        did: format!("did:plc:{name:a>24}").parse().unwrap(),
        handle: format!("{name}.test").parse().unwrap(),
        email: format!("{name}@example.com").parse().unwrap(),
        password_hash: Secret::new("$argon2id$x".to_owned()),
        host: "oak".into(),
        host_key: K256PrivateKey::from_bytes(&[0x11; 32]).unwrap().public(),
        created_at: Timestamp::from_millis(1000),
    }
}

/// Inserts an account as a finished sign-up leaves it.
pub(crate) async fn add(db: &Db, account: &NewAccount) -> Result<(), NewError> {
    let mut tx = db.begin().await?;
    insert_creating(&mut tx, account).await?;
    assert!(open(&mut tx, &account.did).await?);
    Ok(tx.commit().await?)
}
