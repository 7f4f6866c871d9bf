//! Coming back to an account whose password is lost, by a code from its mailbox.
//!
//! Whoever asks hears the same, as late, whether the address is anybody's. A reset changes the password and
//! ends every session, browser sign-in and grant, in one transaction; app passwords stay, as at the reference PDS.

use std::time::Duration;

use genkan_protocol::syntax::Did;

use crate::accounts::{
    self, Accounts, CodeError, Email, Emails, EmailsError, PasswordError, Passwords, VerifiedCode,
};
use crate::base::{Clock, Language, Secret, monotonic_now};
use crate::db::audit::{self, Actor};
use crate::db::{Db, Tx};
use crate::mail::Reason;
use crate::oauth::{self, OAuth};
use crate::sessions::{self, Sessions};
use crate::signin::{self, SignIns};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The operator gave no way to send mail.
    #[error("no mail is sent from here")]
    Off,
    #[error(transparent)]
    Code(#[from] CodeError),
    #[error("too many passwords are being hashed")]
    Busy,
    #[error("the password is too long")]
    TooLong,
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}

impl From<sqlx::Error> for Error {
    fn from(cause: sqlx::Error) -> Self {
        Self::Storage(cause.into())
    }
}

impl From<PasswordError> for Error {
    fn from(cause: PasswordError) -> Self {
        match cause {
            PasswordError::Busy | PasswordError::Failed => Self::Busy,
            PasswordError::TooLong => Self::TooLong,
        }
    }
}

impl From<accounts::Error> for Error {
    fn from(cause: accounts::Error) -> Self {
        use accounts::Error as E;
        match cause {
            // Deleted between the look at its code and the change.
            E::NotFound => Self::Code(CodeError::Invalid),
            E::Storage(cause) => Self::Storage(cause),
        }
    }
}

impl From<oauth::Error> for Error {
    fn from(cause: oauth::Error) -> Self {
        use oauth::Error as E;
        match cause {
            E::Storage(cause) => Self::Storage(cause),
            E::Refused(_) | E::NoHome(_) => Self::Busy,
        }
    }
}

impl From<signin::Error> for Error {
    fn from(cause: signin::Error) -> Self {
        use signin::Error as E;
        match cause {
            E::Storage(cause) => Self::Storage(cause),
            E::WrongPassword | E::TakenDown | E::Busy => Self::Busy,
        }
    }
}

impl From<sessions::Error> for Error {
    fn from(cause: sessions::Error) -> Self {
        use sessions::Error as E;
        match cause {
            E::Storage(cause) => Self::Storage(cause),
            E::WrongPassword | E::TakenDown | E::Busy | E::Token(_) | E::NoHome(_) => Self::Busy,
        }
    }
}

/// Resets passwords. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) accounts: Accounts,
    pub(crate) emails: Emails,
    pub(crate) passwords: Passwords,
    pub(crate) sessions: Sessions,
    pub(crate) sign_ins: SignIns,
    pub(crate) oauth: OAuth,
}

/// What ended with a reset, to be told of after the commit.
struct Ended {
    sessions: sessions::Ended,
    grants: oauth::EndedGrants,
}

impl Recovery {
    /// Sends a code to `typed` if it is an account's address. The caller limits how often one may ask.
    pub(crate) async fn request(&self, typed: &str, language: Language) -> Result<(), Error> {
        if !self.emails.is_on() {
            return Err(Error::Off);
        }
        let same_for_all = monotonic_now() + LEAST_TIME;
        let sent = self.send(typed, language).await;
        tokio::time::sleep_until(same_for_all).await;
        sent
    }

    async fn send(&self, typed: &str, language: Language) -> Result<(), Error> {
        let Ok(email) = typed.parse::<Email>() else { return Ok(()) };
        let found = self.accounts.find_by_email(&email).await?;
        let Some(account) = found.filter(accounts::Account::is_open) else { return Ok(()) };
        match self.emails.send_code(&account, Reason::ResetPassword, language).await {
            Ok(()) => Ok(()),
            Err(EmailsError::Storage(cause)) => Err(cause.into()),
            Err(cause) => {
                tracing::warn!(account.did = %account.did, %cause, "a code for a password reset was not made");
                Ok(())
            }
        }
    }

    /// Sets a new password by a code, whose account it answers. The caller checked the rules for passwords.
    pub(crate) async fn reset(&self, code: &str, password: &Secret<String>) -> Result<Did, Error> {
        let checked = self.emails.find(Reason::ResetPassword, code).await?;
        let hash = self.passwords.hash(password).await?;
        let did: Did = checked.did().parse().map_err(|_| CodeError::Invalid)?;
        self.replace_password(&did, checked, hash.expose()).await?;
        Ok(did)
    }

    async fn replace_password(&self, did: &Did, code: VerifiedCode, hash: &str) -> Result<(), Error> {
        let (did, now) = (did.as_str(), self.clock.now());
        let mut tx = self.db.begin().await?;
        code.take(&mut tx).await?;
        self.accounts.set_password_hash(&mut tx, did, hash).await?;
        let ended = self.end_everything(&mut tx, did).await?;
        audit::record(&mut tx, now, Actor::Account(did), "account.password_reset", did, "").await?;
        tx.commit().await?;
        self.tell_ended(&ended);
        Ok(())
    }

    /// Whatever the old password opened ends here, and nowhere else.
    async fn end_everything(&self, tx: &mut Tx, did: &str) -> Result<Ended, Error> {
        self.sign_ins.end_all(tx, did).await?;
        Ok(Ended {
            sessions: self.sessions.end_all(tx, did).await?,
            grants: self.oauth.end_all_of(tx, did).await?,
        })
    }

    fn tell_ended(&self, ended: &Ended) {
        self.sessions.tell_ended(&ended.sessions);
        self.oauth.tell_ended(&ended.grants);
    }
}

/// Longer than writing an email down takes, so that the answer's time does not tell whether it was done.
const LEAST_TIME: Duration = Duration::from_millis(300);
