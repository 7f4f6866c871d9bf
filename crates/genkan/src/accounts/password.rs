//! Passwords: hashed on a bounded pool, at the same cost whether or not the account exists.
//!
//! New hashes are Argon2id (PHC text). The reference PDS's scrypt hashes (`salt:hash`, hex) verify
//! too.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::HEXLOWER;
use subtle::ConstantTimeEq as _;

use super::hashing_queue::{HashingQueue, PasswordsBusy, Requester};
use super::{Account, Accounts};
use crate::base::Secret;
use crate::db;

/// The most bytes of a password. A longer one is refused before it is hashed.
pub(crate) const LONGEST: usize = 512;

/// Why a password was not hashed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error(transparent)]
    Busy(#[from] PasswordsBusy),
    #[error("the password is too long")]
    TooLong,
}

/// Why a password could not be checked against an account.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecognitionError {
    #[error(transparent)]
    Busy(#[from] PasswordsBusy),
    #[error(transparent)]
    Storage(#[from] db::Error),
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    /// The password is correct, but its stored hash is of a kind that should be replaced.
    RightButOld,
    Wrong,
}

/// The pool. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    /// One permit per worker. Each hash takes 19 MiB, so it is computed only with a permit.
    queue: Arc<HashingQueue>,
}

/// The hash to verify against when there is no account, so that the answer takes as long. Nobody
/// knows its password. It is a constant, because computing it at each start would cost 19 MiB that
/// an idle server does not need.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$Z2Vua2FuLW5vYm9keS0xMg$q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA";

impl Passwords {
    /// Creates a pool in which `workers` hashes run at once and `queue` more checks may wait.
    pub(crate) fn new(workers: usize, queue: usize) -> Self {
        Self { queue: HashingQueue::new(workers, queue) }
    }

    /// Hashes a password.
    pub(crate) async fn hash(
        &self,
        password: &Secret<String>,
        by: Requester,
    ) -> Result<Secret<String>, PasswordError> {
        if is_too_long(password) {
            return Err(PasswordError::TooLong);
        }
        Ok(self.hash_short(password, by).await?)
    }

    async fn hash_short(
        &self,
        password: &Secret<String>,
        by: Requester,
    ) -> Result<Secret<String>, PasswordsBusy> {
        let password = password.clone();
        self.run(by, move || {
            let hashed = argon2().hash_password(password.expose().as_bytes());
            hashed.map(|hash| Secret::new(hash.to_string())).map_err(|_| PasswordsBusy)
        })
        .await?
    }

    /// Checks `password`. Without a hash, for an account that does not exist, it does the same work
    /// and returns `Wrong`.
    pub(crate) async fn verify(
        &self,
        hash: Option<&Secret<String>>,
        password: &Secret<String>,
        by: Requester,
    ) -> Result<Verdict, PasswordsBusy> {
        // No account has such a password, and the answer does not depend on the account.
        if is_too_long(password) {
            return Ok(Verdict::Wrong);
        }
        let password = password.clone();
        let known = hash.is_some();
        let hash = hash.cloned().unwrap_or_else(|| Secret::new(NOBODYS.to_owned()));
        let verdict = self.run(by, move || verdict(hash.expose(), password.expose())).await?;
        Ok(if known { verdict } else { Verdict::Wrong })
    }

    /// Whether this is the account's own password. A hash of an old kind is replaced on the way.
    pub(crate) async fn recognises(
        &self,
        accounts: &Accounts,
        account: Option<&Account>,
        password: &Secret<String>,
        by: Requester,
    ) -> Result<Option<Secret<String>>, RecognitionError> {
        let hash = account.map(|account| &account.password_hash);
        match (self.verify(hash, password, by).await?, account) {
            (Verdict::Right, Some(account)) => Ok(Some(account.password_hash.clone())),
            (Verdict::RightButOld, Some(account)) => {
                let newer = self.hash_short(password, by).await?;
                let (did, old) = (&account.did, account.password_hash.expose());
                if accounts.upgrade_password_hash(did, old, newer.expose()).await? {
                    return Ok(Some(newer));
                }
                // The hash has changed meanwhile, by another sign-in like this one or by the owner.
                let hash = accounts.find(did).await?.map(|account| account.password_hash);
                match self.verify(hash.as_ref(), password, by).await? {
                    Verdict::Right => Ok(hash),
                    _ => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        by: Requester,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordsBusy> {
        let permit = self.queue.enter(by)?.wait().await?;
        // The permit moves into the closure. If the caller disconnects, the hash is still being
        // computed and must still count.
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        })
        .await
        .map_err(|_| PasswordsBusy)
    }
}

fn is_too_long(password: &Secret<String>) -> bool {
    password.expose().len() > LONGEST
}

fn argon2() -> Argon2<'static> {
    // 19 MiB, two passes, one lane: the minimum that OWASP recommends for Argon2id.
    let params = Params::new(19 * 1024, 2, 1, Some(32)).expect("these parameters are in Argon2's ranges");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn verdict(hash: &str, password: &str) -> Verdict {
    if let Some((salt, expected)) = hash.split_once(':') {
        return if is_scrypt_of(password, salt, expected) { Verdict::RightButOld } else { Verdict::Wrong };
    }
    let Ok(parsed) = PasswordHash::new(hash) else { return Verdict::Wrong };
    match argon2().verify_password(password.as_bytes(), &parsed) {
        Ok(()) => Verdict::Right,
        Err(_) => Verdict::Wrong,
    }
}

/// Checks a hash of the reference PDS. In its format the salt's hex characters are the salt.
fn is_scrypt_of(password: &str, salt: &str, expected: &str) -> bool {
    let Ok(expected) = HEXLOWER.decode(expected.as_bytes()) else { return false };
    // The defaults of Node's `crypto.scrypt`, which the reference PDS uses.
    let params = scrypt::Params::new(14, 8, 1).expect("N 16384, r 8, p 1 are in scrypt's ranges");
    let mut out = [0; 64];
    scrypt::scrypt(password.as_bytes(), salt.as_bytes(), &params, &mut out).is_ok()
        && bool::from(out.as_slice().ct_eq(&expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::NewAccount;
    use crate::accounts::testing::{add, new_account};
    use crate::base::Clock;
    use crate::db::feed::Feed;
    use crate::db::{Db, on_each_database};

    on_each_database!(a_password_that_is_changed_while_its_hash_is_upgraded_is_not_recognised);

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_hash_verifies_its_password_only() {
        let pool = Passwords::new(1, QUEUE);
        let hash = pool.hash(&secret("correct horse"), BY).await.unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_eq!(pool.verify(Some(&hash), &secret("correct horse"), BY).await.unwrap(), Verdict::Right);
        assert_eq!(pool.verify(Some(&hash), &secret("correct horsf"), BY).await.unwrap(), Verdict::Wrong);
        assert_eq!(pool.verify(None, &secret("nobody's password"), BY).await.unwrap(), Verdict::Wrong);
    }

    /// Otherwise the duration of a sign-in would reveal whether the account exists.
    #[tokio::test]
    async fn the_hash_for_unknown_accounts_costs_as_much_as_a_new_one() {
        let new = Passwords::new(1, QUEUE).hash(&secret("x"), BY).await.unwrap();
        let (new, nobodys) = (PasswordHash::new(new.expose()).unwrap(), PasswordHash::new(NOBODYS).unwrap());
        assert_eq!(nobodys.algorithm, new.algorithm);
        assert_eq!(nobodys.version, new.version);
        assert_eq!(nobodys.params, new.params);
        let lengths = |hash: &PasswordHash| {
            (
                hash.salt.as_ref().map(|salt| salt.len()),
                hash.hash.as_ref().map(argon2::password_hash::phc::Output::len),
            )
        };
        assert_eq!(lengths(&nobodys), lengths(&new));
    }

    #[tokio::test]
    async fn the_reference_pds_hashes_verify() {
        // Made with Node's crypto.scrypt("hunter2", salt, 64) and its defaults.
        let hash = secret(SCRYPT_OF_HUNTER2);
        let pool = Passwords::new(1, QUEUE);
        assert_eq!(pool.verify(Some(&hash), &secret("hunter2"), BY).await.unwrap(), Verdict::RightButOld);
        assert_eq!(pool.verify(Some(&hash), &secret("hunter3"), BY).await.unwrap(), Verdict::Wrong);
    }

    /// An upgrade hashes twice, which takes a while.
    async fn a_password_that_is_changed_while_its_hash_is_upgraded_is_not_recognised(db: Db) {
        let old = NewAccount { password_hash: secret(SCRYPT_OF_HUNTER2), ..new_account("ann") };
        add(&db, &old).await.unwrap();
        let accounts = Accounts::new(db.clone(), Clock::of_process(), &Feed::new(db.clone()));
        let read_before = accounts.find(&old.did).await.unwrap().unwrap();
        let pool = Passwords::new(1, QUEUE);
        for (changed_to, is_recognised) in [("another password", false), ("hunter2", true)] {
            let hash = pool.hash(&secret(changed_to), BY).await.unwrap();
            let mut tx = db.begin().await.unwrap();
            assert!(accounts.set_password_hash(&mut tx, &old.did, hash.expose()).await.unwrap());
            tx.commit().await.unwrap();
            let found = pool.recognises(&accounts, Some(&read_before), &secret("hunter2"), BY).await.unwrap();
            assert_eq!(found, is_recognised.then_some(hash), "changed to {changed_to:?}");
        }
    }

    #[tokio::test]
    async fn a_full_queue_says_so_and_empties_again() {
        let pool = Passwords::new(1, QUEUE);
        let held = pool.queue.enter(BY).unwrap().wait().await.unwrap();
        let waiting: Vec<_> = (0..QUEUE)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { pool.run(BY, || ()).await })
            })
            .collect();
        tokio::task::yield_now().await;
        while pool.queue.waiting() < QUEUE {
            tokio::task::yield_now().await;
        }
        assert!(matches!(pool.run(BY, || ()).await, Err(PasswordsBusy)));
        drop(held);
        for one in waiting {
            one.await.unwrap().unwrap();
        }
        pool.run(BY, || ()).await.unwrap();
    }

    #[tokio::test]
    async fn overlong_passwords_are_not_hashed() {
        let pool = Passwords::new(1, QUEUE);
        let overlong = secret(&"x".repeat(LONGEST + 1));
        assert!(matches!(pool.hash(&overlong, BY).await, Err(PasswordError::TooLong)));
        // With the only permit taken, a check that hashed would never end.
        let _held = pool.queue.enter(BY).unwrap().wait().await.unwrap();
        assert_eq!(pool.verify(None, &overlong, BY).await.unwrap(), Verdict::Wrong);
    }

    const BY: Requester = Requester::TRUSTED;
    const QUEUE: usize = 64;
    const SCRYPT_OF_HUNTER2: &str = "000102030405060708090a0b0c0d0e0f:ea9df5abd6826beb5d198aee803e767419b2a56139c50a128286e6b619b3c8bb1a0c5c5a2f436f860ba0670d7d02a4318d05626cc059606fc165577a35bdaddc";
}
