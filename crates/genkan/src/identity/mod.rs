//! Who is who: DIDs to documents, handles to DIDs, the PLC directory, and which handles we give
//! out.
//!
//! *Document* what a DID resolves to · *place* the PDS that it names · *directory* the PLC directory, the operator's choice and trusted
//! · everything else asked here is a stranger's and goes through the guarded client. Answers are kept
//! for a bounded time; trouble on the way is never remembered as "not found". This room knows nothing
//! of accounts: that a name is ours is said by the rooms above.

mod directory;
mod documents;
mod handle_policy;
mod handles;
mod memory;
mod pds_location;
mod reserved;

use std::sync::Arc;

pub(crate) use directory::{Directory, DirectoryError, Submission};
pub(crate) use documents::Documents;
pub(crate) use handle_policy::{HandlePolicy, PolicyError, is_given_out};
pub(crate) use handles::Handles;
pub(crate) use pds_location::{PdsLocation, PdsLocationError, PdsLocations};

/// Everything of this room that others hold. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) directory: Directory,
    pub(crate) documents: Documents,
    pub(crate) handles: Handles,
}

/// May the answer come from memory?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// From memory if it is young enough; in trouble an older one will do.
    Remembered,
    /// Asked now, for decisions that must see the latest change.
    Asked,
}

/// Why a DID or handle was not resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("the {0} does not exist")]
    NotFound(&'static str),
    #[error("the DID was ended by its owner's tombstone operation")]
    Ended,
    #[error("DID method {0} is not supported")]
    Unsupported(Arc<str>),
    /// It exists, and is not what it should be, or lives where we do not go.
    #[error("{0}")]
    Unusable(Arc<str>),
    /// Somebody did not answer: another try may do.
    #[error("{0}")]
    Passing(Arc<str>),
}

impl Error {
    /// Worth another try; never to be taken for "not found".
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(self, Self::Passing(_))
    }
}
