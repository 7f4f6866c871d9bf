//! Tokens signed by keys of strangers (RFC 7515, compact form), by the algorithms that OAuth clients use.
//!
//! The shape is as strict as in [`crate::jwt`]. Here the header names the algorithm and may bring the key along
//! (`jwk`); the algorithm has to fit the key. `ES512` and everything symmetric is unknown.

use std::fmt;
use std::str::FromStr;

use ring::signature as sig;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::jwk::{Curve, Jwk, Material};
use crate::crypto::{self, PublicKey};
use crate::jwt::{self, Parts, present};

/// An algorithm of signatures (RFC 7518 §3.1, RFC 8812 §3.1).
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
    /// All that are verified here, as server metadata lists them.
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

    /// The name in JOSE.
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

/// An algorithm that is not verified here.
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

/// A well-formed token before its signature is checked. Its claims are out of reach until then.
pub struct Unverified<'a> {
    parts: Parts<'a>,
    header: Header,
}

/// What the header says. Nothing of it is to be trusted before the signature is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The algorithm.
    pub alg: Algorithm,
    /// The type, as it stands.
    pub typ: Option<String>,
    /// The name of the key, as it stands.
    pub kid: Option<String>,
    /// The public key that the token brings along.
    pub jwk: Option<Jwk>,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart and checks all of its shape. Algorithms unknown here are [`jwt::Error::WrongAlgorithm`];
    /// a `jwk` with private parts, or of an unsupported kind, is [`jwt::Error::Malformed`].
    pub fn parse(token: &'a str) -> Result<Self, jwt::Error> {
        let parts = Parts::split(token)?;
        let wire: WireHeader = serde_json::from_slice(&parts.header).map_err(|_| jwt::Error::Malformed)?;
        if wire.crit.is_some() {
            return Err(jwt::Error::Malformed);
        }
        let alg = wire.alg.0.ok_or(jwt::Error::WrongAlgorithm)?;
        let header = Header { alg, typ: wire.typ, kid: wire.kid, jwk: wire.jwk };
        Ok(Self { parts, header })
    }

    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Checks the signature and gives the claims, a JSON object.
    pub fn verify(&self, key: &Jwk) -> Result<&[u8], jwt::Error> {
        verify(key, self.header.alg, self.parts.signed, &self.parts.signature)?;
        Ok(&self.parts.claims)
    }

    /// Checks the signature by the key that the token brought along, and gives that key and the claims.
    /// Proves that the maker has the private key, and nothing else.
    pub fn verify_by_own_key(&self) -> Result<(&Jwk, &[u8]), jwt::Error> {
        let key = self.header.jwk.as_ref().ok_or(jwt::Error::Malformed)?;
        Ok((key, self.verify(key)?))
    }
}

impl fmt::Debug for Unverified<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Unverified").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Checks a signature as JOSE spells it: `r` and `s` in fixed length for the curves, with either `s`.
pub fn verify(key: &Jwk, alg: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), jwt::Error> {
    if !key.fits(alg) {
        return Err(jwt::Error::WrongAlgorithm);
    }
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

/// `alg` is one of RSA's, since it fits an RSA key.
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

/// None: an algorithm unknown here.
struct MaybeAlgorithm(Option<Algorithm>);

impl<'de> Deserialize<'de> for MaybeAlgorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(String::deserialize(deserializer)?.parse().ok()))
    }
}
