//! Operations of the PLC directory: how a `did:plc` comes to be, changes and ends.
//!
//! An operation is signed over its DAG-CBOR without the signature and named by the hash of its DAG-CBOR with it.
//! The hash of the first one is the DID.

mod cbor;
mod data;
mod operation;

pub use data::{Data, Service};
pub use operation::{LegacyCreate, Operation, PlcOperation, Tombstone, genesis, tombstone, update};

/// Why an operation is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The signature is not 64 bytes in unpadded base64url.
    #[error("the signature is malformed")]
    MalformedSignature,
    /// No allowed key made the signature.
    #[error("the signature is of none of the keys allowed")]
    BadSignature,
    /// There must be one to five rotation keys.
    #[error("there must be one to five rotation keys")]
    RotationKeyCount,
    /// The same rotation key stands twice.
    #[error("a rotation key stands twice")]
    RepeatedRotationKey,
    /// A key is not a `did:key` of a supported curve.
    #[error("not a supported key: {0}")]
    UnsupportedKey(String),
}
