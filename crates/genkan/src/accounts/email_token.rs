//! Codes sent by e-mail: fifty random bits, valid once, for a quarter of an hour and for one
//! purpose.
//!
//! An account has at most one code for each purpose: a new one replaces the old. Only a keyed hash
//! is stored, and the key is sealed, so a stolen database reveals no code. Each attempt is counted
//! before the code is compared, and the sixth finds nothing. Dashes, spaces and case do not matter.

use std::time::Duration;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use genkan_protocol::syntax::Did;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::sql::email_tokens as sql;
use crate::base::{Secret, Timestamp, random};
use crate::db::sweep::{Batch, SweepRange};
use crate::db::{self, Db, Tx};
use crate::keys::Ring;
use crate::mail::Reason;

/// Why a code is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodeError {
    #[error("the code is wrong")]
    Invalid,
    #[error("the code has expired")]
    Expired,
    #[error(transparent)]
    Storage(#[from] db::Error),
}

/// Creates and recognises codes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct EmailTokens {
    db: Db,
    key: Zeroizing<[u8; 32]>,
}

/// A correct code that was not used yet. [`VerifiedCode::take`] uses it up in the transaction of
/// the action that it allows.
#[must_use = "the code is still good until it is taken"]
#[derive(Debug)]
pub(crate) struct VerifiedCode {
    did: Did,
    reason: Reason,
    hash: String,
}

impl EmailTokens {
    pub(crate) fn new(db: Db, ring: &Ring) -> Self {
        Self { db, key: ring.derived("email token") }
    }

    /// Creates a code and returns it with its expiry. The previous code becomes invalid.
    pub(crate) async fn issue(
        &self,
        tx: &mut Tx,
        did: &Did,
        reason: Reason,
        now: Timestamp,
    ) -> db::Result<(Secret<String>, Timestamp)> {
        let (code, expires_at) = (generate(), now.plus(LIFETIME));
        // The primary key is the account and the purpose, so this replaces the previous code.
        let row = sql::Row { did: did.clone(), hash: self.hash(reason, code.expose()), expires_at };
        sql::put(tx, &row, reason).await?;
        Ok((code, expires_at))
    }

    /// Checks the code that an account's owner typed. The attempt counts on all replicas, even if
    /// the code is correct.
    pub(crate) async fn check(
        &self,
        did: &Did,
        reason: Reason,
        typed: &str,
        now: Timestamp,
    ) -> Result<VerifiedCode, CodeError> {
        // Committed before the code is compared: the attempt counts even if the caller disconnects.
        let row = db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            let row = sql::attempt(&mut tx, did, reason, MOST_TRIES).await?;
            tx.commit().await?;
            Ok::<_, db::Error>(row)
        });
        let (row, hash) = (row.await?.ok_or(CodeError::Invalid)?, self.hash(reason, typed));
        // In constant time, so that the duration does not show how much of the hash was right.
        if !bool::from(row.hash.as_bytes().ct_eq(hash.as_bytes())) {
            return Err(CodeError::Invalid);
        }
        verified(row, reason, now)
    }

    /// Finds the account of a code where no account is signed in. The caller limits guesses.
    pub(crate) async fn find(
        &self,
        reason: Reason,
        typed: &str,
        now: Timestamp,
    ) -> Result<VerifiedCode, CodeError> {
        // Without an account there is no row to count on. The hash has 50 random bits behind it,
        // and the caller's rate limit bounds guesses.
        let row = sql::find(&self.db, &self.hash(reason, typed), reason, MOST_TRIES).await?;
        verified(row.ok_or(CodeError::Invalid)?, reason, now)
    }

    fn hash(&self, reason: Reason, typed: &str) -> String {
        let code: String = typed.chars().filter(char::is_ascii_alphanumeric).collect();
        // The purpose is part of the hash, so a code for one purpose is unknown for every other.
        let digest = Sha256::new()
            .chain_update(*self.key)
            .chain_update(reason.as_str())
            .chain_update(b"\0")
            .chain_update(code.to_ascii_uppercase())
            .finalize();
        HEXLOWER.encode(&digest)
    }
}

impl VerifiedCode {
    /// The account that the code is for.
    pub(crate) const fn did(&self) -> &Did {
        &self.did
    }

    /// Uses the code up. Of several attempts at once, on any number of replicas, one succeeds.
    pub(crate) async fn take(&self, tx: &mut Tx) -> Result<(), CodeError> {
        // The hash is compared again: a newer code may have replaced this one since it was checked.
        let taken = sql::take(tx, &self.did, self.reason, &self.hash).await?;
        if taken { Ok(()) } else { Err(CodeError::Invalid) }
    }
}

fn verified(row: sql::Row, reason: Reason, now: Timestamp) -> Result<VerifiedCode, CodeError> {
    // After the comparison, so that only a person with the correct code learns that it expired.
    if row.expires_at <= now {
        return Err(CodeError::Expired);
    }
    Ok(VerifiedCode { did: row.did, reason, hash: row.hash })
}

/// Removes a batch of codes that expired a day ago. Until then their owners learn that the code expired, and
/// not that it is wrong.
pub(crate) async fn sweep(db: &Db, range: SweepRange) -> db::Result<Batch> {
    sql::sweep(db, range.keeping(KEEP_EXPIRED)).await
}

/// Creates a code such as `ABCDE-FGHIJ` from the base32 alphabet, which has no 0, 1 or 8 to confuse
/// with O, I or B.
fn generate() -> Secret<String> {
    // Seven bytes give twelve letters. Ten of them, fifty bits, are used.
    let letters = BASE32_NOPAD.encode(&random::bytes::<7>());
    let (first, second) = (letters.get(..5).unwrap_or_default(), letters.get(5..10).unwrap_or_default());
    Secret::new(format!("{first}-{second}"))
}

impl std::fmt::Debug for EmailTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EmailTokens [sealed]")
    }
}

/// The lifetime at the reference PDS, which the e-mails' texts name too.
const LIFETIME: Duration = Duration::from_mins(15);
const MOST_TRIES: i64 = 5;
const KEEP_EXPIRED: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::base::seal::Sealer;
    use crate::db::on_each_database;

    on_each_database!(
        a_code_is_valid_once,
        a_code_is_valid_for_its_account_and_purpose_only,
        a_new_code_replaces_the_old,
        a_code_dies_with_the_sixth_try,
        a_code_expires,
        of_many_at_once_one_succeeds,
        the_database_does_not_tell_codes,
    );

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);
    fn ann() -> Did {
        "did:plc:ann".parse().unwrap()
    }

    async fn tokens(db: &Db) -> EmailTokens {
        let sealer = Sealer::new(&Secret::new([3; 32]));
        EmailTokens::new(db.clone(), &Ring::open(db, &Clock::of_process(), sealer, None).await.unwrap())
    }

    async fn issue(tokens: &EmailTokens, did: &Did, reason: Reason) -> String {
        let mut tx = tokens.db.begin().await.unwrap();
        let (code, _) = tokens.issue(&mut tx, did, reason, NOW).await.unwrap();
        tx.commit().await.unwrap();
        code.expose().clone()
    }

    async fn take(tokens: &EmailTokens, checked: VerifiedCode) -> Result<(), CodeError> {
        let mut tx = tokens.db.begin().await.unwrap();
        let taken = checked.take(&mut tx).await;
        tx.commit().await.unwrap();
        taken
    }

    #[test]
    fn codes_look_like_the_reference_pds_ones() {
        let code = generate();
        let (first, second) = code.expose().split_once('-').unwrap();
        let is_base32 = |text: &str| {
            text.len() == 5
                && text.bytes().all(|byte| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte))
        };
        assert!(is_base32(first) && is_base32(second));
        assert_ne!(code, generate());
    }

    async fn a_code_is_valid_once(db: Db) {
        let tokens = tokens(&db).await;
        let code = issue(&tokens, &ann(), Reason::ConfirmEmail).await;
        let sloppy = format!(" {} ", code.to_lowercase().replace('-', ""));
        let checked = tokens.check(&ann(), Reason::ConfirmEmail, &sloppy, NOW).await.unwrap();
        take(&tokens, checked).await.unwrap();
        let again = tokens.check(&ann(), Reason::ConfirmEmail, &code, NOW).await;
        assert!(matches!(again, Err(CodeError::Invalid)));
    }

    async fn a_code_is_valid_for_its_account_and_purpose_only(db: Db) {
        let (tokens, bob) = (tokens(&db).await, "did:plc:bob".parse().unwrap());
        let code = issue(&tokens, &ann(), Reason::ConfirmEmail).await;
        issue(&tokens, &bob, Reason::ConfirmEmail).await;
        issue(&tokens, &ann(), Reason::DeleteAccount).await;
        for (did, reason) in [
            (&bob, Reason::ConfirmEmail),
            (&"did:plc:nobody".parse().unwrap(), Reason::ConfirmEmail),
            (&ann(), Reason::DeleteAccount),
            (&ann(), Reason::PlcOperation),
        ] {
            assert!(matches!(tokens.check(did, reason, &code, NOW).await, Err(CodeError::Invalid)));
        }
        assert!(matches!(tokens.find(Reason::ResetPassword, &code, NOW).await, Err(CodeError::Invalid)));
        let reset = issue(&tokens, &ann(), Reason::ResetPassword).await;
        assert_eq!(tokens.find(Reason::ResetPassword, &reset, NOW).await.unwrap().did(), &ann());
    }

    async fn a_new_code_replaces_the_old(db: Db) {
        let tokens = tokens(&db).await;
        let old = issue(&tokens, &ann(), Reason::ResetPassword).await;
        let checked = tokens.find(Reason::ResetPassword, &old, NOW).await.unwrap();
        let new = issue(&tokens, &ann(), Reason::ResetPassword).await;
        assert!(matches!(tokens.find(Reason::ResetPassword, &old, NOW).await, Err(CodeError::Invalid)));
        assert!(matches!(take(&tokens, checked).await, Err(CodeError::Invalid)));
        let checked = tokens.find(Reason::ResetPassword, &new, NOW).await.unwrap();
        take(&tokens, checked).await.unwrap();
    }

    async fn a_code_dies_with_the_sixth_try(db: Db) {
        let tokens = tokens(&db).await;
        let code = issue(&tokens, &ann(), Reason::DeleteAccount).await;
        for _ in 0..4 {
            let wrong = tokens.check(&ann(), Reason::DeleteAccount, "AAAAA-AAAAA", NOW).await;
            assert!(matches!(wrong, Err(CodeError::Invalid)));
        }
        let fifth = tokens.check(&ann(), Reason::DeleteAccount, &code, NOW).await;
        assert!(fifth.is_ok());
        let sixth = tokens.check(&ann(), Reason::DeleteAccount, &code, NOW).await;
        assert!(matches!(sixth, Err(CodeError::Invalid)));
    }

    async fn a_code_expires(db: Db) {
        let tokens = tokens(&db).await;
        let code = issue(&tokens, &ann(), Reason::ConfirmEmail).await;
        let reset = issue(&tokens, &ann(), Reason::ResetPassword).await;
        let (last, over) = (NOW.plus(LIFETIME).minus(Duration::from_millis(1)), NOW.plus(LIFETIME));
        assert!(tokens.check(&ann(), Reason::ConfirmEmail, &code, last).await.is_ok());
        let late = tokens.check(&ann(), Reason::ConfirmEmail, &code, over).await;
        assert!(matches!(late, Err(CodeError::Expired)));
        assert!(matches!(tokens.find(Reason::ResetPassword, &reset, over).await, Err(CodeError::Expired)));
        assert_eq!(sweep(&db, over.into()).await.unwrap().removed, 0);
        assert_eq!(
            sweep(&db, over.plus(KEEP_EXPIRED).plus(Duration::from_millis(1)).into()).await.unwrap().removed,
            2
        );
    }

    async fn of_many_at_once_one_succeeds(db: Db) {
        let tokens = tokens(&db).await;
        let code = issue(&tokens, &ann(), Reason::ResetPassword).await;
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (tokens, code) = (tokens.clone(), code.clone());
                tokio::spawn(async move {
                    match tokens.find(Reason::ResetPassword, &code, NOW).await {
                        Ok(checked) => take(&tokens, checked).await.is_ok(),
                        Err(_) => false,
                    }
                })
            })
            .collect();
        let mut succeeded = 0;
        for task in tasks {
            succeeded += usize::from(task.await.unwrap());
        }
        assert_eq!(succeeded, 1);
    }

    async fn the_database_does_not_tell_codes(db: Db) {
        let tokens = tokens(&db).await;
        let code = issue(&tokens, &ann(), Reason::ResetPassword).await;
        let kept: String =
            sqlx::query_scalar("SELECT hash FROM email_tokens").fetch_one(db.reader()).await.unwrap();
        let plain = code.replace('-', "");
        assert!(!kept.to_uppercase().contains(&plain));
        let without_key = HEXLOWER.encode(&Sha256::digest(format!("reset_password\0{plain}")));
        assert_ne!(kept, without_key);
    }
}
