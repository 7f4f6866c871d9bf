//! Service authentication: short-lived tokens, signed by an account's own key, that one service
//! shows another (atproto HTTP API (XRPC), "Inter-Service Authentication (JWT)").
//!
//! The order of use: [`Unverified::parse`]; [`Unverified::check`], which refuses tokens for other
//! services before a DID is resolved on their behalf; the key of [`Unverified::issuer`], from its
//! DID document; [`Unverified::verify`].
//!
//! ```
//! use genkan_protocol::crypto::K256PrivateKey;
//! use genkan_protocol::service_auth::{self, Claims, Error};
//!
//! let key = K256PrivateKey::from_bytes(&[7; 32]).unwrap();
//! let claims = Claims {
//!     iss: "did:plc:ewvi7nxzyoun6zhxrhs64oiz".parse().unwrap(),
//!     iss_fragment: None,
//!     aud: "did:web:genkan.example.com".to_owned(),
//!     lxm: Some("com.atproto.server.createAccount".parse().unwrap()),
//!     iat: Some(1_700_000_000),
//!     exp: 1_700_000_060,
//!     jti: None,
//! };
//! let token = service_auth::sign(&key, &claims);
//!
//! let unverified = service_auth::parse(&token)?;
//! let (aud, lxm) = ("did:web:genkan.example.com", Some("com.atproto.server.createAccount"));
//! assert_eq!(unverified.verify(&key.public(), aud, lxm, 1_700_000_030)?, claims);
//! assert_eq!(unverified.check(aud, lxm, 1_700_000_060), Err(Error::Expired));
//! # Ok::<(), Error>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::crypto::{K256PrivateKey, PublicKey};
use crate::jwt;
use crate::syntax::{Did, Nsid};

/// The claims of a service token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The account it speaks for.
    pub iss: Did,
    /// The service of the account that made it, when it was not the account itself: the part of
    /// `iss` after `#`.
    pub iss_fragment: Option<String>,
    /// The service it is addressed to.
    pub aud: String,
    /// The one method that it is good for. `None`: any method.
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
    /// The token cannot be read, or its signature is wrong.
    #[error(transparent)]
    Token(#[from] jwt::Error),
    /// Addressed to someone else.
    #[error("the token is addressed to another service")]
    WrongAudience,
    /// Good for another method, or without a method where the caller demands one.
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

/// Reads a service token. Errors as [`Unverified::parse`].
pub fn parse(token: &str) -> Result<Unverified<'_>, Error> {
    Unverified::parse(token)
}

impl<'a> Unverified<'a> {
    /// Reads a service token.
    ///
    /// # Errors
    ///
    /// [`Error::Token`] only: with [`jwt::Error::WrongType`] for session tokens, access tokens and
    /// DPoP proofs.
    pub fn parse(token: &'a str) -> Result<Self, Error> {
        let token = jwt::Unverified::parse(token)?;
        let header = token.header();
        if header.typ.as_deref().is_some_and(is_of_another_kind) {
            return Err(jwt::Error::WrongType.into());
        }
        if header.alg == jwt::Algorithm::Other {
            return Err(jwt::Error::WrongAlgorithm.into());
        }
        // The key must come from the issuer's DID document and not from the token.
        if header.has_own_key {
            return Err(jwt::Error::Malformed.into());
        }
        let claims = read_claims(token.unverified_claims()).ok_or(jwt::Error::BadClaims)?;
        Ok(Self { token, claims })
    }

    /// The account that it claims to speak for, whose key verifies it.
    pub fn issuer(&self) -> &Did {
        &self.claims.iss
    }

    /// The service of the account that it claims to come from.
    pub fn issuer_fragment(&self) -> Option<&str> {
        self.claims.iss_fragment.as_deref()
    }

    /// Checks audience, method and end without a key. With `lxm`, the token must name exactly that
    /// method.
    ///
    /// # Errors
    ///
    /// In this order: [`Error::WrongAudience`], [`Error::WrongMethod`], [`Error::Expired`].
    pub fn check(&self, aud: &str, lxm: Option<&str>, now_seconds: i64) -> Result<(), Error> {
        // These checks need no key, whose lookup may cost a request to the directory.
        if self.claims.aud != aud {
            return Err(Error::WrongAudience);
        }
        // A token without `lxm` would be good for every method. Where the caller names a method,
        // such a token is refused.
        if lxm.is_some() && self.claims.lxm.as_ref().map(Nsid::as_str) != lxm {
            return Err(Error::WrongMethod);
        }
        if self.claims.exp <= now_seconds {
            return Err(Error::Expired);
        }
        Ok(())
    }

    /// Checks everything and returns the claims. Errors as [`Unverified::check`], then
    /// [`Error::Token`].
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

/// Signs a service token, as a host does with an account's key.
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

/// Whether a type belongs to a token that is signed for another purpose. One key signs several
/// kinds of token, so one kind must not pass for another (RFC 8725 §3.11). A missing type is fine:
/// many services send none.
fn is_of_another_kind(typ: &str) -> bool {
    // `application/` may be left out (RFC 7515 §4.1.9).
    let bare = match typ.split_at_checked("application/".len()) {
        Some((start, bare)) if start.eq_ignore_ascii_case("application/") => bare,
        _ => typ,
    };
    ["at+jwt", "refresh+jwt", "dpop+jwt"].iter().any(|other| bare.eq_ignore_ascii_case(other))
}

fn read_claims(json: &[u8]) -> Option<Claims> {
    let wire: WireClaims = serde_json::from_slice(json).ok()?;
    // `did:…#atproto_labeler`: a service of the account, which signs with a key of its own.
    let (iss, iss_fragment) = match wire.iss.split_once('#') {
        Some((iss, fragment)) if is_fragment(fragment) => (iss, Some(fragment.to_owned())),
        // A malformed fragment must not be dropped: the issuer would become the account itself.
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
