//! The credential for a checked request on its way to the account's home (architecture decision
//! 13).
//!
//! The host gets a token of exactly the same scope, addressed to it, with the expiry of the
//! caller's token, bound to Genkan's own key, and a proof by that key. So the caller can do at the
//! host what the grant allows and no more, and the token alone is of no use to anybody.
//!
//! The proof needs the host's nonce. Hosts that share the DPoP secret have the nonces that Genkan
//! computes. A nonce of another host is remembered until the host returns to the computed ones.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use genkan_protocol::crypto::P256PrivateKey;
use genkan_protocol::oauth::dpop::ProofKey;

use crate::fleet::HostId;
use crate::keys::Ring;

/// What a request to a host carries instead of the caller's own headers.
#[derive(Clone)]
pub(crate) struct Onward {
    pub(in crate::oauth) token: Arc<Token>,
    pub(in crate::oauth) proof: String,
}

impl Onward {
    pub(crate) fn token(&self) -> &str {
        &self.token.text
    }

    pub(crate) fn proof(&self) -> &str {
        &self.proof
    }

    #[cfg(test)]
    pub(crate) fn for_tests(token: &str, proof: &str) -> Self {
        let token = Token { text: token.to_owned(), ath: String::new(), key: String::new() };
        Self { token: Arc::new(token), proof: proof.to_owned() }
    }
}

impl fmt::Debug for Onward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealed]")
    }
}

/// The host token of a caller, once one was needed.
#[derive(Default)]
pub(in crate::oauth) struct HostTokenSlot(RwLock<Option<Arc<Token>>>);

pub(in crate::oauth) struct Token {
    pub(in crate::oauth) text: String,
    pub(in crate::oauth) ath: String,
    /// The id of the host key that signed it.
    pub(in crate::oauth) key: String,
}

impl HostTokenSlot {
    pub(in crate::oauth) fn get(&self, key: &str) -> Option<Arc<Token>> {
        let minted = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // A token that was signed with a rotated key is made again.
        minted.as_ref().filter(|token| token.key == key).map(Arc::clone)
    }

    pub(in crate::oauth) fn set(&self, token: Option<Arc<Token>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = token;
    }
}

impl fmt::Debug for HostTokenSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealed]")
    }
}

/// Genkan's own key towards the fleet, which is the same on every replica, and the nonces of hosts
/// that have their own.
pub(in crate::oauth) struct Signer {
    pub(in crate::oauth) key: ProofKey,
    heard: RwLock<HashMap<HostId, String>>,
    has_heard: AtomicBool,
}

impl Signer {
    pub(in crate::oauth) fn new(ring: &Ring) -> Self {
        Self {
            key: ProofKey::new(own_key(ring)),
            heard: RwLock::default(),
            has_heard: AtomicBool::new(false),
        }
    }

    pub(in crate::oauth) fn heard(&self, host: &HostId) -> Option<String> {
        // Almost always every host uses the computed nonces, and this check spares the lock.
        if !self.has_heard.load(Ordering::Acquire) {
            return None;
        }
        self.heard.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    pub(in crate::oauth) fn hear(&self, host: &HostId, nonce: Option<&str>) {
        let mut heard = self.heard.write().unwrap_or_else(PoisonError::into_inner);
        match nonce {
            Some(nonce) => drop(heard.insert(host.clone(), nonce.to_owned())),
            None => drop(heard.remove(host)),
        }
        // While the lock is held, so that the flag and the map change together.
        self.has_heard.store(!heard.is_empty(), Ordering::Release);
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer [sealed]")
    }
}

fn own_key(ring: &Ring) -> P256PrivateKey {
    // A derived number is a valid key unless it is zero or beyond the curve's order, which happens
    // once in four billion.
    let mut keys = (0_u32..).map(|count| ring.derived(&format!("proofs towards hosts {count}")));
    keys.find_map(|bytes| P256PrivateKey::from_bytes(&bytes).ok()).expect("one of so many is a key")
}
