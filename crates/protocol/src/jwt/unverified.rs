//! A token whose shape is right and whose signature nobody has looked at yet.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Error;
use super::json::{check_object, present};
use crate::crypto::{Curve, PublicKey};

/// The longest token that is read at all.
pub const MAX_LENGTH: usize = 8 * 1024;

/// A well-formed token before its signature is checked. Its claims are out of reach until then.
pub struct Unverified<'a> {
    parts: Parts<'a>,
    header: Header,
}

/// What the header says. Nothing of it is to be trusted before the signature is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The algorithm it claims.
    pub alg: Algorithm,
    /// The type, as it stands.
    pub typ: Option<String>,
    /// The name of the key, as it stands.
    pub kid: Option<String>,
    /// Whether it brings a key along, or says where to find one.
    pub has_own_key: bool,
}

/// An algorithm of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSA on secp256k1.
    Es256k,
    /// ECDSA on P-256.
    Es256,
    /// Any other, `none` included.
    Other,
}

impl Algorithm {
    fn is_of(self, curve: Curve) -> bool {
        matches!((self, curve), (Self::Es256k, Curve::K256) | (Self::Es256, Curve::P256))
    }
}

impl<'a> Unverified<'a> {
    /// Takes a token apart and checks all of its shape.
    pub fn parse(token: &'a str) -> Result<Self, Error> {
        let parts = Parts::split(token)?;
        let header = read_header(&parts.header)?;
        Ok(Self { parts, header })
    }

    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The header as it stands, for members that only some kinds of token have.
    pub fn header_json(&self) -> &[u8] {
        &self.parts.header
    }

    /// Checks the signature by a K-256 key and gives the claims, a JSON object.
    pub fn verify_es256k(&self, key: &PublicKey) -> Result<&[u8], Error> {
        if key.curve() != Curve::K256 {
            return Err(Error::WrongAlgorithm);
        }
        self.verify(key)
    }

    /// Checks the signature by a P-256 key, with the lower `s` only, and gives the claims, a JSON object.
    pub fn verify_es256(&self, key: &PublicKey) -> Result<&[u8], Error> {
        if key.curve() != Curve::P256 {
            return Err(Error::WrongAlgorithm);
        }
        self.verify(key)
    }

    /// Checks the signature by a key of either curve, with the lower `s` only, and gives the claims, a JSON object.
    pub fn verify(&self, key: &PublicKey) -> Result<&[u8], Error> {
        let signature = self.signature_for(key)?;
        key.verify(self.parts.signed, &signature).map_err(|_| Error::BadSignature)?;
        Ok(&self.parts.claims)
    }

    /// The same, with either `s`: for tokens that strangers' JOSE libraries make, OAuth's and DPoP's.
    pub fn verify_either_s(&self, key: &PublicKey) -> Result<&[u8], Error> {
        let signature = self.signature_for(key)?;
        key.verify_either_s(self.parts.signed, &signature).map_err(|_| Error::BadSignature)?;
        Ok(&self.parts.claims)
    }

    /// The claims before verification, to find the key by.
    pub(crate) fn unverified_claims(&self) -> &[u8] {
        &self.parts.claims
    }

    fn signature_for(&self, key: &PublicKey) -> Result<[u8; 64], Error> {
        if !self.header.alg.is_of(key.curve()) {
            return Err(Error::WrongAlgorithm);
        }
        // No key here makes a signature of another length.
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
    /// What the signature is over: header and claims as they were sent.
    pub(crate) signed: &'a [u8],
    /// A JSON object.
    pub(crate) header: Vec<u8>,
    /// A JSON object.
    pub(crate) claims: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    pub(crate) fn split(token: &'a str) -> Result<Self, Error> {
        if token.len() > MAX_LENGTH {
            return Err(Error::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
        // A further dot would be left in the claims, where base64url has none.
        let (header, claims) = signed.split_once('.').ok_or(Error::Malformed)?;
        let (header, claims) = (decode_object(header)?, decode_object(claims)?);
        Ok(Self { signed: signed.as_bytes(), header, claims, signature: decode(signature)? })
    }
}

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
            "ES256K" => Self::Es256k,
            "ES256" => Self::Es256,
            _ => Self::Other,
        })
    }
}
