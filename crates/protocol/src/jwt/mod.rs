//! Signed tokens, read strictly.
//!
//! A token is three parts of canonical, unpadded base64url with two dots between, 8 KiB at most. Its header and its
//! claims are JSON objects in which no member stands twice. `crit` is refused, since no extension is known here.
//! The one who verifies brings the key and thereby the algorithm; what the header says only has to agree. Keys that
//! a token brings along (`jwk`, `jku`, `x5c`, `x5u`) are never used here.

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
    /// Not three parts of base64url around JSON objects, too long, or with members that are refused.
    #[error("the token is malformed")]
    Malformed,
    /// `alg` is not the one the key is for.
    #[error("the token's algorithm is not the one expected")]
    WrongAlgorithm,
    /// `typ` is not the one asked for.
    #[error("the token is of another type")]
    WrongType,
    /// Not signed by this key.
    #[error("the token's signature is not valid")]
    BadSignature,
    /// Signed, but a claim is missing or has a shape it must not have.
    #[error("the token's claims are not as expected")]
    BadClaims,
}
