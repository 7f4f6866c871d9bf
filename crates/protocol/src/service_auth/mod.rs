//! Service authentication: a short token, signed by an account's own key, that one service shows another.
//!
//! The order of use: [`Unverified::parse`], [`Unverified::check`] (cheap, refuses what is not for us before anything is
//! looked up), find the key of [`Unverified::issuer`], [`Unverified::verify`].

use serde::{Deserialize, Serialize};

use crate::crypto::{K256PrivateKey, PublicKey};
use crate::jwt;
use crate::syntax::{Did, Nsid};

/// What a service token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The account it speaks for.
    pub iss: Did,
    /// Which of the account's services made it, when it was not the account itself: what followed `#` in `iss`.
    pub iss_fragment: Option<String>,
    /// The service it is addressed to.
    pub aud: String,
    /// The one method it is good for; any, when absent.
    pub lxm: Option<Nsid>,
    /// When it was made, in seconds.
    pub iat: Option<i64>,
    /// When it ends, in seconds.
    pub exp: i64,
    /// Its name.
    pub jti: Option<String>,
}

/// Why a service token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The token itself is not good.
    #[error(transparent)]
    Token(#[from] jwt::Error),
    /// Addressed to someone else.
    #[error("the token is addressed to another service")]
    WrongAudience,
    /// Good for another method only, or for none in particular where one was asked for.
    #[error("the token is not for this method")]
    WrongMethod,
    /// Its end has passed.
    #[error("the token has expired")]
    Expired,
}

/// A well-formed service token before its signature is checked.
#[derive(Debug)]
pub struct Unverified<'a> {
    token: jwt::Unverified<'a>,
    claims: Claims,
}

/// Reads a service token.
pub fn parse(token: &str) -> Result<Unverified<'_>, Error> {
    Unverified::parse(token)
}

impl<'a> Unverified<'a> {
    /// Reads a service token. Session tokens and DPoP proofs are refused by their type.
    pub fn parse(token: &'a str) -> Result<Self, Error> {
        let token = jwt::Unverified::parse(token)?;
        let header = token.header();
        if header.typ.as_deref().is_some_and(is_of_another_kind) {
            return Err(jwt::Error::WrongType.into());
        }
        if header.alg == jwt::Algorithm::Other {
            return Err(jwt::Error::WrongAlgorithm.into());
        }
        if header.has_own_key {
            return Err(jwt::Error::Malformed.into());
        }
        let claims = read_claims(token.unverified_claims()).ok_or(jwt::Error::BadClaims)?;
        Ok(Self { token, claims })
    }

    /// The account it claims to speak for, whose key is needed next.
    pub fn issuer(&self) -> &Did {
        &self.claims.iss
    }

    /// Which of the account's services it claims to come from.
    pub fn issuer_fragment(&self) -> Option<&str> {
        self.claims.iss_fragment.as_deref()
    }

    /// Checks audience, method and end without a key. With `lxm` given, the token has to name that very method.
    pub fn check(&self, aud: &str, lxm: Option<&str>, now_seconds: i64) -> Result<(), Error> {
        if self.claims.aud != aud {
            return Err(Error::WrongAudience);
        }
        if lxm.is_some() && self.claims.lxm.as_ref().map(Nsid::as_str) != lxm {
            return Err(Error::WrongMethod);
        }
        if self.claims.exp <= now_seconds {
            return Err(Error::Expired);
        }
        Ok(())
    }

    /// Checks everything and gives the claims.
    pub fn verify(
        &self,
        key: &PublicKey,
        aud: &str,
        lxm: Option<&str>,
        now_seconds: i64,
    ) -> Result<Claims, Error> {
        self.check(aud, lxm, now_seconds)?;
        self.token.verify(key)?;
        Ok(self.claims.clone())
    }
}

/// Signs a service token, as hosts do with an account's key.
pub fn sign(key: &K256PrivateKey, claims: &Claims) -> String {
    let iss = match &claims.iss_fragment {
        Some(fragment) => format!("{}#{fragment}", claims.iss),
        None => claims.iss.to_string(),
    };
    let wire = WireClaims {
        iat: claims.iat,
        iss,
        aud: claims.aud.clone(),
        exp: claims.exp,
        lxm: claims.lxm.clone(),
        jti: claims.jti.clone(),
    };
    jwt::sign(key, "JWT", None, &wire)
}

/// Types of tokens that are signed for something else and must not pass as service tokens.
fn is_of_another_kind(typ: &str) -> bool {
    let bare = match typ.split_at_checked("application/".len()) {
        Some((start, bare)) if start.eq_ignore_ascii_case("application/") => bare,
        _ => typ,
    };
    ["at+jwt", "refresh+jwt", "dpop+jwt"].iter().any(|other| bare.eq_ignore_ascii_case(other))
}

fn read_claims(json: &[u8]) -> Option<Claims> {
    let wire: WireClaims = serde_json::from_slice(json).ok()?;
    let (iss, iss_fragment) = match wire.iss.split_once('#') {
        Some((iss, fragment)) if is_fragment(fragment) => (iss, Some(fragment.to_owned())),
        Some(_) => return None,
        None => (wire.iss.as_str(), None),
    };
    Some(Claims {
        iss: iss.parse().ok()?,
        iss_fragment,
        aud: wire.aud,
        lxm: wire.lxm,
        iat: wire.iat,
        exp: wire.exp,
        jti: wire.jti,
    })
}

fn is_fragment(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

#[derive(Serialize, Deserialize)]
struct WireClaims {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    iss: String,
    aud: String,
    exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lxm: Option<Nsid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}
