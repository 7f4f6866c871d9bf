//! The key ring: every key that Genkan signs with.
//!
//! *Host keys* sign the tokens of one host; a host pins one public key, so each host has its own
//! pair. *Web keys* sign what OAuth servers and clients show each other. The *rotation key* signs PLC operations of every account. The *internal* key is symmetric,
//! and others are derived from it by name. Private halves are sealed in the database; the sealing
//! key itself is a file or a setting, never a row.

mod reseal;
mod ring;
mod sealing;
mod sql;
mod web;

pub(crate) use reseal::{SEALED_COLUMNS, SealedColumn};
pub(crate) use ring::Ring;
pub(crate) use sealing::{FOLLOW_EVERY, add_sealing_key, drop_older_sealing_keys, follow, sealing_key_file};
#[cfg(test)]
pub(crate) use web::PUBLISHED_BEFORE;
pub(crate) use web::{WebKey, WebPurpose};

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
    #[error(
        "the table {table} has secrets sealed with key {id}, which is not at hand; give it as GENKAN_SEALING_KEY_OLDER, or as a further line of the data folder's sealing.key"
    )]
    MissingSealingKey { id: String, table: &'static str },
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
