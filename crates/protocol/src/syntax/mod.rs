//! Identifiers: owned, valid by construction, cheap to compare.
//!
//! Each type parses from text, prints the same text, and goes through serde as a string that is
//! checked when read. Handles are case-insensitive and therefore lower-cased; every other
//! identifier keeps its bytes. Each type also has a `check` that needs no allocation, for text that
//! is only looked at.
//!
//! ```
//! use genkan_protocol::syntax::{AtIdentifier, Did, Handle, Nsid};
//!
//! let did: Did = "did:plc:ewvi7nxzyoun6zhxrhs64oiz".parse()?;
//! assert!(did.is_plc());
//! let handle: Handle = "Alice.Example.com".parse()?;
//! assert_eq!(handle.as_str(), "alice.example.com");
//! assert_eq!("did:web:example.com".parse(), Ok(AtIdentifier::Did("did:web:example.com".parse()?)));
//! assert_eq!(
//!     Nsid::check("com.atproto").unwrap_err().to_string(),
//!     "not a valid NSID: it needs at least three parts with dots between",
//! );
//! # Ok::<(), genkan_protocol::syntax::Error>(())
//! ```

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

/// Why a text is not the expected identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}: {reason}")]
pub struct Error {
    kind: &'static str,
    reason: &'static str,
}

impl Error {
    /// The expected kind of identifier: "DID", "handle", "NSID" or "TID".
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The rule that the text breaks, in plain words.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}
