//! Private keys on K-256, for what the protocol defines: operations, commits, session and service
//! tokens.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::{Error, PublicKey};

/// A private key that signs as `ES256K`. Its memory is overwritten on drop.
#[derive(Clone)]
pub struct K256PrivateKey {
    bytes: Zeroizing<[u8; 32]>,
    public: PublicKey,
}

impl K256PrivateKey {
    /// Takes a big-endian number of 32 bytes, greater than zero and below the order of the curve.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, Error> {
        let mut secret =
            secp256k1::SecretKey::from_secret_bytes(*bytes).map_err(|_| Error::NotAPrivateKey)?;
        let public = PublicKey::of_k256(secret.public_key());
        // The library's key does not clear its memory on drop.
        secret.non_secure_erase();
        Ok(Self { bytes: Zeroizing::new(*bytes), public })
    }

    /// Reads 64 hexadecimal digits of either case.
    pub fn from_hex(text: &str) -> Result<Self, Error> {
        // Checked before decoding: `copy_from_slice` below panics on any other length.
        if text.len() != 64 {
            return Err(Error::NotAPrivateKey);
        }
        let decoded = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
        let mut decoded = decoded.map_err(|_| Error::NotAPrivateKey)?;
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(&decoded);
        decoded.zeroize();
        Self::from_bytes(&bytes)
    }

    /// The public key that verifies what this key signs.
    pub fn public(&self) -> PublicKey {
        self.public.clone()
    }

    /// Signs the SHA-256 of `message`: 64 bytes, `r` then the lower `s`. The same message always
    /// gets the same signature (RFC 6979 §3.2).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let digest = Sha256::digest(message).into();
        let mut secret = secp256k1::SecretKey::from_secret_bytes(*self.bytes)
            .expect("the bytes were checked when the key was made");
        let signature = secp256k1::ecdsa::sign(secp256k1::Message::from_digest(digest), &secret);
        secret.non_secure_erase();
        signature.serialize_compact()
    }

    /// The private key itself, to be sealed and stored.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.bytes.clone()
    }
}

impl fmt::Debug for K256PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[sealed]")
    }
}
