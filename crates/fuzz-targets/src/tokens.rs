//! Tokens: none without a signature, or with another key's signature, is accepted.

use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::jwt::{Unverified, session};
use genkan_protocol::oauth::dpop::{self, Expected};
use genkan_protocol::oauth::jwk::{Jwk, JwkSet};
use genkan_protocol::oauth::nonce::Nonces;
use genkan_protocol::oauth::{access_token, client_assertion, jws};

use crate::text;

/// Verifies a session or access token. The fuzzer has no key, so no token verifies.
pub fn jwt(bytes: &[u8]) {
    let Some(token) = text(bytes) else { return };
    let key = K256PrivateKey::from_bytes(&[7; 32]).expect("seven is a key").public();
    let parsed = Unverified::parse(token);
    assert!(session::key_hint(token).is_none() || parsed.is_ok());
    assert!(session::verify_access(token, &key).is_err());
    assert!(session::verify_refresh(token, &key).is_err());
    if let Ok(token) = access_token::Token::parse(token) {
        assert!(token.verify(&key).is_err());
    }
}

/// Verifies a service token.
pub fn service_auth(bytes: &[u8]) {
    let Some(token) = text(bytes) else { return };
    if let Ok(parsed) = genkan_protocol::service_auth::parse(token) {
        assert!(parsed.check("", Some(""), 0).is_err());
    }
}

/// Verifies a DPoP proof and a client assertion. The expected nonce is secret, so no proof is
/// valid.
pub fn dpop_proof(bytes: &[u8]) {
    let Some(proof) = text(bytes) else { return };
    let nonces = Nonces::new(&[0; 32], Nonces::INTERVAL);
    let expected =
        Expected { method: "GET", origin: "https://a.b", path: "/", access_token: None, now_millis: 0 };
    assert!(dpop::verify(proof, &expected, &nonces).is_err());
    if let Ok(assertion) = client_assertion::UnverifiedAssertion::parse(proof) {
        assert!(assertion.key(&JwkSet::default()).is_none());
        assert!(jws::Unverified::parse(proof).is_ok());
    }
}

/// Parses a public key as JSON, alone and in a set.
pub fn jwk(bytes: &[u8]) {
    if let Ok(key) = Jwk::parse(bytes) {
        let shown = serde_json::to_vec(&key).expect("a key has a JSON form");
        let again = Jwk::parse(&shown).expect("a key that was written is read");
        assert_eq!(again.thumbprint(), key.thumbprint());
    }
    if let Ok(set) = JwkSet::parse(bytes) {
        assert!(set.keys.len() <= JwkSet::MAX_KEYS);
    }
}
