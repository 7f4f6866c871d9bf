//! Tokens before their signature is checked.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Error;
use super::json::{check_object, present};
use crate::crypto::{Curve, PublicKey};

/// The longest token that is read, in bytes.
pub const MAX_LENGTH: usize = 8 * 1024;

/// A well-formed token before its signature is checked. Only [`Unverified::verify`] and its
/// siblings return the claims.
pub struct Unverified<'a> {
    parts: Parts<'a>,
    header: Header,
}

/// The header of a token (RFC 7515 §4.1). Trust nothing of it before the signature is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The claimed algorithm.
    pub alg: Algorithm,
    /// The type, byte by byte as it was sent.
    pub typ: Option<String>,
    /// The name of the key, byte by byte as it was sent.
    pub kid: Option<String>,
    /// Whether the header carries a key, or an address of one: `jwk`, `jku`, `x5c` or `x5u`.
    pub has_own_key: bool,
}

/// A signature algorithm, as `alg` names it (RFC 7518 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSA on secp256k1.
    Es256k,
    /// ECDSA on P-256.
    Es256,
    /// Any other, `none` included. No key verifies it.
    Other,
}

impl Algorithm {
    fn is_of(self, curve: Curve) -> bool {
        matches!((self, curve), (Self::Es256k, Curve::K256) | (Self::Es256, Curve::P256))
    }
}

impl<'a> Unverified<'a> {
    /// Reads a token and checks everything but its signature and the meaning of its claims.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] only. An unknown `alg` is not an error here: it fails when a key
    /// verifies.
    pub fn parse(token: &'a str) -> Result<Self, Error> {
        let parts = Parts::split(token)?;
        let header = read_header(&parts.header)?;
        Ok(Self { parts, header })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The JSON of the header, for members that only some kinds of token have.
    pub fn header_json(&self) -> &[u8] {
        &self.parts.header
    }

    /// Checks the signature by a K-256 key and returns the claims, a JSON object. Errors as
    /// [`Unverified::verify`], and [`Error::WrongAlgorithm`] for a key on another curve.
    pub fn verify_es256k(&self, key: &PublicKey) -> Result<&[u8], Error> {
        if key.curve() != Curve::K256 {
            return Err(Error::WrongAlgorithm);
        }
        self.verify(key)
    }

    /// Checks the signature by a P-256 key, with the lower `s` only, and returns the claims, a JSON
    /// object. Errors as [`Unverified::verify`], and [`Error::WrongAlgorithm`] for a key on another
    /// curve.
    pub fn verify_es256(&self, key: &PublicKey) -> Result<&[u8], Error> {
        if key.curve() != Curve::P256 {
            return Err(Error::WrongAlgorithm);
        }
        self.verify(key)
    }

    /// Checks the signature by a key of either curve, with the lower `s` only, and returns the
    /// claims, a JSON object.
    ///
    /// # Errors
    ///
    /// [`Error::WrongAlgorithm`] when `alg` does not belong to the key's curve, otherwise
    /// [`Error::BadSignature`].
    pub fn verify(&self, key: &PublicKey) -> Result<&[u8], Error> {
        let signature = self.signature_for(key)?;
        key.verify(self.parts.signed, &signature).map_err(|_| Error::BadSignature)?;
        Ok(&self.parts.claims)
    }

    /// Checks the signature as [`Unverified::verify`] does, but with either `s`: for tokens of
    /// OAuth and DPoP, which any JOSE library may have signed.
    pub fn verify_either_s(&self, key: &PublicKey) -> Result<&[u8], Error> {
        let signature = self.signature_for(key)?;
        key.verify_either_s(self.parts.signed, &signature).map_err(|_| Error::BadSignature)?;
        Ok(&self.parts.claims)
    }

    /// The claims before verification. Only for finding the key.
    pub(crate) fn unverified_claims(&self) -> &[u8] {
        &self.parts.claims
    }

    fn signature_for(&self, key: &PublicKey) -> Result<[u8; 64], Error> {
        // The key decides the algorithm, and the header must agree with it (RFC 8725 §3.1).
        if !self.header.alg.is_of(key.curve()) {
            return Err(Error::WrongAlgorithm);
        }
        // Both curves have signatures of 64 bytes.
        self.parts.signature.as_slice().try_into().map_err(|_| Error::BadSignature)
    }
}

impl fmt::Debug for Unverified<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Unverified").field("header", &self.header).finish_non_exhaustive()
    }
}

/// The three parts of a token: base64url around JSON objects, and a signature of any length.
pub(crate) struct Parts<'a> {
    /// The signed bytes: header and claims as they were sent, with the dot between.
    pub(crate) signed: &'a [u8],
    /// A JSON object.
    pub(crate) header: Vec<u8>,
    /// A JSON object.
    pub(crate) claims: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    pub(crate) fn split(token: &'a str) -> Result<Self, Error> {
        // Bounded before anything is decoded: tokens come from anyone.
        if token.len() > MAX_LENGTH {
            return Err(Error::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
        // A third dot would stay in the claims, where base64url refuses it.
        let (header, claims) = signed.split_once('.').ok_or(Error::Malformed)?;
        let (header, claims) = (decode_object(header)?, decode_object(claims)?);
        Ok(Self { signed: signed.as_bytes(), header, claims, signature: decode(signature)? })
    }
}

/// Decodes canonical base64url: padding, and bits after the last byte that are not zero, are
/// refused. Otherwise one token would have several spellings, and a list of used tokens would miss
/// the others.
fn decode(part: &str) -> Result<Vec<u8>, Error> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Error::Malformed)
}

fn decode_object(part: &str) -> Result<Vec<u8>, Error> {
    let bytes = decode(part)?;
    check_object(&bytes)?;
    Ok(bytes)
}

fn read_header(json: &[u8]) -> Result<Header, Error> {
    let wire: WireHeader = serde_json::from_slice(json).map_err(|_| Error::Malformed)?;
    // A token with `crit` says: refuse me if you do not understand these members. None is known
    // here.
    if wire.crit.is_some() {
        return Err(Error::Malformed);
    }
    let has_own_key = [&wire.jwk, &wire.jku, &wire.x5c, &wire.x5u].into_iter().any(Option::is_some);
    Ok(Header { alg: wire.alg, typ: wire.typ, kid: wire.kid, has_own_key })
}

#[derive(Deserialize)]
struct WireHeader {
    alg: Algorithm,
    #[serde(default, deserialize_with = "present")]
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    jwk: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    jku: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    x5c: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    x5u: Option<IgnoredAny>,
}

impl<'de> Deserialize<'de> for Algorithm {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match String::deserialize(deserializer)?.as_str() {
            // Names are case-sensitive (RFC 7515 §4.1.1).
            "ES256K" => Self::Es256k,
            "ES256" => Self::Es256,
            _ => Self::Other,
        })
    }
}
