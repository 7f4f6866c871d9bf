//! Keys and signatures on the two curves of the protocol, K-256 (`ES256K`) and P-256 (`ES256`)
//! (atproto Cryptography).
//!
//! A signature is 64 bytes, `r` then `s`, over the SHA-256 of the message. The protocol allows only
//! the lower of the two possible values of `s`, since otherwise anyone could turn one valid
//! signature into another; [`PublicKey::verify`] enforces this on both curves. JOSE has no such
//! rule (RFC 7518 §3.4): [`PublicKey::verify_either_s`] is for tokens of OAuth clients, whose
//! libraries produce both.
//!
//! ```
//! use genkan_protocol::crypto::{K256PrivateKey, PublicKey};
//!
//! let private = K256PrivateKey::from_bytes(&[7; 32])?;
//! let signature = private.sign(b"message");
//! let public = PublicKey::from_did_key(&private.public().to_did_key())?;
//! assert_eq!(public.verify(b"message", &signature), Ok(()));
//! assert!(public.verify(b"another message", &signature).is_err());
//! # Ok::<(), genkan_protocol::crypto::Error>(())
//! ```

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
    /// The text is not a spelling of a public key, or the point is not on its curve.
    #[error("not a public key")]
    NotAPublicKey,
    /// A well-formed key of a kind other than K-256 and P-256.
    #[error("a key of an unsupported kind")]
    UnsupportedKey,
    /// Not 32 bytes between one and the order of the curve.
    #[error("not a private key")]
    NotAPrivateKey,
    /// Not a signature of this message by this key.
    #[error("the signature is not valid")]
    BadSignature,
}
