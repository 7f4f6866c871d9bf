//! The key ring: every key that Genkan signs with.
//!
//! *Host keys* sign the tokens of one host. A host pins one public key, so each host has a pair of
//! its own. *Web keys* sign what OAuth servers and clients show each other. The *rotation key*
//! signs PLC operations of every account. The *internal key* is symmetric, and further keys are
//! derived from it by name. Private halves are sealed in the database. The sealing key itself is a
//! file or a setting, never a row.

mod purpose;
mod reseal;
mod ring;
mod sealing;
mod sql;
mod web;

pub(crate) use purpose::WebPurpose;
pub(crate) use reseal::{SEALED_COLUMNS, SealedColumn};
pub(crate) use ring::Ring;
pub(crate) use sealing::{FOLLOW_EVERY, add_sealing_key, drop_older_sealing_keys, follow, sealing_key_file};
#[cfg(test)]
pub(crate) use web::PUBLISHED_BEFORE;
pub(crate) use web::WebKey;

/// Why the keys cannot be used, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {why}", file.display())]
    SealingKeyFile { file: std::path::PathBuf, why: String },
    #[error(
        "the key {id} cannot be unsealed: {cause}; set GENKAN_SEALING_KEY to the key that this database was created with"
    )]
    Sealed { id: String, cause: String },
    #[error(
        "GENKAN_PLC_ROTATION_KEY is not the key that this database was created with ({known}); set that key, or remove the setting: a change of the setting does not rotate the key"
    )]
    OtherRotationKey { known: String },
    #[error("a PLC rotation key is not a secp256k1 private key; use 64 hexadecimal digits")]
    NotAKey,
    #[error(
        "the table {table} contains secrets that the missing sealing key {id} sealed; set GENKAN_SEALING_KEY_OLDER to that key, or add it as a further line to sealing.key in the data folder"
    )]
    MissingSealingKey { id: String, table: &'static str },
    #[error("another process created a key at the same time; see `genkan key show` and try again")]
    Rotating,
    #[error("host {0} already has a signing key")]
    HasKey(String),
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}
