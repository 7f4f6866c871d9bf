//! What can go wrong with a lookup.

use std::sync::Arc;

use crate::base::Weigh;

/// Why a DID or handle was not resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("the {0} does not exist")]
    NotFound(&'static str),
    #[error("the DID was ended by its owner's tombstone operation")]
    Ended,
    #[error("DID method {0} is not supported")]
    Unsupported(Arc<str>),
    /// It exists, but its target is invalid or not allowed.
    #[error("{0}")]
    Unusable(Arc<str>),
    /// A server did not answer. Another attempt may succeed.
    #[error("{0}")]
    Passing(Arc<str>),
    /// The lookup did not begin: too many are under way, or too many of the client that caused it.
    #[error("too many lookups are under way")]
    Busy,
}

impl Error {
    /// Whether another attempt may succeed. Such an error never means "not found".
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(self, Self::Passing(_) | Self::Busy)
    }
}

impl Weigh for Error {
    fn heap_bytes(&self) -> usize {
        match self {
            Self::NotFound(_) | Self::Ended | Self::Busy => 0,
            Self::Unsupported(text) | Self::Unusable(text) | Self::Passing(text) => text.heap_bytes(),
        }
    }
}
