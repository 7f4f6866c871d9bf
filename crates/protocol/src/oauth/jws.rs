//! Tokens that OAuth clients sign with keys of their own (RFC 7515, compact serialization).
//!
//! The shape is as strict as in [`crate::jwt`]. Here the header names the algorithm and may carry
//! the key (`jwk`), but an algorithm is accepted only for a key that it fits (RFC 8725 §3.1).
//! `ES512` and all symmetric algorithms are unknown: with a symmetric one, a public key could be
//! used as a shared secret.
//!
//! ```
//! use genkan_protocol::crypto::P256PrivateKey;
//! use genkan_protocol::jwt;
//! use genkan_protocol::oauth::jwk::Jwk;
//! use genkan_protocol::oauth::jws::{Algorithm, Unverified};
//!
//! let key = P256PrivateKey::from_bytes(&[7; 32]).unwrap();
//! let token = jwt::sign_es256(&key, "JWT", "key 1", &serde_json::json!({ "iss": "https://app.example.com" }));
//! let unverified = Unverified::parse(&token)?;
//! assert_eq!((unverified.header().alg, unverified.header().kid.as_deref()), (Algorithm::Es256, Some("key 1")));
//! assert_eq!(unverified.verify(&Jwk::of(&key.public()))?, br#"{"iss":"https://app.example.com"}"#);
//! # Ok::<(), jwt::Error>(())
//! ```

use std::fmt;
use std::str::FromStr;

use ring::signature as sig;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::jwk::{Curve, Jwk, Material};
use crate::crypto::{self, PublicKey};
use crate::jwt::{self, Parts, present};

/// A signature algorithm (RFC 7518 §3.1, RFC 8812 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on secp256k1 with SHA-256.
    Es256k,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS#1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS#1 v1.5 with SHA-512.
    Rs512,
    /// RSA PSS with SHA-256.
    Ps256,
    /// RSA PSS with SHA-384.
    Ps384,
    /// RSA PSS with SHA-512.
    Ps512,
}

impl Algorithm {
    /// All algorithms, in the order in which server metadata lists them.
    pub const ALL: [Self; 9] = [
        Self::Es256,
        Self::Es256k,
        Self::Es384,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
    ];

    /// The name, as `alg` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es256k => "ES256K",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }

    pub(super) fn is_rsa(self) -> bool {
        !matches!(self, Self::Es256 | Self::Es256k | Self::Es384)
    }
}

/// The name of an algorithm that is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a supported signature algorithm")]
pub struct AlgorithmError;

impl FromStr for Algorithm {
    type Err = AlgorithmError;

    fn from_str(text: &str) -> Result<Self, AlgorithmError> {
        Self::ALL.into_iter().find(|alg| alg.as_str() == text).ok_or(AlgorithmError)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl Serialize for Algorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Algorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A well-formed token before its signature is checked. Only [`Unverified::verify`] and its sibling
/// return the claims.
pub struct Unverified<'a> {
    parts: Parts<'a>,
    header: Header,
}

/// The header of a token (RFC 7515 §4.1). Trust nothing of it before the signature is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The algorithm.
    pub alg: Algorithm,
    /// The type, byte by byte as it was sent.
    pub typ: Option<String>,
    /// The name of the key, byte by byte as it was sent.
    pub kid: Option<String>,
    /// The public key that the token carries.
    pub jwk: Option<Jwk>,
}

impl<'a> Unverified<'a> {
    /// Reads a token and checks everything but its signature and the meaning of its claims.
    ///
    /// # Errors
    ///
    /// [`jwt::Error::WrongAlgorithm`] for an unknown algorithm, [`jwt::Error::Malformed`] for
    /// anything else, a `jwk` with private parts or of an unsupported kind included.
    pub fn parse(token: &'a str) -> Result<Self, jwt::Error> {
        let parts = Parts::split(token)?;
        let wire: WireHeader = serde_json::from_slice(&parts.header).map_err(|_| jwt::Error::Malformed)?;
        // A token with `crit` says: refuse me if you do not understand these members. None is
        // known.
        if wire.crit.is_some() {
            return Err(jwt::Error::Malformed);
        }
        // `none` and the symmetric algorithms are among those that do not parse.
        let alg = wire.alg.0.ok_or(jwt::Error::WrongAlgorithm)?;
        let header = Header { alg, typ: wire.typ, kid: wire.kid, jwk: wire.jwk };
        Ok(Self { parts, header })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Checks the signature and returns the claims, a JSON object. Errors as [`verify`].
    pub fn verify(&self, key: &Jwk) -> Result<&[u8], jwt::Error> {
        verify(key, self.header.alg, self.parts.signed, &self.parts.signature)?;
        Ok(&self.parts.claims)
    }

    /// Checks the signature by the key that the token carries, and returns that key and the claims.
    /// This proves only that the maker has the private key. Errors as [`verify`], and
    /// [`jwt::Error::Malformed`] without a `jwk`.
    pub fn verify_by_own_key(&self) -> Result<(&Jwk, &[u8]), jwt::Error> {
        // Only a proof of possession may be checked by its own key. For anything else the key has
        // to come from a trusted place.
        let key = self.header.jwk.as_ref().ok_or(jwt::Error::Malformed)?;
        Ok((key, self.verify(key)?))
    }
}

impl fmt::Debug for Unverified<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Unverified").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Checks a signature as JOSE spells it: for the curves `r` and `s` in fixed length, with either
/// `s` (RFC 7518 §3.4).
///
/// # Errors
///
/// [`jwt::Error::WrongAlgorithm`] when the algorithm does not fit the key, otherwise
/// [`jwt::Error::BadSignature`].
pub fn verify(key: &Jwk, alg: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), jwt::Error> {
    // The header is the attacker's text until the signature is good: it must not choose how a key
    // is used (RFC 8725 §3.1).
    if !key.fits(alg) {
        return Err(jwt::Error::WrongAlgorithm);
    }
    // The kind of key alone chooses the verifier: for the curves `alg` has no further say.
    let good = match key.material() {
        Material::Ec(Curve::K256, _) => {
            return PublicKey::from_sec1(crypto::Curve::K256, key.material().point())
                .and_then(|key| key.verify_either_s(message, signature))
                .map_err(|_| jwt::Error::BadSignature);
        }
        Material::Ec(Curve::P256, _) => {
            sig::UnparsedPublicKey::new(&sig::ECDSA_P256_SHA256_FIXED, key.material().point())
                .verify(message, signature)
        }
        Material::Ec(Curve::P384, _) => {
            sig::UnparsedPublicKey::new(&sig::ECDSA_P384_SHA384_FIXED, key.material().point())
                .verify(message, signature)
        }
        Material::Rsa { modulus, exponent } => sig::RsaPublicKeyComponents { n: modulus, e: exponent }
            .verify(rsa_parameters(alg), message, signature),
    };
    good.map_err(|_| jwt::Error::BadSignature)
}

/// The verifier of an RSA algorithm, for keys of 2048 to 8192 bits. `alg` is one of RSA's, since it
/// fits an RSA key.
fn rsa_parameters(alg: Algorithm) -> &'static sig::RsaParameters {
    match alg {
        Algorithm::Rs384 => &sig::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &sig::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &sig::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &sig::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &sig::RSA_PSS_2048_8192_SHA512,
        Algorithm::Rs256 | Algorithm::Es256 | Algorithm::Es256k | Algorithm::Es384 => {
            &sig::RSA_PKCS1_2048_8192_SHA256
        }
    }
}

#[derive(Deserialize)]
struct WireHeader {
    alg: MaybeAlgorithm,
    #[serde(default, deserialize_with = "present")]
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    jwk: Option<Jwk>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
}

/// `None`: an unknown algorithm, which is an error of its own.
struct MaybeAlgorithm(Option<Algorithm>);

impl<'de> Deserialize<'de> for MaybeAlgorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(String::deserialize(deserializer)?.parse().ok()))
    }
}
