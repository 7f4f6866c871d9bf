//! Checking access tokens that come to Genkan's own origin: signature, binding, and that the grant is alive.
//!
//! As with sessions, what verified is remembered by the token's hash, the end of a grant is heard from the changes feed,
//! and while that is stale the database is asked every time. The proof is checked anew with each request.
//!
//! [`OAuth::check_access`] does it all. The data path takes its steps one by one: only the look-up needs the database's
//! own runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use genkan_protocol::oauth::access_token::Token;
use genkan_protocol::oauth::dpop::{self, Expected, Proof};
use genkan_protocol::oauth::jwk::Thumbprint;
use genkan_protocol::syntax::Did;
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::grant::{Grant, GrantPlace};
use super::onward::Minted;
use super::sql::{grants, scopes};
use super::{Call, OAuth, refresh_token};
use crate::base::Timestamp;
use crate::fleet::HostId;
use crate::keys::WebPurpose;

/// Whom a request with a bound token speaks for.
#[derive(Debug)]
pub(crate) struct GrantCaller {
    pub(crate) did: Did,
    pub(crate) client_id: String,
    pub(crate) grant: String,
    pub(crate) place: Place,
    /// With permission sets expanded, never a reference.
    pub(crate) scope: String,
    /// As the token has it: the same, or a reference.
    pub(super) written: String,
    /// Of the client's key. `None`: whoever has the token may use it.
    pub(crate) key: Option<Thumbprint>,
    pub(crate) expires_at: Timestamp,
    /// What goes to the host in the token's place. Forgotten together with the token.
    pub(super) minted: Minted,
}

/// Where the account of a caller lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this host, when the token was made.
    Host(HostId),
    /// Elsewhere; the link has the grant's id.
    Link,
}

impl Place {
    pub(crate) fn is_host(&self, host: &HostId) -> bool {
        matches!(self, Self::Host(own) if own == host)
    }
}

#[cfg(test)]
impl GrantCaller {
    pub(crate) fn for_tests(did: &str, audience: &str) -> Self {
        Self {
            did: did.parse().unwrap(),
            client_id: "https://app.example.com/c.json".to_owned(),
            grant: "0".repeat(24),
            place: Place::Host(audience.into()),
            scope: "atproto".to_owned(),
            written: "atproto".to_owned(),
            key: Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".parse().unwrap()),
            expires_at: Timestamp::from_millis(i64::MAX),
            minted: Minted::default(),
        }
    }
}

/// Why a bound token, or the proof beside it, is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error("{0}")]
    Token(&'static str),
    #[error("a DPoP proof is required")]
    NoProof,
    #[error("there is more than one DPoP header")]
    TwoProofs,
    #[error(transparent)]
    Proof(#[from] dpop::Error),
    #[error("the DPoP proof was used before")]
    Replayed,
    /// Ours: it cannot be told now.
    #[error("the token cannot be checked now")]
    Unavailable,
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}

impl AccessError {
    /// The error code of RFC 9449 §7.1. `None`: the trouble is ours.
    pub(crate) fn code(&self) -> Option<&'static str> {
        match self {
            Self::Token(_) => Some("invalid_token"),
            Self::Proof(error) => Some(error.code()),
            Self::NoProof | Self::TwoProofs | Self::Replayed => Some("invalid_dpop_proof"),
            Self::Unavailable | Self::Storage(_) => None,
        }
    }
}

/// Tokens that verified, some 500 bytes apiece.
#[derive(Debug)]
pub(super) struct Verified {
    memory: Cache<[u8; 32], Arc<GrantCaller>>,
    /// Counts ended grants, so that a token checked before the end is not kept after it.
    ended: AtomicU64,
}

impl Verified {
    pub(super) fn new() -> Self {
        Self { memory: Cache::new(MEMORY), ended: AtomicU64::new(0) }
    }

    pub(super) fn forget(&self, grant: &str) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        self.memory.retain(|_, caller| caller.grant != grant);
    }

    pub(super) fn forget_all(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        self.memory.clear();
    }
}

impl OAuth {
    /// Checks a token and the proof of the request that brought it. The proof is used up.
    pub(crate) async fn check_access(
        &self,
        token: &str,
        call: &Call<'_>,
    ) -> Result<Arc<GrantCaller>, AccessError> {
        let proof = self.check_proof(token, call)?;
        let caller = match self.recall_caller(token) {
            Some(known) => known?,
            None => self.find_caller(token).await?,
        };
        self.bind(&proof, &caller).await?;
        Ok(caller)
    }

    /// Checks the proof of a request by itself: that it is of this token's holder, and new, is for [`Self::bind`].
    pub(crate) fn check_proof(&self, token: &str, call: &Call<'_>) -> Result<Proof, AccessError> {
        let proof = match &*call.proofs {
            [one] => *one,
            [] => return Err(AccessError::NoProof),
            _ => return Err(AccessError::TwoProofs),
        };
        let expected = Expected {
            method: call.method,
            origin: &self.settings.issuer,
            path: call.path,
            access_token: Some(token),
            now_millis: self.clock.now().as_millis(),
        };
        Ok(dpop::verify(proof, &expected, &self.nonces)?)
    }

    /// Whom a token speaks for, from memory alone. `None`: it has to be looked up.
    pub(crate) fn recall_caller(&self, token: &str) -> Option<Result<Arc<GrantCaller>, AccessError>> {
        let now = self.clock.now();
        if !self.feed.is_fresh(now) {
            return None;
        }
        let caller = self.verified.memory.get(&digest(token))?;
        Some(if caller.expires_at > now { Ok(caller) } else { Err(EXPIRED) })
    }

    /// The same by the signature and the database.
    pub(crate) async fn find_caller(&self, token: &str) -> Result<Arc<GrantCaller>, AccessError> {
        let (now, key) = (self.clock.now(), digest(token));
        let before = self.verified.ended.load(Ordering::SeqCst);
        let read = self.read_token(token).await?;
        if read.expires_at <= now {
            return Err(EXPIRED);
        }
        let grant = grants::find(&self.db, &read.grant).await?.filter(|grant| grant.is_alive(now));
        let grant = grant.ok_or(AccessError::Token("the grant is over"))?;
        let caller = Arc::new(self.place(read, &grant).await?);
        self.verified.memory.insert(key, Arc::clone(&caller));
        if self.verified.ended.load(Ordering::SeqCst) != before {
            self.verified.memory.remove(&key);
        }
        Ok(caller)
    }

    /// Sees that a proof is of the key that the token is bound to, and uses it up.
    pub(crate) async fn bind(&self, proof: &Proof, caller: &GrantCaller) -> Result<(), AccessError> {
        match caller.key {
            Some(key) if key == proof.jkt => {}
            Some(_) => return Err(AccessError::Token("Invalid DPoP key binding")),
            None => return Err(AccessError::Token("the token is bound to no key: send it as Bearer")),
        }
        match self.seen.is_first_proof(proof, self.clock.now()).await {
            Some(true) => Ok(()),
            Some(false) => Err(AccessError::Replayed),
            None => Err(AccessError::Unavailable),
        }
    }

    /// Checks a token that is bound to no key.
    pub(crate) async fn check_bearer(&self, token: &str) -> Result<Arc<GrantCaller>, AccessError> {
        let caller = match self.recall_caller(token) {
            Some(known) => known?,
            None => self.find_caller(token).await?,
        };
        caller.check_bearer()?;
        Ok(caller)
    }

    /// Whether a token that came as Bearer says, unchecked, that it is a grant's and addressed to us: a session's has
    /// another type, and a host as its audience.
    pub(crate) fn is_ours_by_grant(&self, token: &str) -> bool {
        Token::parse(token).is_ok_and(|token| token.unverified_claims().aud == self.settings.service_did)
    }

    /// Knows where the account of a token addressed to us lives.
    async fn place(&self, mut caller: GrantCaller, grant: &Grant) -> Result<GrantCaller, AccessError> {
        if caller.place == Place::Link && grant.place == GrantPlace::Home {
            let account = self.accounts.find(caller.did.as_str()).await?;
            let account = account.ok_or(AccessError::Token("there is no such account"))?;
            caller.place = Place::Host(account.host);
        }
        Ok(caller)
    }

    async fn read_token(&self, token: &str) -> Result<GrantCaller, AccessError> {
        let wrong = AccessError::Token("the token could not be verified");
        let Ok(token) = Token::parse(token) else { return Err(wrong) };
        let audience = &token.unverified_claims().aud;
        let (place, verified) = if *audience == self.settings.service_did {
            let key = token.kid().and_then(|kid| self.ring.web_key_by_id(kid));
            let key = key.filter(|key| key.purpose == WebPurpose::Tokens);
            (Place::Link, key.and_then(|key| token.verify(&key.public).ok()))
        } else {
            let Some(host) = self.fleet.by_did(audience) else { return Err(wrong) };
            let keys = self.ring.host_keys(host.id.as_str());
            let verified = keys.iter().find_map(|key| token.verify(&key.public).ok());
            // No host would take it without.
            (Place::Host(host.id.clone()), verified.filter(|claims| claims.cnf.is_some()))
        };
        let Some(claims) = verified else { return Err(wrong) };
        let grant =
            refresh_token::grant_of_token_id(&claims.jti).filter(|_| claims.iss == self.settings.issuer);
        let Some(grant) = grant else { return Err(wrong) };
        let scope = if claims.scope.starts_with("ref:") {
            scopes::find(&self.db, &claims.scope).await?.ok_or(wrong)?
        } else {
            claims.scope.clone()
        };
        Ok(GrantCaller {
            did: claims.sub.clone(),
            client_id: claims.client_id.clone(),
            grant: grant.to_owned(),
            place,
            scope,
            written: claims.scope.clone(),
            key: claims.cnf.map(|cnf| cnf.jkt),
            expires_at: Timestamp::from_seconds(claims.exp),
            minted: Minted::default(),
        })
    }
}

impl GrantCaller {
    /// Whether its token may come without a proof.
    pub(crate) fn check_bearer(&self) -> Result<(), AccessError> {
        match self.key {
            None => Ok(()),
            Some(_) => Err(AccessError::Token(
                "the token is bound to a key: send it with the DPoP scheme and a proof",
            )),
        }
    }
}

/// Whose account a bound token says it speaks for, unchecked: good for telling a stranger's from the owner's.
pub(crate) fn claimed_account(token: &str) -> Option<Did> {
    Token::parse(token).ok().map(|token| token.unverified_claims().sub.clone())
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

const EXPIRED: AccessError = AccessError::Token("the token has expired");
const MEMORY: usize = 100_000;
