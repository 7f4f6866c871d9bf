//! Why accounts are not changed. A look at one can fail for the database's reasons only.

use crate::db;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such account")]
    NotFound,
    #[error(transparent)]
    Storage(#[from] db::Error),
}

/// Why an account did not get the handle or the e-mail address that it was to have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error("there is no such account")]
    NotFound,
    #[error("another account has it")]
    Taken,
    #[error(transparent)]
    Storage(#[from] db::Error),
}

/// Why a new account was not written down.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NewError {
    #[error("the handle is taken")]
    HandleTaken,
    #[error("the e-mail address is taken")]
    EmailTaken,
    #[error(transparent)]
    Storage(#[from] db::Error),
}

impl From<sqlx::Error> for Error {
    fn from(cause: sqlx::Error) -> Self {
        Self::Storage(cause.into())
    }
}

impl From<sqlx::Error> for ClaimError {
    fn from(cause: sqlx::Error) -> Self {
        Self::Storage(cause.into())
    }
}

impl From<sqlx::Error> for NewError {
    fn from(cause: sqlx::Error) -> Self {
        Self::Storage(cause.into())
    }
}
