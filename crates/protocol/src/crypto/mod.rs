//! Keys and signatures on the two curves of the protocol, K-256 (`ES256K`) and P-256 (`ES256`).
//!
//! A signature is 64 bytes, `r` then `s`, over the SHA-256 of the message. Wherever the protocol itself defines
//! signatures only the lower of the two possible values of `s` is good; [`PublicKey::verify`] holds to that on
//! both curves. JOSE knows no such rule: [`PublicKey::verify_either_s`] is for tokens made by strangers' libraries.

mod multikey;
mod p256_private_key;
mod private_key;
mod public_key;

pub use p256_private_key::P256PrivateKey;
pub use private_key::K256PrivateKey;
pub use public_key::{Curve, PublicKey};

/// Why a key or a signature is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a spelling of a public key, or not a point of its curve.
    #[error("not a public key")]
    NotAPublicKey,
    /// A well-formed key of a kind other than K-256 and P-256.
    #[error("a key of an unsupported kind")]
    UnsupportedKey,
    /// Not 32 bytes of a usable private key.
    #[error("not a private key")]
    NotAPrivateKey,
    /// Not a signature of this message by this key.
    #[error("the signature is not valid")]
    BadSignature,
}
