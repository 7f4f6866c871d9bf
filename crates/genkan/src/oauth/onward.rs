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
use genkan_protocol::oauth::access_token::{self, AccessClaims, Confirmation};
use genkan_protocol::oauth::dpop::{ProofClaims, ProofKey, ath};

use super::{GrantCaller, OAuth, refresh_token};
use crate::base::random;
use crate::fleet::{Host, HostId};
use crate::keys::Ring;

/// What a request carries to a host instead of the caller's own headers.
#[derive(Clone)]
pub(crate) struct Onward {
    token: Arc<Token>,
    proof: String,
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
pub(super) struct Minted(RwLock<Option<Arc<Token>>>);

struct Token {
    text: String,
    ath: String,
    /// The host key that signed it.
    key: String,
}

impl Minted {
    fn get(&self, key: &str) -> Option<Arc<Token>> {
        let minted = self.0.read().unwrap_or_else(PoisonError::into_inner);
        minted.as_ref().filter(|token| token.key == key).map(Arc::clone)
    }

    fn set(&self, token: Option<Arc<Token>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = token;
    }
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealed]")
    }
}

/// Genkan's own key towards the fleet, the same on every replica, and what hosts said of their nonces.
pub(super) struct Signer {
    key: ProofKey,
    heard: RwLock<HashMap<HostId, String>>,
    has_heard: AtomicBool,
}

impl Signer {
    pub(super) fn new(ring: &Ring) -> Self {
        Self {
            key: ProofKey::new(own_key(ring)),
            heard: RwLock::default(),
            has_heard: AtomicBool::new(false),
        }
    }

    fn heard(&self, host: &HostId) -> Option<String> {
        // Nearly always nobody has said anything that was not computed.
        if !self.has_heard.load(Ordering::Acquire) {
            return None;
        }
        self.heard.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    fn hear(&self, host: &HostId, nonce: Option<&str>) {
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

impl OAuth {
    /// Token and proof for a request of this caller to its home. `None`: the host has no key any more.
    pub(crate) fn sign_onward(
        &self,
        caller: &GrantCaller,
        host: &Host,
        method: &str,
        path: &str,
    ) -> Option<Onward> {
        let key = self.ring.host_key(host.id.as_str())?;
        let now = self.clock.now();
        let token = caller.minted.get(&key.id).unwrap_or_else(|| {
            let claims = AccessClaims {
                iss: self.settings.issuer.clone(),
                aud: host.did.as_str().to_owned(),
                sub: caller.did.clone(),
                scope: caller.written.clone(),
                client_id: caller.client_id.clone(),
                cnf: Some(Confirmation { jkt: self.signer.key.thumbprint() }),
                jti: refresh_token::token_id(&caller.grant),
                iat: now.as_seconds(),
                exp: caller.expires_at.as_seconds(),
            };
            let text = access_token::sign(&key.private, &claims);
            let token = Arc::new(Token { ath: ath(&text), text, key: key.id.clone() });
            caller.minted.set(Some(Arc::clone(&token)));
            token
        });
        let heard = self.signer.heard(&host.id);
        let computed = self.nonces.next(now.as_millis());
        let proof = self.signer.key.sign(&ProofClaims {
            jti: &random::id(),
            htm: method,
            htu: &format!("{}{path}", host.origin.as_str()),
            iat: now.as_seconds(),
            nonce: Some(heard.as_deref().unwrap_or(computed.as_str())),
            ath: Some(&token.ath),
        });
        Some(Onward { token, proof })
    }

    /// The nonce that a host wants to see next.
    pub(crate) fn hear_nonce(&self, host: &HostId, nonce: &str) {
        let is_computed = self.nonces.accepts(nonce, self.clock.now().as_millis());
        let heard = self.signer.heard(host);
        if is_computed && heard.is_some() {
            self.signer.hear(host, None);
        } else if !is_computed && heard.as_deref() != Some(nonce) && nonce.len() <= LONGEST_NONCE {
            self.signer.hear(host, Some(nonce));
        }
    }
}

impl GrantCaller {
    /// A host did not take what we signed: the next request gets a fresh token.
    pub(crate) fn forget_onward(&self) {
        self.minted.set(None);
    }
}

const LONGEST_NONCE: usize = 512;
