//! Why an account's standing was not changed.

use crate::db;
use crate::fleet::HostError;

/// Why an account's standing was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such account")]
    NotFound,
    #[error("the account is taken down")]
    TakenDown,
    /// The host is being told of an earlier takedown or restoration.
    #[error("the account's host is being told of an earlier takedown or restoration")]
    UnderWay,
    #[error("the account's host {0} is not known")]
    NoHome(String),
    #[error("the account's host: {0}")]
    Host(#[from] HostError),
    #[error(transparent)]
    Storage(#[from] db::Error),
}
