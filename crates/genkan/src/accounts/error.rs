//! Why an account is not changed. A lookup fails only if the database does, and a change that finds
//! no account returns `false`.

use crate::db;

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

/// Why a new account was not recorded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NewError {
    #[error("the handle is taken")]
    HandleTaken,
    #[error("the e-mail address is taken")]
    EmailTaken,
    #[error(transparent)]
    Storage(#[from] db::Error),
}
