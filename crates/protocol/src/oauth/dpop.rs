//! DPoP proofs (RFC 9449): that a request is made by the holder of a key.
//!
//! [`verify`] holds to the order signature, `iat`, `jti`, `htm`, `htu`, `nonce`, `ath`, so that a proof refused for its
//! nonce says so whatever its `ath`. That a proof is not used twice is for the caller to see, by [`Proof::jti`], and to
//! remember for as long as its nonce may be accepted: three intervals.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use super::jwk::{Jwk, Thumbprint};
use super::jws::Unverified;
use super::nonce::Nonces;
use crate::crypto::P256PrivateKey;
use crate::jwt::{self, present};

/// What a proof has to be for.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The method of the request.
    pub method: &'a str,
    /// Our public origin, `https://host` in its canonical spelling: configured, never the `Host` header.
    pub origin: &'a str,
    /// The path of the request, from its `/` on, without query.
    pub path: &'a str,
    /// The token that came with the request.
    pub access_token: Option<&'a str>,
    /// Milliseconds since 1970.
    pub now_millis: i64,
}

/// What a good proof says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The thumbprint of the key that made it.
    pub jkt: Thumbprint,
    /// Its name, not empty, 1024 bytes at most. Unique per key at best: remember it together with `jkt`.
    pub jti: String,
    /// When it was made, in seconds.
    pub iat: i64,
}

/// Why a proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a token signed by the public key in its header, or of another type.
    #[error("DPoP proof: {0}")]
    Token(#[from] jwt::Error),
    /// `iat` is too old, or too far in the future.
    #[error("DPoP proof \"iat\" is not within a few minutes of now")]
    BadTime,
    /// `jti` is empty or too long.
    #[error("DPoP proof \"jti\" must be a non-empty string")]
    BadId,
    /// `htm` is another method.
    #[error("DPoP proof \"htm\" mismatch")]
    WrongMethod,
    /// `htu` is another URL, or none.
    #[error("DPoP proof \"htu\" mismatch")]
    WrongUrl,
    /// No nonce, or not one that is good now.
    #[error("Authorization server requires nonce in DPoP proof")]
    UseNonce,
    /// `ath` is missing or of another token, or there without a token.
    #[error("DPoP proof \"ath\" mismatch")]
    WrongToken,
}

impl Error {
    /// The error code of RFC 9449: `use_dpop_nonce` where another proof with our nonce would do.
    pub fn code(self) -> &'static str {
        match self {
            Self::UseNonce => "use_dpop_nonce",
            _ => "invalid_dpop_proof",
        }
    }
}

/// Checks all of a proof but that it was not seen before (RFC 9449 §4.3).
pub fn verify(proof: &str, expected: &Expected<'_>, nonces: &Nonces) -> Result<Proof, Error> {
    let unverified = Unverified::parse(proof)?;
    if unverified.header().typ.as_deref() != Some(TYP) {
        return Err(jwt::Error::WrongType.into());
    }
    let (key, claims) = unverified.verify_by_own_key()?;
    let claims: WireClaims<'_> = serde_json::from_slice(claims).map_err(|_| jwt::Error::BadClaims)?;
    let now = expected.now_millis.div_euclid(1000);
    if !(now.saturating_sub(MAX_AGE)..=now.saturating_add(MAX_LEAD)).contains(&claims.iat) {
        return Err(Error::BadTime);
    }
    if claims.jti.is_empty() || claims.jti.len() > MAX_JTI {
        return Err(Error::BadId);
    }
    if claims.htm != expected.method {
        return Err(Error::WrongMethod);
    }
    if !is_url(&claims.htu, expected.origin, expected.path) {
        return Err(Error::WrongUrl);
    }
    if !claims.nonce.is_some_and(|nonce| nonces.accepts(&nonce, expected.now_millis)) {
        return Err(Error::UseNonce);
    }
    if claims.ath.as_deref() != expected.access_token.map(ath).as_deref() {
        return Err(Error::WrongToken);
    }
    Ok(Proof { jkt: key.thumbprint(), jti: claims.jti.into_owned(), iat: claims.iat })
}

/// What `ath` has to be for a token: the base64url of its SHA-256.
pub fn ath(access_token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(access_token))
}

/// A key that makes proofs, with their header ready.
#[derive(Clone, Debug)]
pub struct ProofKey {
    key: P256PrivateKey,
    thumbprint: Thumbprint,
    /// Encoded, with the dot behind.
    header: String,
}

/// What a proof of ours says.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProofClaims<'a> {
    /// A name that no other proof has.
    pub jti: &'a str,
    /// The method of the request.
    pub htm: &'a str,
    /// The URL of the request, without query and fragment.
    pub htu: &'a str,
    /// Now, in seconds.
    pub iat: i64,
    /// The nonce that the server last gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<&'a str>,
    /// [`ath`] of the token that goes along.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ath: Option<&'a str>,
}

impl ProofKey {
    /// Takes a key.
    pub fn new(key: P256PrivateKey) -> Self {
        let jwk = Jwk::of(&key.public());
        let thumbprint = jwk.thumbprint();
        let header = serde_json::to_vec(&HeaderToSign { typ: TYP, alg: "ES256", jwk: &jwk });
        let mut header = URL_SAFE_NO_PAD.encode(header.expect("a header is plain data"));
        header.push('.');
        Self { key, thumbprint, header }
    }

    /// What tokens are bound to.
    pub fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// Makes a proof.
    pub fn sign(&self, claims: &ProofClaims<'_>) -> String {
        let mut proof = String::with_capacity(self.header.len() + 512);
        proof.push_str(&self.header);
        let claims = serde_json::to_vec(claims).expect("claims are plain data");
        URL_SAFE_NO_PAD.encode_string(claims, &mut proof);
        let signature = self.key.sign(proof.as_bytes());
        proof.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut proof);
        proof
    }
}

const TYP: &str = "dpop+jwt";

/// Ten seconds, and three minutes for clocks that go wrong.
const MAX_AGE: i64 = 10 + 180;
const MAX_LEAD: i64 = 180;

const MAX_JTI: usize = 1024;

#[derive(Serialize)]
struct HeaderToSign<'a> {
    typ: &'a str,
    alg: &'a str,
    jwk: &'a Jwk,
}

#[derive(Deserialize)]
struct WireClaims<'a> {
    #[serde(borrow)]
    jti: Cow<'a, str>,
    #[serde(borrow)]
    htm: Cow<'a, str>,
    #[serde(borrow)]
    htu: Cow<'a, str>,
    iat: i64,
    #[serde(default, deserialize_with = "present")]
    nonce: Option<String>,
    #[serde(default, deserialize_with = "present")]
    ath: Option<String>,
}

/// Compares origin and path. A query or fragment in `htu` is dropped, as the reference does, though it should not be
/// there (RFC 9449 §4.2).
fn is_url(htu: &str, origin: &str, path: &str) -> bool {
    let bare = htu.split(['?', '#']).next().unwrap_or_default();
    if bare.strip_prefix(origin) == Some(path) {
        return true;
    }
    let (Ok(claimed), Ok(asked)) = (Url::parse(htu), Url::parse(origin)) else { return false };
    if !matches!(claimed.scheme(), "http" | "https")
        || !claimed.username().is_empty()
        || claimed.password().is_some()
        || claimed.origin() != asked.origin()
    {
        return false;
    }
    let mut asked = asked;
    asked.set_path(path);
    claimed.path() == asked.path()
}
