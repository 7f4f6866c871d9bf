//! Failures of handle changes.

use crate::accounts::ClaimError;
use crate::identity::PolicyError;

/// Why a handle was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Handle(#[from] PolicyError),
    #[error("Handle already taken")]
    Taken,
    /// Another change of the same account is under way.
    #[error("another change of this handle is under way")]
    UnderWay,
    #[error("there is no such account")]
    NoAccount,
    /// Genkan has no key of the DID: its owner removed it, or the DID has a tombstone.
    #[error("Genkan may not change this DID")]
    NotOurs,
    #[error("the PLC directory refused: {0}")]
    Refused(String),
    /// The change is recorded. A job finishes it.
    #[error("the change is recorded and will be finished")]
    Unfinished,
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}

impl From<ClaimError> for Error {
    fn from(cause: ClaimError) -> Self {
        use ClaimError as E;
        match cause {
            E::Taken => Self::Taken,
            E::NotFound => Self::NoAccount,
            E::Storage(cause) => Self::Storage(cause),
        }
    }
}
