//! Minting token pairs, and reading refresh tokens back.

use std::fmt;
use std::time::Duration;

use genkan_protocol::jwt;
use genkan_protocol::jwt::session::{AccessClaims, RefreshClaims, Scope, Token};
use genkan_protocol::syntax::Did;

use super::{Error, SessionId, TokenError};
use crate::accounts::Account;
use crate::base::{Secret, Timestamp, random};
use crate::fleet::{Fleet, HostId};
use crate::keys::Ring;

/// How long tokens live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes {
    pub(crate) access: Duration,
    pub(crate) refresh: Duration,
    /// How long a used refresh token is still honoured, for apps that lost the answer.
    ///
    /// Counted from its first use. A second use does not extend it.
    pub(crate) grace: Duration,
}

/// A client's pair of tokens. Both are bearer secrets.
#[derive(Clone)]
pub(crate) struct Tokens {
    pub(crate) access: Secret<String>,
    pub(crate) refresh: Secret<String>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealed]")
    }
}

/// The content of a refresh token with verified signature and audience. Its expiry is not checked.
#[derive(Debug)]
pub(super) struct VerifiedRefresh {
    pub(super) did: Did,
    pub(super) session: SessionId,
    pub(super) generation: i64,
    pub(super) expires_at: Timestamp,
}

/// Issues tokens, signed with the key of the account's home.
#[derive(Clone, Debug)]
pub(super) struct Mint {
    ring: Ring,
    fleet: Fleet,
    service: Did,
    lifetimes: Lifetimes,
}

impl Mint {
    pub(super) const fn new(ring: Ring, fleet: Fleet, service: Did, lifetimes: Lifetimes) -> Self {
        Self { ring, fleet, service, lifetimes }
    }

    pub(super) const fn lifetimes(&self) -> Lifetimes {
        self.lifetimes
    }

    pub(super) fn pair(
        &self,
        account: &Account,
        scope: Scope,
        session: &SessionId,
        generation: i64,
        now: Timestamp,
    ) -> Result<Tokens, Error> {
        let key = self.ring.host_key(account.host.as_str()).ok_or_else(|| no_home(&account.host))?;
        let refresh = RefreshClaims {
            scope: Scope::Refresh,
            sub: account.did.clone(),
            aud: self.service.as_str().to_owned(),
            iat: now.as_seconds(),
            exp: now.plus(self.lifetimes.refresh).as_seconds(),
            // A refresh raises the generation. An older one tells that the token was used before.
            jti: format!("{session}.{generation}"),
        };
        Ok(Tokens {
            access: self.access(account, scope, session, now)?,
            refresh: Secret::new(jwt::session::sign_refresh(&key.private, Some(&key.id), &refresh)),
        })
    }

    fn access(
        &self,
        account: &Account,
        scope: Scope,
        session: &SessionId,
        now: Timestamp,
    ) -> Result<Secret<String>, Error> {
        let host = self.fleet.host(&account.host).ok_or_else(|| no_home(&account.host))?;
        let key = self.ring.host_key(account.host.as_str()).ok_or_else(|| no_home(&account.host))?;
        let claims = AccessClaims {
            scope,
            sub: account.did.clone(),
            // The host checks that the token is for it, so a host cannot use its accounts' tokens
            // at another one.
            aud: host.did.as_str().to_owned(),
            iat: now.as_seconds(),
            exp: now.plus(self.lifetimes.access).as_seconds(),
            // The session is in the id, so that the end of a session invalidates its access tokens.
            jti: format!("{session}.{}", random::id()),
        };
        Ok(Secret::new(jwt::session::sign_access(&key.private, &claims)))
    }

    /// Reads a refresh token back. The caller checks its expiry.
    ///
    /// Any host key may have signed it, and the token names the key: the account may have moved to
    /// another host since. Old keys verify for as long as their tokens live.
    pub(super) fn verify_refresh(&self, token: &str) -> Result<VerifiedRefresh, TokenError> {
        let token = Token::parse(token).map_err(not_verified)?;
        // The unverified key id only chooses the key. Without it every key of every host would have
        // to be tried.
        let key_id = token.key_hint().kid.as_deref().ok_or(TokenError::Unverified)?;
        let key = self.ring.host_key_by_id(key_id).ok_or(TokenError::Unverified)?;
        let claims = token.verify_refresh(&key.public).map_err(not_verified)?;
        if claims.aud != self.service.as_str() {
            return Err(TokenError::WrongAudience);
        }
        let (session, generation) = claims.jti.split_once('.').ok_or(TokenError::BadClaims)?;
        Ok(VerifiedRefresh {
            session: session.into(),
            generation: generation.parse().map_err(|_| TokenError::BadClaims)?,
            expires_at: Timestamp::from_seconds(claims.exp),
            did: claims.sub,
        })
    }
}

/// Why a token does not verify.
pub(super) fn not_verified(cause: jwt::Error) -> TokenError {
    match cause {
        jwt::Error::Malformed => TokenError::Malformed,
        jwt::Error::WrongType => TokenError::WrongType,
        jwt::Error::BadClaims => TokenError::BadClaims,
        _ => TokenError::Unverified,
    }
}

fn no_home(host: &HostId) -> Error {
    Error::NoHome(host.to_string())
}
