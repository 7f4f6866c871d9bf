//! Why a sign-in failed.

use crate::accounts::RecognitionError;
use crate::db;

/// Why somebody is not signed in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The password is wrong or there is no such account. The answer does not say which.
    #[error("identifier or password is wrong")]
    WrongPassword,
    #[error("the account is taken down")]
    TakenDown,
    /// Too many passwords are being checked.
    #[error("too many passwords are being checked")]
    Busy,
    #[error(transparent)]
    Storage(#[from] db::Error),
}

impl From<RecognitionError> for Error {
    fn from(cause: RecognitionError) -> Self {
        match cause {
            RecognitionError::Busy(_) => Self::Busy,
            RecognitionError::Storage(cause) => Self::Storage(cause),
        }
    }
}
