//! Proofs of keys, and the nonces that they have to carry.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use data_encoding::BASE64URL_NOPAD;
use genkan_protocol::oauth::dpop::{self, Expected};
use genkan_protocol::oauth::jwk::Thumbprint;
use genkan_protocol::oauth::nonce::Nonces;
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

use super::{Quirks, Server};
use crate::loopback::{Reply, SeenRequest, locked};

/// Issues and checks nonces.
#[derive(Debug)]
pub(super) struct NonceShop(Mutex<Nonces>);

impl Default for NonceShop {
    fn default() -> Self {
        let shop = Self(Mutex::new(Nonces::new(&[0; 32], Nonces::INTERVAL)));
        shop.change();
        shop
    }
}

impl NonceShop {
    /// Makes every earlier nonce invalid.
    pub(super) fn change(&self) {
        // A counter in the process makes every secret new, so earlier nonces are never accepted
        // again.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let secret = sha256(&format!("nonces {}", NEXT.fetch_add(1, Ordering::SeqCst)));
        *locked(&self.0) = Nonces::new(&secret, Nonces::INTERVAL);
    }

    /// Puts the nonce for the next proof on an answer.
    pub(super) fn put_on(&self, reply: &mut Reply, quirks: &Quirks, now_millis: i64) {
        if quirks.nonce_each {
            self.change();
        }
        let nonce = locked(&self.0).next(now_millis);
        reply.headers_mut().insert("dpop-nonce", HeaderValue::from_str(nonce.as_str()).unwrap());
    }
}

impl Server {
    /// Checks the proof of a request and uses it up. Returns the key's thumbprint, or the code and
    /// text of a refusal.
    pub(super) fn check_proof(
        &self,
        seen: &SeenRequest,
        origin: &str,
        access_token: Option<&str>,
        nonces: &NonceShop,
        quirks: &Quirks,
    ) -> Result<Thumbprint, (&'static str, String)> {
        let Some(proof) = single(&seen.headers, "dpop") else {
            return Err(("invalid_dpop_proof", "DPoP proof required".to_owned()));
        };
        let expected = Expected {
            method: seen.method.as_str(),
            origin,
            path: &seen.path,
            access_token,
            now_millis: self.now_millis(),
        };
        let proof = dpop::verify(proof, &expected, &locked(&nonces.0))
            .map_err(|error| (error.code(), error.to_string()))?;
        // After the verification, so that the proof itself is still checked.
        if quirks.nonce_never_good {
            return Err(("use_dpop_nonce", dpop::Error::UseNonce.to_string()));
        }
        // The thumbprint is part of the key: another client may choose the same `jti`.
        if !locked(&self.used).insert(format!("proof {} {}", proof.jkt, proof.jti)) {
            return Err(("invalid_dpop_proof", "DPoP proof replayed".to_owned()));
        }
        Ok(proof.jkt)
    }
}

/// Returns a header that appears once.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

pub(super) fn digest(text: &str) -> String {
    BASE64URL_NOPAD.encode(&sha256(text))
}

pub(super) fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}
