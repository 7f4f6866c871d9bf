//! Signed tokens (RFC 7515, compact serialization; RFC 7519), read strictly.
//!
//! A token is three parts of canonical, unpadded base64url with two dots between, 8 KiB at most.
//! Its header and its claims are JSON objects without repeated members. `crit` is refused, since no
//! extension is known here (RFC 7515 §4.1.11). The caller brings the key, and the key decides the
//! algorithm; `alg` in the header only has to agree (RFC 8725 §3.1). Keys that a token carries
//! (`jwk`, `jku`, `x5c`, `x5u`) are never used here; for those of OAuth clients see
//! [`oauth::jws`](crate::oauth::jws).
//!
//! ```
//! use genkan_protocol::crypto::K256PrivateKey;
//! use genkan_protocol::jwt::{self, Error, Unverified};
//!
//! let key = K256PrivateKey::from_bytes(&[7; 32]).unwrap();
//! let token = jwt::sign(&key, "JWT", None, &serde_json::json!({ "sub": "did:web:example.com" }));
//! let unverified = Unverified::parse(&token)?;
//! assert_eq!(unverified.header().typ.as_deref(), Some("JWT"));
//! assert_eq!(unverified.verify(&key.public())?, br#"{"sub":"did:web:example.com"}"#);
//!
//! let other = K256PrivateKey::from_bytes(&[8; 32]).unwrap();
//! assert_eq!(unverified.verify(&other.public()), Err(Error::BadSignature));
//! # Ok::<(), Error>(())
//! ```

mod json;
pub mod session;
mod sign;
mod unverified;

pub(crate) use json::present;
pub use sign::{sign, sign_es256, sign_with_header};
pub(crate) use unverified::Parts;
pub use unverified::{Algorithm, Header, MAX_LENGTH, Unverified};

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not three parts of base64url around JSON objects, too long, or with a header that is always
    /// refused.
    #[error("the token is malformed")]
    Malformed,
    /// `alg` is not the algorithm of the key.
    #[error("the token's algorithm is not the one expected")]
    WrongAlgorithm,
    /// `typ` is not the expected one.
    #[error("the token is of another type")]
    WrongType,
    /// Not signed by this key.
    #[error("the token's signature is not valid")]
    BadSignature,
    /// A claim is missing, has the wrong type, or must not be present.
    #[error("the token's claims are not as expected")]
    BadClaims,
}
