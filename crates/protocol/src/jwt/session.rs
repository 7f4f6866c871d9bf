//! Session tokens: the pair that `com.atproto.server.createSession` returns.
//!
//! An access token (`at+jwt`) is addressed to the account's host, a refresh token (`refresh+jwt`)
//! to the entryway. No function here looks at a clock: the caller compares `exp` with the time, and
//! `aud` with its own name.
//!
//! ```
//! use genkan_protocol::crypto::K256PrivateKey;
//! use genkan_protocol::jwt::session::{AccessClaims, Scope, key_hint, sign_access, verify_access};
//!
//! let key = K256PrivateKey::from_bytes(&[7; 32]).unwrap();
//! let claims = AccessClaims {
//!     scope: Scope::Access,
//!     sub: "did:plc:ewvi7nxzyoun6zhxrhs64oiz".parse().unwrap(),
//!     aud: "did:web:pds.example.com".to_owned(),
//!     iat: 1_700_000_000,
//!     exp: 1_700_007_200,
//!     jti: "4f1c".to_owned(),
//! };
//! let token = sign_access(&key, &claims);
//! assert_eq!(key_hint(&token).unwrap().aud, "did:web:pds.example.com");
//! assert_eq!(verify_access(&token, &key.public()), Ok(claims));
//! ```

use std::fmt;
use std::str::FromStr;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::json::present;
use super::{Error, Unverified, sign};
use crate::crypto::{K256PrivateKey, PublicKey};
use crate::syntax::Did;

/// The claims of an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessClaims {
    /// The permissions of the bearer.
    pub scope: Scope,
    /// The account.
    pub sub: Did,
    /// The service DID of the account's host.
    pub aud: String,
    /// When it was made, in seconds.
    pub iat: i64,
    /// When it ends, in seconds.
    pub exp: i64,
    /// Its name.
    pub jti: String,
}

/// The claims of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefreshClaims {
    /// Always [`Scope::Refresh`].
    pub scope: Scope,
    /// The account.
    pub sub: Did,
    /// The service DID of the entryway.
    pub aud: String,
    /// When it was made, in seconds.
    pub iat: i64,
    /// When it ends, in seconds.
    pub exp: i64,
    /// Its name, by which it is stored.
    pub jti: String,
}

/// The permissions of a session token's bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All permissions of the account.
    Access,
    /// The permissions of an app password.
    AppPass,
    /// The permissions of a privileged app password: direct messages as well.
    AppPassPrivileged,
    /// The permissions of an account that waits for admission.
    SignupQueued,
    /// The permissions of an account that was taken down: seeing why, and leaving.
    Takendown,
    /// Permission only to get another pair of tokens, or to end the session.
    Refresh,
}

/// One of the two tokens of a session, by its `typ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `at+jwt`.
    Access,
    /// `refresh+jwt`.
    Refresh,
}

/// The unverified claims by which the key of a session token is found. Trust them for nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHint {
    /// The token that it claims to be.
    pub kind: Kind,
    /// The claimed audience.
    pub aud: String,
    /// The name of the key, if it names one.
    pub kid: Option<String>,
}

/// Signs an access token. The header has no `kid`: hosts refuse some tokens that have one.
pub fn sign_access(key: &K256PrivateKey, claims: &AccessClaims) -> String {
    sign(key, Kind::Access.typ(), None, claims)
}

/// Signs a refresh token.
pub fn sign_refresh(key: &K256PrivateKey, kid: Option<&str>, claims: &RefreshClaims) -> String {
    sign(key, Kind::Refresh.typ(), kid, claims)
}

/// Returns which key to look for, or `None` when the token is not a session token.
pub fn key_hint(token: &str) -> Option<KeyHint> {
    Token::parse(token).ok().map(|token| token.key_hint)
}

/// Checks everything of an access token but its end and its audience. Errors as
/// [`Token::verify_access`].
pub fn verify_access(token: &str, key: &PublicKey) -> Result<AccessClaims, Error> {
    Token::parse(token)?.verify_access(key)
}

/// Checks everything of a refresh token but its end and its audience. Errors as
/// [`Token::verify_refresh`].
pub fn verify_refresh(token: &str, key: &PublicKey) -> Result<RefreshClaims, Error> {
    Token::parse(token)?.verify_refresh(key)
}

/// A session token before its signature is checked.
#[derive(Debug)]
pub struct Token<'a> {
    unverified: Unverified<'a>,
    key_hint: KeyHint,
}

impl<'a> Token<'a> {
    /// Reads a token.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] for another `typ`, [`Error::BadClaims`] without an audience,
    /// [`Error::Malformed`] for anything that is not a token and for one that carries a key.
    pub fn parse(token: &'a str) -> Result<Self, Error> {
        let unverified = Unverified::parse(token)?;
        let header = unverified.header();
        let kind = Kind::of_typ(header.typ.as_deref()).ok_or(Error::WrongType)?;
        // A session token is verified by a key that Genkan keeps. One that brings a key was made by
        // another party.
        if header.has_own_key {
            return Err(Error::Malformed);
        }
        let addressed: AudienceClaim =
            serde_json::from_slice(unverified.unverified_claims()).map_err(|_| Error::BadClaims)?;
        let key_hint = KeyHint { kind, aud: addressed.aud, kid: header.kid.clone() };
        Ok(Self { unverified, key_hint })
    }

    /// The unverified claims by which its key is found.
    pub fn key_hint(&self) -> &KeyHint {
        &self.key_hint
    }

    /// Checks everything of an access token but its end and its audience.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] for a refresh token, [`Error::WrongAlgorithm`] or
    /// [`Error::BadSignature`] when `key` did not sign it, [`Error::BadClaims`] when a claim is
    /// missing, or belongs to a service token or an OAuth access token.
    pub fn verify_access(&self, key: &PublicKey) -> Result<AccessClaims, Error> {
        let WireClaims { scope, sub, aud, iat, exp, jti, .. } = self.verify(Kind::Access, key)?;
        // `typ` and `scope` must tell the same kind. Otherwise a token could be taken for one kind
        // by its header and for the other by its claims.
        if scope == Scope::Refresh {
            return Err(Error::BadClaims);
        }
        Ok(AccessClaims { scope, sub, aud, iat, exp, jti })
    }

    /// Checks everything of a refresh token but its end and its audience. Errors as
    /// [`Token::verify_access`].
    pub fn verify_refresh(&self, key: &PublicKey) -> Result<RefreshClaims, Error> {
        let WireClaims { scope, sub, aud, iat, exp, jti, .. } = self.verify(Kind::Refresh, key)?;
        if scope != Scope::Refresh {
            return Err(Error::BadClaims);
        }
        Ok(RefreshClaims { scope, sub, aud, iat, exp, jti })
    }

    fn verify(&self, kind: Kind, key: &PublicKey) -> Result<WireClaims, Error> {
        if self.key_hint.kind != kind {
            return Err(Error::WrongType);
        }
        // The other claims are read only now. Before the signature is checked, the audience alone
        // is read, as a hint for finding the key.
        let claims = self.unverified.verify_es256k(key)?;
        let claims: WireClaims = serde_json::from_slice(claims).map_err(|_| Error::BadClaims)?;
        // `lxm` restricts a token to one method, `cnf` binds it to a key. Taken as a session token,
        // such a token would be good for more than its maker signed.
        if claims.lxm.is_some() || claims.cnf.is_some() {
            return Err(Error::BadClaims);
        }
        Ok(claims)
    }
}

impl Kind {
    fn typ(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::Refresh => "refresh+jwt",
        }
    }

    fn of_typ(typ: Option<&str>) -> Option<Self> {
        match typ? {
            "at+jwt" => Some(Self::Access),
            "refresh+jwt" => Some(Self::Refresh),
            _ => None,
        }
    }
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 6] = [
        Self::Access,
        Self::AppPass,
        Self::AppPassPrivileged,
        Self::SignupQueued,
        Self::Takendown,
        Self::Refresh,
    ];

    /// The scope as tokens spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "com.atproto.access",
            Self::AppPass => "com.atproto.appPass",
            Self::AppPassPrivileged => "com.atproto.appPassPrivileged",
            Self::SignupQueued => "com.atproto.signupQueued",
            Self::Takendown => "com.atproto.takendown",
            Self::Refresh => "com.atproto.refresh",
        }
    }
}

/// A text that is not a scope of session tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a scope of session tokens")]
pub struct ScopeError;

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(ScopeError)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[derive(Deserialize)]
struct AudienceClaim {
    aud: String,
}

#[derive(Deserialize)]
struct WireClaims {
    scope: Scope,
    sub: Did,
    aud: String,
    iat: i64,
    exp: i64,
    jti: String,
    #[serde(default, deserialize_with = "present")]
    lxm: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    cnf: Option<IgnoredAny>,
}
