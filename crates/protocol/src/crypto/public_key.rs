//! Public keys, parsed once into the form that verifies signatures.

use std::fmt;
use std::str::FromStr;

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use sha2::{Digest, Sha256};

use super::{Error, multikey};

/// One of the two curves of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// secp256k1.
    K256,
    /// NIST P-256, also called secp256r1.
    P256,
}

impl Curve {
    /// The name of its signature algorithm in JOSE (RFC 7518 §3.1, RFC 8812 §3.1).
    pub fn algorithm(self) -> &'static str {
        match self {
            Self::K256 => "ES256K",
            Self::P256 => "ES256",
        }
    }
}

/// A public key on one of the two curves, ready to verify with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Point);

#[derive(Clone, PartialEq, Eq)]
enum Point {
    K256(secp256k1::PublicKey),
    P256(p256::ecdsa::VerifyingKey),
}

impl PublicKey {
    /// Reads `did:key:z…`.
    ///
    /// # Errors
    ///
    /// [`Error::UnsupportedKey`] for a well-formed key of another kind, [`Error::NotAPublicKey`]
    /// for anything else that is refused.
    pub fn from_did_key(text: &str) -> Result<Self, Error> {
        Self::from_multibase(text.strip_prefix("did:key:").ok_or(Error::NotAPublicKey)?)
    }

    /// Reads a multikey, `z…`, as it follows `did:key:` and as DID documents hold it. Errors as
    /// [`PublicKey::from_did_key`].
    pub fn from_multibase(text: &str) -> Result<Self, Error> {
        let (curve, point) = multikey::read_multikey(text)?;
        Self::from_sec1(curve, &point)
    }

    /// Reads `z…` without a multicodec in front of the point, as the verification methods of 2019
    /// spell keys (atproto DID, "Representation of Public Keys"). Their type names the curve.
    pub fn from_bare_multibase(curve: Curve, text: &str) -> Result<Self, Error> {
        Self::from_sec1(curve, &multikey::read_bare(text)?)
    }

    /// Reads a point (SEC 1 §2.3.4), compressed (33 bytes) or uncompressed (65 bytes).
    pub fn from_sec1(curve: Curve, point: &[u8]) -> Result<Self, Error> {
        // The libraries also read SEC 1's hybrid encodings (first byte 6 or 7). One key must not
        // have three spellings.
        if !matches!((point.len(), point.first()), (33, Some(2 | 3)) | (65, Some(4))) {
            return Err(Error::NotAPublicKey);
        }
        match curve {
            Curve::K256 => secp256k1::PublicKey::from_slice(point).map(Point::K256).ok(),
            Curve::P256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map(Point::P256).ok(),
        }
        .map(Self)
        .ok_or(Error::NotAPublicKey)
    }

    pub(super) fn of_k256(point: secp256k1::PublicKey) -> Self {
        Self(Point::K256(point))
    }

    pub(super) fn of_p256(point: p256::ecdsa::VerifyingKey) -> Self {
        Self(Point::P256(point))
    }

    /// The curve of this key.
    pub fn curve(&self) -> Curve {
        match self.0 {
            Point::K256(_) => Curve::K256,
            Point::P256(_) => Curve::P256,
        }
    }

    /// Writes `did:key:z…`.
    pub fn to_did_key(&self) -> String {
        format!("did:key:{}", self.to_multibase())
    }

    /// Writes `z…`.
    pub fn to_multibase(&self) -> String {
        multikey::write_multikey(self.curve(), &self.to_sec1_compressed())
    }

    /// The compressed point, 33 bytes.
    pub fn to_sec1_compressed(&self) -> Vec<u8> {
        match &self.0 {
            Point::K256(point) => point.serialize().to_vec(),
            Point::P256(point) => point.to_sec1_point(true).as_bytes().to_vec(),
        }
    }

    /// The uncompressed point, 65 bytes.
    pub fn to_sec1_uncompressed(&self) -> Vec<u8> {
        match &self.0 {
            Point::K256(point) => point.serialize_uncompressed().to_vec(),
            Point::P256(point) => point.to_sec1_point(false).as_bytes().to_vec(),
        }
    }

    /// The uncompressed point as 130 hexadecimal digits, the form in which a PDS is configured with
    /// a public key.
    pub fn to_sec1_uncompressed_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.to_sec1_uncompressed())
    }

    /// Checks a signature as the protocol defines it: 64 bytes, with the lower `s` (atproto
    /// Cryptography, "ECDSA Signature Malleability"). [`Error::BadSignature`] is the only error.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        let digest: [u8; 32] = Sha256::digest(message).into();
        match &self.0 {
            Point::K256(point) => {
                let signature =
                    secp256k1::ecdsa::Signature::from_compact(signature).map_err(|_| Error::BadSignature)?;
                // The library refuses the higher `s` by itself.
                verify_k256(point, digest, &signature)
            }
            Point::P256(point) => {
                let signature =
                    p256::ecdsa::Signature::from_slice(signature).map_err(|_| Error::BadSignature)?;
                // This library accepts either `s`, so the higher one is refused here.
                if signature.normalize_s() != signature {
                    return Err(Error::BadSignature);
                }
                verify_p256(point, digest, &signature)
            }
        }
    }

    /// Checks a signature as JOSE defines it: 64 bytes, with either `s` (RFC 7518 §3.4).
    /// [`Error::BadSignature`] is the only error.
    pub fn verify_either_s(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        let digest: [u8; 32] = Sha256::digest(message).into();
        match &self.0 {
            Point::K256(point) => {
                // The library verifies only the lower `s`, which stands for the higher one as well.
                let mut signature =
                    secp256k1::ecdsa::Signature::from_compact(signature).map_err(|_| Error::BadSignature)?;
                signature.normalize_s();
                verify_k256(point, digest, &signature)
            }
            Point::P256(point) => {
                let signature =
                    p256::ecdsa::Signature::from_slice(signature).map_err(|_| Error::BadSignature)?;
                verify_p256(point, digest, &signature)
            }
        }
    }
}

fn verify_k256(
    point: &secp256k1::PublicKey,
    digest: [u8; 32],
    signature: &secp256k1::ecdsa::Signature,
) -> Result<(), Error> {
    signature.verify(secp256k1::Message::from_digest(digest), point).map_err(|_| Error::BadSignature)
}

fn verify_p256(
    point: &p256::ecdsa::VerifyingKey,
    digest: [u8; 32],
    signature: &p256::ecdsa::Signature,
) -> Result<(), Error> {
    point.verify_prehash(&digest, signature).map_err(|_| Error::BadSignature)
}

impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::from_did_key(text)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_did_key())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({self})")
    }
}
