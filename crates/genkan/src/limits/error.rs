//! Why a request or an attempt is refused.

use super::Verdict;
use crate::db;

/// A client, an account or a server is over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more requests than the limit allows")]
pub(crate) struct OverLimit {
    pub(crate) verdict: Verdict,
    /// Seconds until another try can succeed.
    pub(crate) retry_after: u64,
}

/// Why an attempt may not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error(transparent)]
    OverLimit(#[from] OverLimit),
    /// The attempt could not be counted.
    #[error(transparent)]
    Storage(#[from] db::Error),
}
