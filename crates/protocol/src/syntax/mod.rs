//! Identifiers: owned, checked on the way in, cheap to compare.
//!
//! Each type parses from text, prints the same text, and goes through serde as a string that is checked
//! when read. Handles are case-insensitive and therefore lower-cased; everything else keeps its bytes.

mod at_identifier;
mod did;
mod handle;
mod newtype;
mod nsid;
mod tid;

pub use at_identifier::AtIdentifier;
pub use did::Did;
pub use handle::Handle;
pub use nsid::Nsid;
pub use tid::Tid;

/// Why a text is not the identifier it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}: {reason}")]
pub struct Error {
    kind: &'static str,
    reason: &'static str,
}

impl Error {
    /// What was expected: "DID", "handle", …
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// What is wrong with it, in plain words.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}
