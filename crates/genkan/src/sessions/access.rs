//! Checking access tokens: once with signature and database, and then from the cache.
//!
//! The cache is keyed by the token's SHA-256 and has only verified tokens. The changes feed reports
//! the end of a session, and its tokens are dropped. While the feed is stale, every token is
//! checked against the database.

use std::sync::Arc;

use genkan_protocol::jwt::session::{Kind as TokenKind, Scope, Token};
use sha2::{Digest as _, Sha256};

use super::tokens::not_verified;
use super::{Caller, SessionId, TokenError, sql};
use crate::base::{CacheSize, Timestamp};
use crate::db::feed::{Change, Feed};
use crate::db::{Db, FeedCache};
use crate::fleet::Fleet;
use crate::keys::Ring;

/// Checks access tokens. Cheap to clone; all clones share one cache.
#[derive(Clone, Debug)]
pub(crate) struct AccessTokens {
    db: Db,
    feed: Feed,
    ring: Ring,
    fleet: Fleet,
    memory: FeedCache<[u8; 32], Arc<Caller>>,
}

impl AccessTokens {
    /// `capacity` is the number of cached tokens of [`TYPICAL`] size.
    pub(crate) fn new(db: Db, feed: Feed, ring: Ring, fleet: Fleet, capacity: usize) -> Self {
        let bytes = capacity.saturating_mul(TYPICAL);
        let size = CacheSize { name: "session_tokens", bytes, typical: TYPICAL };
        let memory = FeedCache::by_subject(
            &feed,
            Change::Session,
            size,
            |caller: &Arc<Caller>| caller.session.as_str(),
            |_, _| (),
        );
        Self { db, feed, ring, fleet, memory }
    }

    /// Returns the caller from the cache. `None` means that the token must be checked.
    pub(crate) fn recall(&self, token: &str, now: Timestamp) -> Option<Result<Arc<Caller>, TokenError>> {
        // A stale feed may have missed the end of a session, so the cache proves nothing.
        if !self.feed.is_fresh() {
            return None;
        }
        let caller = self.memory.get(&digest(token))?;
        Some(if caller.expires_at > now { Ok(caller) } else { Err(TokenError::Expired) })
    }

    /// Checks signature, type, audience and expiry, and that the session is alive.
    pub(crate) async fn check(&self, token: &str, now: Timestamp) -> Result<Arc<Caller>, TokenError> {
        if let Some(known) = self.recall(token, now) {
            return known;
        }
        // Begun before the session is read: if the session ends in between, the token is not
        // cached.
        let reading = self.memory.begin();
        let caller = Arc::new(self.verify(token)?);
        if caller.expires_at <= now {
            return Err(TokenError::Expired);
        }
        // The token of a taken-down account belongs to no stored session: it cannot be refreshed,
        // and ends by expiring.
        if caller.scope != Scope::Takendown && !sql::is_alive(&self.db, &caller.session, &caller.did).await? {
            return Err(TokenError::Revoked);
        }
        self.memory.keep(digest(token), Arc::clone(&caller), reading);
        Ok(caller)
    }

    fn verify(&self, token: &str) -> Result<Caller, TokenError> {
        let token = Token::parse(token).map_err(not_verified)?;
        if token.key_hint().kind != TokenKind::Access {
            return Err(TokenError::WrongType);
        }
        let Some(host) = self.fleet.by_did(&token.key_hint().aud) else {
            return Err(TokenError::Unverified);
        };
        // Access tokens name no key. After a rotation the host has more than one, so each is tried.
        let mut refused = TokenError::Unverified;
        for key in self.ring.host_keys(host.id.as_str()) {
            match token.verify_access(&key.public) {
                Ok(claims) => {
                    let session = claims.jti.split_once('.').map(|(session, _)| SessionId::from(session));
                    return Ok(Caller {
                        did: claims.sub,
                        audience: host.id.clone(),
                        scope: claims.scope,
                        session: session.ok_or(TokenError::BadClaims)?,
                        expires_at: Timestamp::from_seconds(claims.exp),
                    });
                }
                Err(cause) => refused = not_verified(cause),
            }
        }
        Err(refused)
    }
}

/// The memory of a token of an account with a `did:plc`, in bytes.
const TYPICAL: usize = 512;

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::app::testing::app_with_ann;
    use crate::db::on_each_database;

    on_each_database!(what_is_known_of_a_token_ends_with_it_and_with_a_stale_feed);

    async fn what_is_known_of_a_token_ends_with_it_and_with_a_stale_feed(db: Db) {
        let (app, ann) = app_with_ann(db).await;
        let session = app.sessions.open_for(ann, Scope::Access, None).await.unwrap();
        let token = session.tokens.access.expose();
        let ends = app.access.check(token, app.clock.now()).await.unwrap().expires_at;
        let late = ends.minus(Duration::from_secs(2));
        let feed = Feed::new(app.db.clone());
        let AccessTokens { db, ring, fleet, .. } = app.access.clone();
        let access = AccessTokens::new(db, feed.clone(), ring, fleet, 10);
        assert!(access.recall(token, late).is_none());
        access.check(token, late).await.unwrap();
        assert!(matches!(access.recall(token, late), Some(Ok(_))));
        assert!(matches!(access.recall(token, ends), Some(Err(TokenError::Expired))));
        // The session may have ended since the last reading of the feed.
        feed.fall_silent();
        assert!(access.recall(token, late).is_none());
    }
}
