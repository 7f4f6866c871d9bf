//! The service of this room: sending codes, and resetting passwords by them.

use std::time::Duration;

use genkan_protocol::syntax::Did;

use super::Error;
use crate::accounts::{
    Account, Accounts, CodeError, Email, Emails, EmailsError, Passwords, Requester, VerifiedCode,
};
use crate::base::{Clock, Language, Secret, WaitingClient, monotonic_now};
use crate::credentials::{Credentials, Ending};
use crate::db::audit::{self, Actor};
use crate::db::{self, Db};
use crate::mail::Reason;

/// Resets passwords. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) accounts: Accounts,
    pub(crate) emails: Emails,
    pub(crate) passwords: Passwords,
    pub(crate) credentials: Credentials,
}

impl Recovery {
    /// Sends a code to `typed` if it is an account's address. The caller limits the requests.
    pub(crate) async fn request(&self, typed: &str, language: Language) -> Result<(), Error> {
        if !self.emails.is_on() {
            return Err(Error::Off);
        }
        let same_for_all = monotonic_now() + LEAST_TIME;
        let sent = self.send(typed, language).await;
        // Even after an error, so that the time reveals nothing about the address.
        tokio::time::sleep_until(same_for_all).await;
        sent
    }

    async fn send(&self, typed: &str, language: Language) -> Result<(), Error> {
        // Neither this nor an unknown address is an error: the answer must not tell whether an
        // address belongs to an account.
        let Ok(email) = typed.parse::<Email>() else { return Ok(()) };
        let found = self.accounts.find_by_email(&email).await?;
        let Some(account) = found.filter(Account::is_open) else { return Ok(()) };
        match self.emails.send_code(&account, Reason::ResetPassword, language).await {
            Ok(()) => Ok(()),
            Err(EmailsError::Storage(cause)) => Err(cause.into()),
            Err(cause) => {
                tracing::warn!(account.did = %account.did, %cause, "a code for a password reset was not made");
                Ok(())
            }
        }
    }

    /// Sets a new password by a code, and returns the code's account. The caller has checked the
    /// rules for passwords. The code stays good if `client` does not wait for the end.
    pub(crate) async fn reset(
        &self,
        code: &str,
        password: &Secret<String>,
        client: &WaitingClient,
    ) -> Result<Did, Error> {
        let checked = self.emails.find(Reason::ResetPassword, code).await?;
        // After the code was found, so that a wrong code costs no hash; before the transaction,
        // which must not be held while the hash is computed.
        let hash = self.passwords.hash(password, Requester::TRUSTED).await?;
        db::repeated(|| self.replace_password(&checked, hash.expose(), client)).await?;
        Ok(checked.did().clone())
    }

    async fn replace_password(
        &self,
        code: &VerifiedCode,
        hash: &str,
        client: &WaitingClient,
    ) -> Result<(), Error> {
        let (did, now) = (code.did(), self.clock.now());
        let mut tx = self.db.begin().await?;
        // The first write of the transaction: of two resets with one code the second stops here.
        code.take(&mut tx).await?;
        if !self.accounts.set_password_hash(&mut tx, did, hash).await? {
            // The account was deleted between the check of the code and this change.
            return Err(CodeError::Invalid.into());
        }
        self.credentials.end(&mut tx, did, Ending::Everything).await?;
        let by = Actor::Account(did);
        audit::record(&mut tx, now, by, "account.password_reset", did.as_str(), "").await?;
        Ok(tx.commit_for(client).await?)
    }
}

/// Longer than storing an email takes, so that the duration of the answer does not reveal whether
/// there was one.
const LEAST_TIME: Duration = Duration::from_millis(300);
