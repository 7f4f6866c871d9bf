//! Signing requests to the accounts' hosts (architecture decision 13).

use std::sync::Arc;

use genkan_protocol::oauth::access_token::{self, AccessClaims, Confirmation};
use genkan_protocol::oauth::dpop::{ProofClaims, ath, backdated};

use crate::base::random;
use crate::fleet::{Host, HostId};
use crate::oauth::ids;
use crate::oauth::service::OAuth;
use crate::oauth::tokens::{GrantCaller, Onward, Token};

impl OAuth {
    /// Returns token and proof for a caller's request to its home, or `None` if the host no longer
    /// has a key.
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
                scope: caller.written.as_str().to_owned(),
                client_id: caller.client_id.clone(),
                cnf: Some(Confirmation { jkt: self.signer.key.thumbprint() }),
                jti: ids::token_id(&caller.grant),
                iat: now.as_seconds(),
                exp: caller.expires_at.as_seconds(),
            };
            let text = access_token::sign(&key.private, &claims);
            let token = Arc::new(Token { ath: ath(&text), text, key: key.id.clone() });
            // Two requests may mint at once. The second token replaces the first, and both are
            // valid.
            caller.minted.set(Some(Arc::clone(&token)));
            token
        });
        let heard = self.signer.heard(&host.id);
        let computed = self.nonces.next(now.as_millis());
        let proof = self.signer.key.sign(&ProofClaims {
            jti: &random::id(),
            htm: method,
            htu: &format!("{}{path}", host.origin.as_str()),
            iat: backdated(now.as_seconds()),
            nonce: Some(heard.as_deref().unwrap_or(computed.as_str())),
            ath: Some(&token.ath),
        });
        Some(Onward { token, proof })
    }

    /// Remembers the nonce that a host demands next, if it differs from the computed ones.
    pub(crate) fn hear_nonce(&self, host: &HostId, nonce: &str) {
        let is_computed = self.nonces.accepts(nonce, self.clock.now().as_millis());
        let heard = self.signer.heard(host);
        // Nonces are normally computed from the time. A received nonce is kept only for a host that
        // demands another one, and only as long as it does.
        if is_computed && heard.is_some() {
            self.signer.hear(host, None);
        } else if !is_computed && heard.as_deref() != Some(nonce) && nonce.len() <= LONGEST_NONCE {
            self.signer.hear(host, Some(nonce));
        }
    }
}

const LONGEST_NONCE: usize = 512;
