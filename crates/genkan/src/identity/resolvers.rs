//! The services of the room together.

use super::{Directory, Documents, Handles};

/// The services of this room together. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) directory: Directory,
    pub(crate) documents: Documents,
    pub(crate) handles: Handles,
}
