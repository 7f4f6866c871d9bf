//! Access tokens that verified, remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::caller::GrantCaller;

/// Tokens that verified, some 500 bytes apiece.
#[derive(Debug)]
pub(in crate::oauth) struct VerifiedTokens {
    memory: Cache<[u8; 32], Arc<GrantCaller>>,
    /// Counts ended grants, so that a token checked before the end is not kept after it.
    ended: AtomicU64,
}

impl VerifiedTokens {
    pub(in crate::oauth) fn new() -> Self {
        Self { memory: Cache::new(MEMORY), ended: AtomicU64::new(0) }
    }

    pub(in crate::oauth) fn get(&self, token: &str) -> Option<Arc<GrantCaller>> {
        self.memory.get(&digest(token))
    }

    /// How many grants have ended so far. Read it before a token is looked up, and give it to
    /// [`Self::remember`].
    pub(in crate::oauth) fn ended(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    /// Remembers a token, unless a grant ended while it was looked up.
    pub(in crate::oauth) fn remember(&self, token: &str, caller: &Arc<GrantCaller>, ended_before: u64) {
        let key = digest(token);
        self.memory.insert(key, Arc::clone(caller));
        // Inserted first: an end that is counted after this line finds the entry and removes it.
        if self.ended() != ended_before {
            self.memory.remove(&key);
        }
    }

    pub(in crate::oauth) fn forget(&self, grant: &str) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        self.memory.retain(|_, caller| caller.grant != grant);
    }

    pub(in crate::oauth) fn forget_all(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        self.memory.clear();
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

const MEMORY: usize = 100_000;
