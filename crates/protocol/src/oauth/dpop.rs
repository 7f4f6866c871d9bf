//! DPoP proofs (RFC 9449): the holder of a key makes a request.
//!
//! [`verify`] checks in the order signature, `iat`, `jti`, `htm`, `htu`, `nonce`, `ath`. The nonce
//! comes before `ath`, so that a client whose nonce is too old learns it at once, even if its token
//! is wrong too. The caller refuses a proof that was used before: it remembers [`Proof::jti`] for
//! as long as the nonce may be accepted, three intervals.
//!
//! ```
//! use genkan_protocol::crypto::P256PrivateKey;
//! use genkan_protocol::oauth::dpop::{Error, Expected, ProofClaims, ProofKey, verify};
//! use genkan_protocol::oauth::nonce::Nonces;
//!
//! let key = ProofKey::new(P256PrivateKey::from_bytes(&[7; 32]).unwrap());
//! let nonces = Nonces::new(&[1; 32], Nonces::INTERVAL);
//! let now_millis = 1_700_000_000_000;
//! let nonce = nonces.next(now_millis);
//! let proof = key.sign(&ProofClaims {
//!     jti: "a name that no other proof has",
//!     htm: "POST",
//!     htu: "https://genkan.example.com/oauth/token",
//!     iat: now_millis / 1000,
//!     nonce: Some(nonce.as_str()),
//!     ath: None,
//! });
//! let expected = Expected {
//!     method: "POST",
//!     origin: "https://genkan.example.com",
//!     path: "/oauth/token",
//!     access_token: None,
//!     now_millis,
//! };
//! assert_eq!(verify(&proof, &expected, &nonces)?.jkt, key.thumbprint());
//! assert_eq!(verify(&proof, &Expected { method: "GET", ..expected }, &nonces), Err(Error::WrongMethod));
//! # Ok::<(), Error>(())
//! ```

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

/// The request that a proof must belong to.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The method of the request.
    pub method: &'a str,
    /// The server's public origin, `https://host` in canonical form. From the configuration, never
    /// from the `Host` header: a client chooses that one.
    pub origin: &'a str,
    /// The path of the request, from its `/` on, without query.
    pub path: &'a str,
    /// The token that came with the request.
    pub access_token: Option<&'a str>,
    /// Milliseconds since 1970.
    pub now_millis: i64,
}

/// A verified proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The thumbprint of the key that made it.
    pub jkt: Thumbprint,
    /// Its name, 1 to 1024 bytes. Two keys may use the same one: remember it together with `jkt`.
    pub jti: String,
    /// When it was made, in seconds.
    pub iat: i64,
}

/// Why a proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a token signed by the public key in its header, or one of another type.
    #[error("DPoP proof: {0}")]
    Token(#[from] jwt::Error),
    /// `iat` is more than 190 seconds old or more than 180 seconds ahead.
    #[error("DPoP proof \"iat\" is not within a few minutes of now")]
    BadTime,
    /// `jti` is empty or too long.
    #[error("DPoP proof \"jti\" must be a non-empty string")]
    BadId,
    /// `htm` is another method.
    #[error("DPoP proof \"htm\" mismatch")]
    WrongMethod,
    /// `htu` is another URL, or not a URL.
    #[error("DPoP proof \"htu\" mismatch")]
    WrongUrl,
    /// No nonce, or one that is not valid now.
    #[error("Authorization server requires nonce in DPoP proof")]
    UseNonce,
    /// `ath` belongs to another token, is missing, or is present without a token.
    #[error("DPoP proof \"ath\" mismatch")]
    WrongToken,
}

impl Error {
    /// The error code of RFC 9449 §7.1 and §8: `use_dpop_nonce` when the client should try again
    /// with a fresh nonce.
    pub fn code(self) -> &'static str {
        match self {
            Self::UseNonce => "use_dpop_nonce",
            _ => "invalid_dpop_proof",
        }
    }
}

/// Checks everything of a proof but that it was not seen before (RFC 9449 §4.3).
///
/// # Errors
///
/// [`Error::UseNonce`] means that everything checked before the nonce is in order, so that another
/// attempt can succeed. All others are final.
pub fn verify(proof: &str, expected: &Expected<'_>, nonces: &Nonces) -> Result<Proof, Error> {
    let unverified = Unverified::parse(proof)?;
    // Without this check any token that carries its own key could pass as a proof (RFC 8725 §3.11).
    if unverified.header().typ.as_deref() != Some(TYP) {
        return Err(jwt::Error::WrongType.into());
    }
    // From here on the claims are the words of the holder of the private key of `jwk`, who
    // may be anyone: the caller compares the thumbprint with the one that a token is bound to.
    let (key, claims) = unverified.verify_by_own_key()?;
    let claims: WireClaims<'_> = serde_json::from_slice(claims).map_err(|_| jwt::Error::BadClaims)?;
    // `div_euclid` rounds down, as the seconds of a client's clock do; saturation keeps a wild
    // clock from a panic.
    let now = expected.now_millis.div_euclid(1000);
    if !(now.saturating_sub(MAX_AGE)..=now.saturating_add(MAX_LEAD)).contains(&claims.iat) {
        return Err(Error::BadTime);
    }
    // The length is bounded because the caller remembers each `jti`.
    if claims.jti.is_empty() || claims.jti.len() > MAX_JTI {
        return Err(Error::BadId);
    }
    if claims.htm != expected.method {
        return Err(Error::WrongMethod);
    }
    if !is_url(&claims.htu, expected.origin, expected.path) {
        return Err(Error::WrongUrl);
    }
    // A missing nonce gets the same error as an old one: in both cases the client tries again with
    // the nonce of the answer.
    if !claims.nonce.is_some_and(|nonce| nonces.accepts(&nonce, expected.now_millis)) {
        return Err(Error::UseNonce);
    }
    // A proof without a token must not have `ath` either, so that one made for a host cannot be
    // shown at the token endpoint.
    if claims.ath.as_deref() != expected.access_token.map(ath).as_deref() {
        return Err(Error::WrongToken);
    }
    Ok(Proof { jkt: key.thumbprint(), jti: claims.jti.into_owned(), iat: claims.iat })
}

/// The `ath` of an access token: the base64url of its SHA-256 (RFC 9449 §4.2).
pub fn ath(access_token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(access_token))
}

/// A key that signs proofs. Their header is encoded once, since it is the same for all.
#[derive(Clone, Debug)]
pub struct ProofKey {
    key: P256PrivateKey,
    thumbprint: Thumbprint,
    /// In base64url, with the dot that follows.
    header: String,
}

/// The claims of a proof to be signed (RFC 9449 §4.2).
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProofClaims<'a> {
    /// A unique name.
    pub jti: &'a str,
    /// The method of the request.
    pub htm: &'a str,
    /// The URL of the request, without query and fragment.
    pub htu: &'a str,
    /// The present time, in seconds. [`backdated`] leaves a margin for a clock that is behind.
    pub iat: i64,
    /// The nonce that the server last gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<&'a str>,
    /// [`ath`] of the token that goes along.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ath: Option<&'a str>,
}

/// Returns the `iat` of a proof that is made at `now`, in seconds: five seconds earlier.
///
/// A server whose clock is behind may refuse a proof from the future. The reference server accepts
/// three minutes of lead and 190 seconds of age; others accept no lead at all.
pub const fn backdated(now: i64) -> i64 {
    now.saturating_sub(5)
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

    /// The thumbprint that tokens are bound to.
    pub fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// Signs a proof.
    pub fn sign(&self, claims: &ProofClaims<'_>) -> String {
        let mut proof = String::with_capacity(self.header.len() + 512);
        proof.push_str(&self.header);
        let claims = serde_json::to_vec(claims).expect("claims are plain data");
        URL_SAFE_NO_PAD.encode_string(claims, &mut proof);
        // At this point `proof` is header, dot and claims: the signing input of RFC 7515 §5.1.
        let signature = self.key.sign(proof.as_bytes());
        proof.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut proof);
        proof
    }
}

const TYP: &str = "dpop+jwt";

/// The highest age of a proof, in seconds: ten for the way here, and three minutes for slow clocks.
const MAX_AGE: i64 = 10 + 180;
/// How far ahead `iat` may be, in seconds, for clocks that are fast.
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

/// Compares origin and path. A query or fragment in `htu` is dropped: it should not be there (RFC
/// 9449 §4.2), but the reference implementation drops it as well.
fn is_url(htu: &str, origin: &str, path: &str) -> bool {
    // Nearly every client writes the URL as the server does. Parsing is for the others (RFC 9449
    // §4.3, last paragraph).
    let bare = htu.split(['?', '#']).next().unwrap_or_default();
    if bare.strip_prefix(origin) == Some(path) {
        return true;
    }
    // Both URLs are normalised by one parser, so that escapes and dot segments compare equal.
    let (Ok(claimed), Ok(asked)) = (Url::parse(htu), Url::parse(origin)) else { return false };
    if !matches!(claimed.scheme(), "http" | "https")
        || !claimed.username().is_empty()
        || claimed.password().is_some()
        || claimed.origin() != asked.origin()
    {
        return false;
    }
    let mut asked = asked;
    // The setter escapes the path by the rules of the parser that read `htu`.
    asked.set_path(path);
    claimed.path() == asked.path()
}
