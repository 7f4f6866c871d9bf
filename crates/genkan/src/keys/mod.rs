//! The key ring: every key that Genkan signs with.
//!
//! *Host keys* sign the tokens of one host; a host pins one public key, so each host has its own
//! pair. *Web keys* sign what OAuth servers and clients show each other. The *rotation key* signs PLC operations of every account. The *internal* key is symmetric,
//! and others are derived from it by name. Private halves are sealed in the database; the sealing
//! key itself is a file or a setting, never a row.

mod ring;
mod sealing;
mod sql;
mod web;

pub(crate) use ring::Ring;
pub use sealing::sealing_key_file;
pub(crate) use web::{PUBLISHED_BEFORE, WebKey, WebPurpose};

/// Why the keys cannot be used. Start-up trouble, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {why}", file.display())]
    SealingKeyFile { file: std::path::PathBuf, why: String },
    #[error("the key {id} cannot be opened: {cause}; give the sealing key that this database was made with")]
    Sealed { id: String, cause: String },
    #[error(
        "the configured PLC rotation key is not the one that this database was made with ({known}); changing it needs a rotation, not a setting"
    )]
    OtherRotationKey { known: String },
    #[error("not a secp256k1 private key: 64 hex characters are needed")]
    NotAKey,
    #[error("another key was made at the same moment; look at `genkan key show`, and try again")]
    Rotating,
    #[error("host {0} has a signing key already")]
    HasKey(String),
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}

impl From<sqlx::Error> for Error {
    fn from(cause: sqlx::Error) -> Self {
        Self::Storage(cause.into())
    }
}
