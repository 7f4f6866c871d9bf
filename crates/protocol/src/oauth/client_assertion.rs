//! Client assertions (RFC 7523 §3), by which a confidential client authenticates.

use serde::{Deserialize, Serialize};

use super::client_id::ClientId;
use super::jwk::{Jwk, JwkSet, Thumbprint};
use super::jws::{Algorithm, Unverified};
use crate::crypto::P256PrivateKey;
use crate::jwt::{self, present};

/// The only supported `client_assertion_type` (RFC 7523 §2.2).
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A verified assertion. The caller refuses one that was used before: it remembers client and `jti`
/// until `forget_at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// Its name.
    pub jti: String,
    /// When it ends, in seconds. `None`: it does not say.
    pub exp: Option<i64>,
    /// The time from which it is refused for its age, in seconds.
    pub forget_at: i64,
    /// The name of the key.
    pub kid: String,
    /// The algorithm of its signature.
    pub alg: Algorithm,
    /// The thumbprint of the key.
    pub jkt: Thumbprint,
}

/// Why an assertion is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The token cannot be read, or its signature is wrong.
    #[error("client_assertion: {0}")]
    Token(#[from] jwt::Error),
    /// The header does not name a key.
    #[error("client_assertion: \"kid\" required in the header")]
    NoKid,
    /// The named key is not in the client's set, or does not fit the algorithm.
    #[error("client_assertion: no such key in the client's key set")]
    UnknownKey,
    /// `iss` or `sub` is another client.
    #[error("client_assertion: \"iss\" and \"sub\" must be the client_id")]
    WrongClient,
    /// Addressed to another server.
    #[error("client_assertion: \"aud\" must be this server's issuer")]
    WrongAudience,
    /// `iat` is more than 60 seconds away, `exp` has passed, or `nbf` is more than 60 seconds
    /// ahead.
    #[error("client_assertion: \"iat\", \"nbf\" or \"exp\" is not valid now")]
    BadTime,
    /// `jti` is empty or longer than 1024 bytes.
    #[error("client_assertion: \"jti\" must be a non-empty string")]
    BadId,
}

/// An assertion before its signature is checked.
#[derive(Debug)]
pub struct UnverifiedAssertion<'a> {
    token: Unverified<'a>,
    kid: String,
}

impl<'a> UnverifiedAssertion<'a> {
    /// Reads an assertion.
    ///
    /// # Errors
    ///
    /// [`Error::Token`] or [`Error::NoKid`].
    pub fn parse(assertion: &'a str) -> Result<Self, Error> {
        let token = Unverified::parse(assertion)?;
        // A DPoP proof is signed by a client's key as well, and must not pass as an assertion.
        if token.header().typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case("dpop+jwt")) {
            return Err(jwt::Error::WrongType.into());
        }
        let kid = token.header().kid.clone().filter(|kid| !kid.is_empty()).ok_or(Error::NoKid)?;
        Ok(Self { token, kid })
    }

    /// The name of the claimed key.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The claimed key in the client's set. `None`: fetch the set again, since the client may have
    /// changed it.
    pub fn key<'k>(&self, keys: &'k JwkSet) -> Option<&'k Jwk> {
        keys.find(&self.kid, self.token.header().alg)
    }

    /// Checks everything but that it was not used before. `issuer` is this server's; `now` is in
    /// seconds.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownKey`] when [`UnverifiedAssertion::key`] finds none, otherwise any but
    /// [`Error::NoKid`].
    pub fn verify(
        &self,
        keys: &JwkSet,
        client: &ClientId,
        issuer: &str,
        now: i64,
    ) -> Result<Assertion, Error> {
        // The key decides first: the claims are read only after the signature is checked.
        let key = self.key(keys).ok_or(Error::UnknownKey)?;
        let claims: WireClaims =
            serde_json::from_slice(self.token.verify(key)?).map_err(|_| jwt::Error::BadClaims)?;
        // Both must be the client (RFC 7523 §3): an issuer cannot vouch for another client here.
        if claims.iss != client.as_str() || claims.sub != client.as_str() {
            return Err(Error::WrongClient);
        }
        if !claims.aud.names(issuer) {
            return Err(Error::WrongAudience);
        }
        // `exp` is optional in the profile, so that age is judged by `iat` in any case.
        let ended = claims.exp.is_some_and(|exp| exp <= now);
        let early = claims.nbf.is_some_and(|nbf| nbf > now.saturating_add(MAX_LEAD));
        let fresh = now.saturating_sub(MAX_AGE)..=now.saturating_add(MAX_LEAD);
        if ended || early || !fresh.contains(&claims.iat) {
            return Err(Error::BadTime);
        }
        // Used ids are stored, so a client must not choose their length.
        if claims.jti.is_empty() || claims.jti.len() > MAX_JTI {
            return Err(Error::BadId);
        }
        Ok(Assertion {
            jti: claims.jti,
            exp: claims.exp,
            // One second later than the last moment at which `fresh` lets it pass.
            forget_at: claims.iat.saturating_add(MAX_AGE + 1),
            kid: self.kid.clone(),
            alg: self.token.header().alg,
            jkt: key.thumbprint(),
        })
    }
}

/// Signs an assertion by which `client_id` authenticates at the server `issuer`, for half a minute
/// from `now` (in seconds). `jti` must be unique.
///
/// `iat` is ten seconds earlier than `now`. The reference server refuses an assertion from the future,
/// however little its own clock is behind, and one that is older than a minute.
pub fn sign(key: &P256PrivateKey, kid: &str, client_id: &str, issuer: &str, jti: &str, now: i64) -> String {
    let claims = ClaimsToSign {
        iss: client_id,
        sub: client_id,
        aud: issuer,
        jti,
        iat: now.saturating_sub(MARGIN),
        exp: now.saturating_add(LIFETIME),
    };
    jwt::sign_es256(key, "JWT", kid, &claims)
}

/// How far the server's clock may be behind, in seconds.
const MARGIN: i64 = 10;

/// How long a signed assertion is good, in seconds.
const LIFETIME: i64 = 30;

#[derive(Serialize)]
struct ClaimsToSign<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: &'a str,
    iat: i64,
    exp: i64,
}

/// The highest age, in seconds: an assertion is made for one request.
const MAX_AGE: i64 = 60;

/// How far ahead `iat` and `nbf` may be, in seconds, for clocks that are fast.
const MAX_LEAD: i64 = 60;

const MAX_JTI: usize = 1024;

#[derive(Deserialize)]
struct WireClaims {
    iss: String,
    sub: String,
    aud: Audience,
    iat: i64,
    jti: String,
    #[serde(default, deserialize_with = "present")]
    exp: Option<i64>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    // RFC 7519 §4.1.3 allows a list. One of its members has to be this server.
    Many(Vec<String>),
}

impl Audience {
    fn names(&self, issuer: &str) -> bool {
        match self {
            Self::One(one) => one == issuer,
            Self::Many(many) => many.iter().any(|one| one == issuer),
        }
    }
}
