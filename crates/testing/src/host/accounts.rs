//! The accounts of a host, and the keys that it reserved for accounts to come.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::syntax::{Did, Handle};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::repo::Blob;

/// An account of a host.
#[derive(Clone, Debug)]
pub struct Account {
    /// The account's DID.
    pub did: Did,
    /// The account's handle, as this host knows it.
    pub handle: Handle,
    /// The key that signs for the account.
    pub key: K256PrivateKey,
    /// Whether the owner or the entryway deactivated the account.
    pub deactivated: bool,
    /// Whether moderators took the account down.
    pub taken_down: bool,
    /// Records by `collection/key`.
    pub records: BTreeMap<String, Value>,
    pub(super) blobs: BTreeMap<String, Blob>,
    pub(super) repo_size: u64,
}

impl Account {
    pub(super) fn new(did: Did, handle: Handle, key: K256PrivateKey) -> Self {
        Self {
            did,
            handle,
            key,
            deactivated: false,
            taken_down: false,
            records: BTreeMap::new(),
            blobs: BTreeMap::new(),
            repo_size: 1024,
        }
    }

    /// Returns the name of the account's state. Returns `None` for an active account.
    pub(super) fn status(&self) -> Option<&'static str> {
        match (self.taken_down, self.deactivated) {
            // A takedown hides a deactivation, as in the reference PDS.
            (true, _) => Some("takendown"),
            (_, true) => Some("deactivated"),
            _ => None,
        }
    }
}

/// All accounts of a host.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    accounts: BTreeMap<Did, Account>,
    /// Keys for accounts to come, by their `did:key` or by the DID that they are for.
    reserved: BTreeMap<String, K256PrivateKey>,
}

impl Accounts {
    pub(super) fn find(&self, did: &Did) -> Option<&Account> {
        self.accounts.get(did)
    }

    pub(super) fn by_handle(&self, handle: &Handle) -> Option<&Account> {
        self.accounts.values().find(|account| &account.handle == handle)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    pub(super) fn add(&mut self, account: Account) {
        self.accounts.insert(account.did.clone(), account);
    }

    pub(super) fn remove(&mut self, did: &Did) {
        self.accounts.remove(did);
    }

    /// Changes an account. Returns whether the host has the account.
    pub(super) fn change(&mut self, did: &Did, change: impl FnOnce(&mut Account)) -> bool {
        self.accounts.get_mut(did).map(change).is_some()
    }

    /// Returns a key for an account to come. A DID gets the same key until it is used.
    pub(super) fn reserve(&mut self, did: Option<&Did>) -> K256PrivateKey {
        if let Some(key) = did.and_then(|did| self.reserved.get(did.as_str())) {
            return key.clone();
        }
        let key = fresh_key();
        self.reserved.insert(key.public().to_did_key(), key.clone());
        if let Some(did) = did {
            // Under both names: `createAccount` looks for the DID first and then for the key.
            self.reserved.insert(did.to_string(), key.clone());
        }
        key
    }

    pub(super) fn reserved(&self, did: &Did, signing_key: &str) -> Option<K256PrivateKey> {
        self.reserved.get(did.as_str()).or_else(|| self.reserved.get(signing_key)).cloned()
    }

    pub(super) fn clear_reserved(&mut self, did: &Did, key: &K256PrivateKey) {
        self.reserved.remove(did.as_str());
        self.reserved.remove(&key.public().to_did_key());
    }
}

/// Makes a key that no other host of any test run has. It is a hash of the time, the process and a
/// count, which suffices for tests.
fn fresh_key() -> K256PrivateKey {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::SeqCst);
    let seed = format!("{:?} {} {count}", std::time::SystemTime::now(), std::process::id());
    let bytes: [u8; 32] = Sha256::digest(seed).into();
    K256PrivateKey::from_bytes(&bytes).expect("a hash is below the order of the curve, but for 1 in 2^128")
}
