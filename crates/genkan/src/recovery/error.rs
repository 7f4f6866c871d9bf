//! Why a password was not reset.

use crate::accounts::{CodeError, PasswordError};
use crate::db;

/// Why a password was not reset, or no code was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The operator configured no way to send mail.
    #[error("this service sends no e-mail")]
    Off,
    #[error(transparent)]
    Code(#[from] CodeError),
    #[error("too many passwords are being hashed")]
    Busy,
    #[error("the password is too long")]
    TooLong,
    #[error(transparent)]
    Storage(#[from] db::Error),
}

impl From<PasswordError> for Error {
    fn from(cause: PasswordError) -> Self {
        match cause {
            PasswordError::Busy(_) => Self::Busy,
            PasswordError::TooLong => Self::TooLong,
        }
    }
}
