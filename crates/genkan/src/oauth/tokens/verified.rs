//! A cache of verified access tokens.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::caller::GrantCaller;
use crate::db::feed::{Change, Feed};
use crate::db::{FeedCache, Reading};
use crate::oauth::client_trust::BLOCKED;

/// Verified tokens by their hash. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::oauth) struct VerifiedTokens {
    memory: FeedCache<[u8; 32], Arc<GrantCaller>>,
}

impl VerifiedTokens {
    /// Creates the cache. Tokens of a grant are dropped when it ends.
    pub(in crate::oauth) fn new(feed: &Feed) -> Self {
        let grant_of: fn(&Arc<GrantCaller>) -> &str = |caller| caller.grant.as_str();
        let memory =
            FeedCache::by_subject(feed, Change::Grant, (BYTES, TYPICAL), grant_of, |entries, subject| {
                // Blocking a client is rare, so it may visit all entries.
                if let Some(client) = subject.strip_prefix(BLOCKED) {
                    entries.retain(|_, caller| caller.client_id != client);
                }
            });
        Self { memory }
    }

    pub(in crate::oauth) fn get(&self, token: &str) -> Option<Arc<GrantCaller>> {
        self.memory.get(&digest(token))
    }

    /// Begins a lookup whose result goes to [`Self::remember`].
    pub(in crate::oauth) fn begin(&self) -> Reading {
        self.memory.begin()
    }

    /// Caches a token, unless a grant ended during the lookup.
    pub(in crate::oauth) fn remember(&self, token: &str, caller: &Arc<GrantCaller>, reading: Reading) {
        self.memory.keep(digest(token), Arc::clone(caller), reading);
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Two tokens of one app have the same scope, and each counts for the whole of it.
const BYTES: usize = 64 << 20;
/// The memory of a token with a scope of a few values, and of the token that goes to its host.
const TYPICAL: usize = 2048;
