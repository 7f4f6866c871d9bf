//! Access tokens of OAuth sessions (RFC 9068, RFC 9449 §6): bound to the app's key.
//!
//! A home account's token is signed `ES256K` and has no `kid`, or its host refuses it; a linked account's, which only
//! we read, is signed `ES256` and has one. Whether a token has expired, and whose it is, is for the caller to see.

use serde::{Deserialize, Serialize};

use super::jwk::Thumbprint;
use crate::crypto::{Curve, K256PrivateKey, P256PrivateKey, PublicKey};
use crate::jwt::{self, Unverified};
use crate::repo_proof::Cid;
use crate::repo_proof::cbor::Value;
use crate::syntax::Did;

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// Who made it.
    pub iss: String,
    /// The service DID of the account's host; Genkan's own for what only Genkan reads.
    pub aud: String,
    /// The account.
    pub sub: Did,
    /// The expanded scope, or a reference to it ([`scope_reference`]).
    pub scope: String,
    /// The app.
    pub client_id: String,
    /// The key that it is bound to. `None`: whoever has it may use it, which no host takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
    /// Its name: `tok-` and 32 hexadecimal digits, see [`token_id`].
    pub jti: String,
    /// When it was made, in seconds.
    pub iat: i64,
    /// When it ends, in seconds.
    pub exp: i64,
}

/// What a token is bound to (RFC 7800 §3.1, RFC 9449 §6.1).
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
    /// Takes a token apart. Session tokens, which are bound to no key, are [`jwt::Error::BadClaims`].
    pub fn parse(token: &'a str) -> Result<Self, jwt::Error> {
        let unverified = Unverified::parse(token)?;
        let header = unverified.header();
        if header.typ.as_deref() != Some(TYP) {
            return Err(jwt::Error::WrongType);
        }
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

    /// What it says before anything is verified: good for choosing a key, and for nothing else.
    pub fn unverified_claims(&self) -> &AccessClaims {
        &self.claims
    }

    /// The name of the key that a linked account's token has; none for a home account's.
    pub fn kid(&self) -> Option<&str> {
        self.unverified.header().kid.as_deref()
    }

    /// Checks the signature. A home account's token with a `kid` is refused, as its host would, and so is a linked one
    /// without.
    pub fn verify(&self, key: &PublicKey) -> Result<&AccessClaims, jwt::Error> {
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

/// Whether a text is a name as hosts expect it.
fn is_token_id(text: &str) -> bool {
    text.strip_prefix("tok-")
        .is_some_and(|hex| hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// What stands for a scope that is too long for a token: `ref:` and the CID of the scope as DAG-CBOR text, so that the
/// same scope always has the same reference.
pub fn scope_reference(scope: &str) -> String {
    format!("ref:{}", Cid::of(&Value::Text(scope.to_owned()).to_bytes()))
}

const TYP: &str = "at+jwt";
