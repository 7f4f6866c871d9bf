//! Access tokens of OAuth sessions (RFC 9068), bound to the app's key (RFC 9449 §6).
//!
//! A home account's token is signed `ES256K` and has no `kid`: its host refuses one that has. A
//! linked account's token, which only Genkan reads, is signed `ES256` and has a `kid`. No function
//! here looks at a clock: the caller compares `exp` with the time and `sub` with the account.

use serde::{Deserialize, Serialize};

use super::jwk::Thumbprint;
use crate::crypto::{Curve, K256PrivateKey, P256PrivateKey, PublicKey};
use crate::dag_cbor::{Cid, Value};
use crate::jwt::{self, Unverified};
use crate::syntax::Did;

/// The claims of an access token (RFC 9068 §2.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// The authorization server that issued it.
    pub iss: String,
    /// The service DID of the account's host; Genkan's own for a token that only Genkan reads.
    pub aud: String,
    /// The account.
    pub sub: Did,
    /// The expanded scope, or a reference to it ([`scope_reference`]).
    pub scope: String,
    /// The client id of the app.
    pub client_id: String,
    /// The key that it is bound to. `None`: a bearer token, which no host accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
    /// Its name, `tok-` and 32 hexadecimal digits; see [`token_id`].
    pub jti: String,
    /// When it was made, in seconds.
    pub iat: i64,
    /// When it ends, in seconds.
    pub exp: i64,
}

/// The confirmation claim, the key that a token is bound to (RFC 7800 §3.1, RFC 9449 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The thumbprint of the app's key.
    pub jkt: Thumbprint,
}

/// Signs a home account's token.
pub fn sign(key: &K256PrivateKey, claims: &AccessClaims) -> String {
    jwt::sign(key, TYP, None, claims)
}

/// Signs a token that only Genkan reads: a linked account's, or one that is bound to no key.
pub fn sign_linked(key: &P256PrivateKey, kid: &str, claims: &AccessClaims) -> String {
    jwt::sign_es256(key, TYP, kid, claims)
}

/// An access token before its signature is checked.
#[derive(Debug)]
pub struct Token<'a> {
    unverified: Unverified<'a>,
    claims: AccessClaims,
}

impl<'a> Token<'a> {
    /// Reads a token.
    ///
    /// # Errors
    ///
    /// [`jwt::Error::WrongType`] for another `typ`, [`jwt::Error::BadClaims`] when a claim is
    /// missing or malformed (as in session tokens, which share the type), [`jwt::Error::Malformed`]
    /// for anything else.
    pub fn parse(token: &'a str) -> Result<Self, jwt::Error> {
        let unverified = Unverified::parse(token)?;
        let header = unverified.header();
        if header.typ.as_deref() != Some(TYP) {
            return Err(jwt::Error::WrongType);
        }
        // A token that brings its own key would be valid for anyone who signs it.
        if header.has_own_key {
            return Err(jwt::Error::Malformed);
        }
        let claims: AccessClaims =
            serde_json::from_slice(unverified.unverified_claims()).map_err(|_| jwt::Error::BadClaims)?;
        if !is_token_id(&claims.jti) {
            return Err(jwt::Error::BadClaims);
        }
        Ok(Self { unverified, claims })
    }

    /// The claims before verification, by which the key is found. Trust them for nothing else.
    pub fn unverified_claims(&self) -> &AccessClaims {
        &self.claims
    }

    /// The name of the key, in a linked account's token. `None` in a home account's.
    pub fn kid(&self) -> Option<&str> {
        self.unverified.header().kid.as_deref()
    }

    /// Checks the signature and returns the claims.
    ///
    /// # Errors
    ///
    /// [`jwt::Error::Malformed`] for a home account's token with a `kid`, or a linked account's
    /// without; otherwise as [`Unverified::verify`].
    pub fn verify(&self, key: &PublicKey) -> Result<&AccessClaims, jwt::Error> {
        // A home account's key is on K-256. Its host would refuse a token with `kid`, so it is not
        // accepted here either: one token must not be good at one door and bad at another.
        if self.kid().is_some() != (key.curve() == Curve::P256) {
            return Err(jwt::Error::Malformed);
        }
        match key.curve() {
            Curve::K256 => self.unverified.verify(key)?,
            Curve::P256 => self.unverified.verify_either_s(key)?,
        };
        Ok(&self.claims)
    }
}

/// The name of a token, of 16 random bytes.
pub fn token_id(random: [u8; 16]) -> String {
    format!("tok-{}", data_encoding::HEXLOWER.encode(&random))
}

/// Whether a text is a name in the form that hosts expect.
fn is_token_id(text: &str) -> bool {
    text.strip_prefix("tok-")
        .is_some_and(|hex| hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The reference that replaces a scope that is too long for a token: `ref:` and the CID of the
/// scope as DAG-CBOR text. Equal scopes have equal references.
pub fn scope_reference(scope: &str) -> String {
    format!("ref:{}", Cid::of(&Value::text(scope).to_bytes()))
}

const TYP: &str = "at+jwt";
