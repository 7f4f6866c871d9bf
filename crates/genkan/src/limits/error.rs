//! Why an attempt is refused.

use super::verdict::OverLimit;
use crate::db;

/// Why an attempt may not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error(transparent)]
    OverLimit(#[from] OverLimit),
    /// The attempt could not be counted.
    #[error(transparent)]
    Storage(#[from] db::Error),
}
