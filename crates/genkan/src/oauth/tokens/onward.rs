//! Sending a checked request on to the account's home (architecture decision 2).
//!
//! The host gets a token of exactly the same scope, addressed to it, ending with the caller's, and bound to Genkan's own
//! key, with a proof by that key. So the caller can do at the host what the grant allows and no more, and nobody can do
//! anything with the token alone.
//!
//! The proof needs the host's nonce. Hosts that share the DPoP secret have the nonces that we compute; what another one
//! gives is remembered for as long as it is not one of those.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use genkan_protocol::crypto::P256PrivateKey;
use genkan_protocol::oauth::dpop::ProofKey;

use crate::fleet::HostId;
use crate::keys::Ring;

/// What a request carries to a host instead of the caller's own headers.
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

/// The token made for a caller, once it was asked for.
#[derive(Default)]
pub(in crate::oauth) struct HostTokenSlot(RwLock<Option<Arc<Token>>>);

pub(in crate::oauth) struct Token {
    pub(in crate::oauth) text: String,
    pub(in crate::oauth) ath: String,
    /// The host key that signed it.
    pub(in crate::oauth) key: String,
}

impl HostTokenSlot {
    pub(in crate::oauth) fn get(&self, key: &str) -> Option<Arc<Token>> {
        let minted = self.0.read().unwrap_or_else(PoisonError::into_inner);
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

/// Genkan's own key towards the fleet, the same on every replica, and what hosts said of their nonces.
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
        // Nearly always nobody has said anything that was not computed.
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
        self.has_heard.store(!heard.is_empty(), Ordering::Release);
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer [sealed]")
    }
}

fn own_key(ring: &Ring) -> P256PrivateKey {
    // A derived number is a key unless it is zero or beyond the curve's order, which one in four billion is.
    let mut keys = (0_u32..).map(|count| ring.derived(&format!("proofs towards hosts {count}")));
    keys.find_map(|bytes| P256PrivateKey::from_bytes(&bytes).ok()).expect("one of so many is a key")
}
