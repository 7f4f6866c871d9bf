//! Why sessions and their tokens are not accepted.

use crate::accounts::RecognitionError;
use crate::db;

/// Why a session could not be opened or continued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("identifier or password is wrong")]
    WrongPassword,
    #[error("the account is taken down")]
    TakenDown,
    #[error("too many passwords are being checked")]
    Busy,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the account's host {0} is not known")]
    NoHome(String),
    #[error(transparent)]
    Storage(#[from] db::Error),
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("not a token")]
    Malformed,
    /// An access token where a refresh token is needed, or the other way round.
    #[error("the token is of another type")]
    WrongType,
    /// None of Genkan's keys verifies it.
    #[error("the token could not be verified")]
    Unverified,
    /// It verifies, but a claim is missing or malformed.
    #[error("the token's claims are not complete")]
    BadClaims,
    #[error("the token is for another service")]
    WrongAudience,
    #[error("the token has expired")]
    Expired,
    #[error("the token's session has ended")]
    Revoked,
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
