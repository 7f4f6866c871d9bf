//! Checking access tokens: once with all signatures and look-ups, then from memory.
//!
//! Memory is keyed by the SHA-256 of the token and holds only what verified. The end of a session is
//! noted in the changes feed, and its tokens are forgotten. While the feed is stale, every token is
//! checked against the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use genkan_protocol::jwt::session::{Kind as TokenKind, Scope, Token};
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::tokens::not_verified;
use super::{TokenError, sql};
use crate::accounts::Caller;
use crate::base::Timestamp;
use crate::db::Db;
use crate::db::feed::{Change, Feed};
use crate::fleet::Fleet;
use crate::keys::Ring;

/// Cheap to clone; all clones share one memory.
#[derive(Clone, Debug)]
pub(crate) struct AccessTokens {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    db: Db,
    feed: Feed,
    ring: Ring,
    fleet: Fleet,
    memory: Cache<[u8; 32], Arc<Caller>>,
    /// Counts ended sessions, so that a token checked before the end is not kept after it.
    ended: AtomicU64,
}

impl AccessTokens {
    /// `capacity`: tokens in memory; some 300 bytes apiece.
    pub(crate) fn new(db: Db, feed: Feed, ring: Ring, fleet: Fleet, capacity: usize) -> Self {
        let inner = Inner { db, feed, ring, fleet, memory: Cache::new(capacity), ended: AtomicU64::new(0) };
        let access = Self { inner: Arc::new(inner) };
        let listening = access.clone();
        access.inner.feed.subscribe(Change::Session, move |session| listening.forget(session));
        let listening = access.clone();
        access.inner.feed.subscribe_to_gaps(move || listening.forget_all());
        access
    }

    /// From memory alone. `None`: it has to be checked.
    pub(crate) fn recall(&self, token: &str, now: Timestamp) -> Option<Result<Arc<Caller>, TokenError>> {
        if !self.inner.feed.is_fresh(now) {
            return None;
        }
        let caller = self.inner.memory.get(&digest(token))?;
        Some(if caller.expires_at > now { Ok(caller) } else { Err(TokenError::Expired) })
    }

    /// Checks signature, type, audience, end and that the session is alive.
    pub(crate) async fn check(&self, token: &str, now: Timestamp) -> Result<Arc<Caller>, TokenError> {
        if let Some(known) = self.recall(token, now) {
            return known;
        }
        let before = self.inner.ended.load(Ordering::SeqCst);
        let caller = Arc::new(self.verify(token)?);
        if caller.expires_at <= now {
            return Err(TokenError::Expired);
        }
        // A taken-down account's token belongs to no stored session.
        if caller.scope != Scope::Takendown
            && !sql::is_alive(&self.inner.db, &caller.session, caller.did.as_str()).await?
        {
            return Err(TokenError::Revoked);
        }
        let key = digest(token);
        self.inner.memory.insert(key, Arc::clone(&caller));
        if self.inner.ended.load(Ordering::SeqCst) != before {
            self.inner.memory.remove(&key);
        }
        Ok(caller)
    }

    fn verify(&self, token: &str) -> Result<Caller, TokenError> {
        let token = Token::parse(token).map_err(not_verified)?;
        if token.key_hint().kind != TokenKind::Access {
            return Err(TokenError::Invalid("Invalid token type"));
        }
        let unknown = TokenError::Invalid("Token could not be verified");
        let Some(host) = self.inner.fleet.by_did(&token.key_hint().aud) else { return Err(unknown) };
        let mut refused = unknown;
        for key in self.inner.ring.host_keys(host.id.as_str()) {
            match token.verify_access(&key.public) {
                Ok(claims) => {
                    let session = claims.jti.split_once('.').map(|(session, _)| session.to_owned());
                    return Ok(Caller {
                        did: claims.sub,
                        audience: host.id.clone(),
                        scope: claims.scope,
                        session: session.ok_or(TokenError::Invalid("Malformed token"))?,
                        expires_at: Timestamp::from_seconds(claims.exp),
                    });
                }
                Err(cause) => refused = not_verified(cause),
            }
        }
        Err(refused)
    }

    fn forget(&self, session: &str) {
        self.inner.ended.fetch_add(1, Ordering::SeqCst);
        self.inner.memory.retain(|_, caller| caller.session != session);
    }

    fn forget_all(&self) {
        self.inner.ended.fetch_add(1, Ordering::SeqCst);
        self.inner.memory.clear();
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
