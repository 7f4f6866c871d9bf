//! A cache of verified access tokens.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::caller::GrantCaller;
use crate::base::CacheSize;
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
        let memory = FeedCache::by_subject(feed, Change::Grant, SIZE, grant_of, |entries, subject| {
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

/// Two tokens of one app have the same scope, and each counts for the whole of it. A typical entry
/// has a scope of a few values and the token that goes to its host.
const SIZE: CacheSize = CacheSize { name: "grant_tokens", bytes: 64 << 20, typical: 2048 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::Fresh;
    use crate::oauth::scope::ExpandedScope;

    #[tokio::test]
    async fn callers_with_large_scopes_make_the_cache_no_larger_than_its_bound() {
        let fresh = Fresh::sqlite().await;
        let tokens = VerifiedTokens::new(&Feed::new(fresh.db.clone()));
        let names: Vec<String> = (0..400).map(|number| format!("token {number}")).collect();
        for name in &names {
            let scope = ExpandedScope::for_tests(&"x".repeat(256 << 10));
            let caller = GrantCaller::for_tests("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "oak");
            let reading = tokens.begin();
            tokens.remember(name, &Arc::new(GrantCaller { scope, ..caller }), reading);
        }
        let callers = names.iter().filter_map(|name| tokens.get(name));
        let kept: usize = callers.map(|caller| caller.scope.as_str().len()).sum();
        assert!(kept > 0 && kept <= SIZE.bytes, "{kept}");
    }
}
