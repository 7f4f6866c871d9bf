//! Access tokens that verified, remembered.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::caller::GrantCaller;
use crate::db::feed::{Change, Feed};
use crate::db::{FeedCache, Reading};

/// Tokens that verified, some 500 bytes apiece, by their hash. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::oauth) struct VerifiedTokens {
    memory: FeedCache<[u8; 32], Arc<GrantCaller>>,
}

impl VerifiedTokens {
    /// Tokens of a grant are forgotten when it ends.
    pub(in crate::oauth) fn new(feed: &Feed) -> Self {
        let memory = FeedCache::new(feed, Change::Grant, MEMORY, |entries, grant| {
            entries.retain(|_, caller: &Arc<GrantCaller>| caller.grant != grant);
        });
        Self { memory }
    }

    pub(in crate::oauth) fn get(&self, token: &str) -> Option<Arc<GrantCaller>> {
        self.memory.get(&digest(token))
    }

    /// Begins a look-up whose result is given to [`Self::remember`].
    pub(in crate::oauth) fn begin(&self) -> Reading {
        self.memory.begin()
    }

    /// Remembers a token, unless a grant ended while it was looked up.
    pub(in crate::oauth) fn remember(&self, token: &str, caller: &Arc<GrantCaller>, reading: Reading) {
        self.memory.keep(digest(token), Arc::clone(caller), reading);
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

const MEMORY: usize = 100_000;
