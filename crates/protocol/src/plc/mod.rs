//! Operations of the PLC directory, which create, change and end a `did:plc` (did:plc, "Operation
//! Serialization, Signing, and Validation").
//!
//! The signature covers an operation's DAG-CBOR without `sig`. The hash of the DAG-CBOR with `sig`
//! is its name, and the hash of the first operation is the DID.
//!
//! ```
//! use genkan_protocol::crypto::K256PrivateKey;
//! use genkan_protocol::plc;
//!
//! let (rotation, signing) = (K256PrivateKey::from_bytes(&[7; 32])?, K256PrivateKey::from_bytes(&[8; 32])?);
//! let data = plc::Data::of_account(
//!     vec![rotation.public().to_did_key()],
//!     &signing.public(),
//!     &"alice.example.com".parse().unwrap(),
//!     "https://pds.example.com",
//! );
//! let (did, operation) = plc::genesis(data.clone(), &rotation);
//! assert_eq!(operation.did(), Some(did));
//! assert_eq!(operation.data(), Some(data));
//! assert_eq!(operation.verify_signature(&[rotation.public()]), Ok(0));
//! # Ok::<(), genkan_protocol::crypto::Error>(())
//! ```

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
    #[error("none of the allowed keys made the signature")]
    BadSignature,
    /// There must be one to five rotation keys.
    #[error("there must be one to five rotation keys")]
    RotationKeyCount,
    /// A rotation key is listed twice.
    #[error("a rotation key is repeated")]
    RepeatedRotationKey,
    /// A key is not a `did:key` of a supported curve.
    #[error("not a supported key: {0}")]
    UnsupportedKey(String),
}
