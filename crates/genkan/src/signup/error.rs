//! Failures of sign-ups.

use super::request::RulesError;
use crate::accounts::{NewError, PasswordError};
use crate::limits::{AttemptError, OverLimit};
use crate::sessions;

/// Why a sign-up did not create an account.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Rules(#[from] RulesError),
    #[error("the handle is taken")]
    HandleTaken,
    #[error("the email address is taken")]
    EmailTaken,
    #[error("the invite code is unknown, used up or disabled")]
    InvalidInvite,
    #[error("too many passwords are being checked at the moment")]
    Busy,
    #[error("no host takes new accounts at the moment")]
    NoRoom,
    /// The sign-up is recorded. A job settles it as soon as the host and the directory answer.
    #[error("the account is still being created")]
    Unfinished,
    /// The host refused the account, and the sign-up was undone.
    #[error("the host refused the account: {0}")]
    Refused(String),
    #[error("session: {0}")]
    Session(#[from] sessions::Error),
    #[error(transparent)]
    OverLimit(#[from] OverLimit),
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}

impl From<NewError> for Error {
    fn from(cause: NewError) -> Self {
        use NewError as E;
        match cause {
            E::HandleTaken => Self::HandleTaken,
            E::EmailTaken => Self::EmailTaken,
            E::Storage(cause) => Self::Storage(cause),
        }
    }
}

impl From<AttemptError> for Error {
    fn from(cause: AttemptError) -> Self {
        match cause {
            AttemptError::OverLimit(over) => Self::OverLimit(over),
            AttemptError::Storage(cause) => Self::Storage(cause),
        }
    }
}

impl From<PasswordError> for Error {
    fn from(cause: PasswordError) -> Self {
        match cause {
            PasswordError::Busy(_) => Self::Busy,
            PasswordError::TooLong => Self::Rules(RulesError::PasswordTooLong),
        }
    }
}
