//! Client assertions (RFC 7523 §3): how a confidential client shows who it is.

use serde::{Deserialize, Serialize};

use super::client_id::ClientId;
use super::jwk::{Jwk, JwkSet, Thumbprint};
use super::jws::{Algorithm, Unverified};
use crate::crypto::P256PrivateKey;
use crate::jwt::{self, present};

/// The one `client_assertion_type` there is.
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A good assertion. That it is not used twice is for the caller to see, by client and `jti`, until `forget_at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// Its name.
    pub jti: String,
    /// When it ends, in seconds, if it says so.
    pub exp: Option<i64>,
    /// From when on it is refused for its age anyway, in seconds.
    pub forget_at: i64,
    /// The name of the key.
    pub kid: String,
    /// What it was signed with.
    pub alg: Algorithm,
    /// The thumbprint of the key.
    pub jkt: Thumbprint,
}

/// Why an assertion is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The token itself is not good.
    #[error("client_assertion: {0}")]
    Token(#[from] jwt::Error),
    /// It does not name its key.
    #[error("client_assertion: \"kid\" required in the header")]
    NoKid,
    /// Its key is not among the client's, or not for its algorithm.
    #[error("client_assertion: no such key in the client's key set")]
    UnknownKey,
    /// Made by or about someone else.
    #[error("client_assertion: \"iss\" and \"sub\" must be the client_id")]
    WrongClient,
    /// Addressed to someone else.
    #[error("client_assertion: \"aud\" must be this server's issuer")]
    WrongAudience,
    /// Too old, ended, or from the future.
    #[error("client_assertion: \"iat\", \"nbf\" or \"exp\" is not good now")]
    BadTime,
    /// Without a name, or with too long a one.
    #[error("client_assertion: \"jti\" must be a non-empty string")]
    BadId,
}

/// An assertion whose signature nobody has looked at yet.
#[derive(Debug)]
pub struct UnverifiedAssertion<'a> {
    token: Unverified<'a>,
    kid: String,
}

impl<'a> UnverifiedAssertion<'a> {
    /// Reads an assertion.
    pub fn parse(assertion: &'a str) -> Result<Self, Error> {
        let token = Unverified::parse(assertion)?;
        if token.header().typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case("dpop+jwt")) {
            return Err(jwt::Error::WrongType.into());
        }
        let kid = token.header().kid.clone().filter(|kid| !kid.is_empty()).ok_or(Error::NoKid)?;
        Ok(Self { token, kid })
    }

    /// The name of the key that it claims.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The client's key that it claims, if that is there. When it is not, the set may have changed.
    pub fn key<'k>(&self, keys: &'k JwkSet) -> Option<&'k Jwk> {
        keys.find(&self.kid, self.token.header().alg)
    }

    /// Checks all but that it was not seen before. `issuer` is our own, `now` in seconds.
    pub fn verify(
        &self,
        keys: &JwkSet,
        client: &ClientId,
        issuer: &str,
        now: i64,
    ) -> Result<Assertion, Error> {
        let key = self.key(keys).ok_or(Error::UnknownKey)?;
        let claims: WireClaims =
            serde_json::from_slice(self.token.verify(key)?).map_err(|_| jwt::Error::BadClaims)?;
        if claims.iss != client.as_str() || claims.sub != client.as_str() {
            return Err(Error::WrongClient);
        }
        if !claims.aud.names(issuer) {
            return Err(Error::WrongAudience);
        }
        let ended = claims.exp.is_some_and(|exp| exp <= now);
        let early = claims.nbf.is_some_and(|nbf| nbf > now.saturating_add(MAX_LEAD));
        let fresh = now.saturating_sub(MAX_AGE)..=now.saturating_add(MAX_LEAD);
        if ended || early || !fresh.contains(&claims.iat) {
            return Err(Error::BadTime);
        }
        if claims.jti.is_empty() || claims.jti.len() > MAX_JTI {
            return Err(Error::BadId);
        }
        Ok(Assertion {
            jti: claims.jti,
            exp: claims.exp,
            forget_at: claims.iat.saturating_add(MAX_AGE + 1),
            kid: self.kid.clone(),
            alg: self.token.header().alg,
            jkt: key.thumbprint(),
        })
    }
}

/// Makes an assertion: that `client_id` itself asks the server `issuer`, now (in seconds) and for half a minute. `jti` is
/// a name that no other one has.
pub fn sign(key: &P256PrivateKey, kid: &str, client_id: &str, issuer: &str, jti: &str, now: i64) -> String {
    let claims = ClaimsToSign {
        iss: client_id,
        sub: client_id,
        aud: issuer,
        jti,
        iat: now,
        exp: now.saturating_add(LIFETIME),
    };
    jwt::sign_es256(key, "JWT", kid, &claims)
}

/// Seconds that an assertion of ours is good for.
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

/// An assertion is for now: seconds.
const MAX_AGE: i64 = 60;

/// For clocks that go ahead.
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
