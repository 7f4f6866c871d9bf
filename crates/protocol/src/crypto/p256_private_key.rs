//! Private keys on P-256, for what OAuth defines: DPoP proofs, client assertions, and access tokens
//! that only Genkan reads.

use std::fmt;
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use zeroize::Zeroizing;

use super::{Error, PublicKey};

/// A private key that signs as `ES256`. Cheap to clone.
#[derive(Clone)]
pub struct P256PrivateKey {
    bytes: Zeroizing<[u8; 32]>,
    pair: Arc<EcdsaKeyPair>,
    public: PublicKey,
}

impl P256PrivateKey {
    /// Takes a big-endian number of 32 bytes, greater than zero and below the order of the curve.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, Error> {
        // `p256` only derives the public key, which `ring` wants beside the private one.
        let secret = p256::ecdsa::SigningKey::from_slice(bytes).map_err(|_| Error::NotAPrivateKey)?;
        let public = PublicKey::of_p256(*secret.verifying_key());
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            bytes,
            &public.to_sec1_uncompressed(),
            &SystemRandom::new(),
        )
        .map_err(|_| Error::NotAPrivateKey)?;
        Ok(Self { bytes: Zeroizing::new(*bytes), pair: Arc::new(pair), public })
    }

    /// The public key that verifies what this key signs.
    pub fn public(&self) -> PublicKey {
        self.public.clone()
    }

    /// Signs the SHA-256 of `message`: 64 bytes, `r` then `s` (RFC 7518 §3.4). Each call gives
    /// another signature, with the lower or the higher `s`.
    ///
    /// # Panics
    ///
    /// When the operating system gives no randomness.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(&SystemRandom::new(), message).expect("the system gives randomness");
        signature.as_ref().try_into().expect("a signature on P-256 has 64 bytes")
    }

    /// The private key itself, to be sealed and stored.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.bytes.clone()
    }
}

impl fmt::Debug for P256PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[sealed]")
    }
}
