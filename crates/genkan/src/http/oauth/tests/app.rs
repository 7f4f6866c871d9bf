//! An app, by its own hand: it can also send what no correct app would.

use std::sync::atomic::{AtomicI64, Ordering};

use genkan_protocol::crypto::P256PrivateKey;
use genkan_protocol::jwt;
use genkan_protocol::oauth::dpop::{ProofClaims, ProofKey, ath};
use genkan_protocol::oauth::jwk::Jwk;
use genkan_protocol::oauth::pkce::Challenge;
use genkan_testing::Answer;
use serde_json::{Value, json};

use super::server::OAuthServer;
use crate::base::random;
use crate::http::testing::ORIGIN;

/// An app: its id, its keys, and how it talks.
#[derive(Debug)]
pub(super) struct TestApp {
    pub(super) id: String,
    pub(super) proof_key: ProofKey,
    pub(super) redirect: String,
    pub(super) scope: String,
    /// The app's own key and the key's id, if the app authenticates itself.
    pub(super) own_key: Option<(P256PrivateKey, &'static str)>,
    /// Counts the codes it asked for: a challenge is good once.
    pub(super) round: AtomicI64,
}

impl TestApp {
    /// An app on the developer's machine.
    pub(super) fn loopback() -> Self {
        let id = "http://localhost?scope=atproto%20transition%3Ageneric&redirect_uri=http%3A%2F%2F127.0.0.1%2Fback";
        Self {
            id: id.to_owned(),
            proof_key: fresh_proof_key(),
            redirect: "http://127.0.0.1:4321/back".to_owned(),
            scope: "atproto transition:generic".to_owned(),
            own_key: None,
            round: AtomicI64::new(0),
        }
    }

    /// An app with a document that has these members besides, or instead.
    pub(super) fn published(server: &OAuthServer, name: &str, members: &Value) -> Self {
        let origin = &server.site.url();
        let id = format!("{origin}/{name}.json");
        let redirect = format!("{origin}/back");
        let mut document = json!({
            "client_id": id,
            "redirect_uris": [redirect],
            "scope": "atproto transition:generic",
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none",
            "dpop_bound_access_tokens": true,
        });
        for (member, value) in members.as_object().unwrap() {
            document[member] = value.clone();
        }
        server.site.put(&format!("/{name}.json"), 200, "application/json", document.to_string());
        let scope = document["scope"].as_str().unwrap_or_default().to_owned();
        Self { id, proof_key: fresh_proof_key(), redirect, scope, own_key: None, round: AtomicI64::new(0) }
    }

    /// An app that signs with its own key.
    pub(super) fn confidential(server: &OAuthServer, name: &str) -> Self {
        let key = fresh_key();
        let app = Self::published(server, name, &confidential_members(&key, "one"));
        Self { own_key: Some((key, "one")), ..app }
    }

    pub(super) fn proof_at(&self, server: &OAuthServer, path: &str, nonce: Option<&str>) -> String {
        let now = server.clock.now().as_seconds();
        self.proof_key.sign(&ProofClaims {
            jti: &random::id(),
            htm: "POST",
            htu: &format!("{ORIGIN}{path}"),
            iat: now,
            nonce,
            ath: None,
        })
    }

    /// Beside an access token.
    pub(super) fn proof_for(&self, server: &OAuthServer, path: &str, token: Option<&str>) -> String {
        self.proof_key.sign(&ProofClaims {
            jti: &random::id(),
            htm: "POST",
            htu: &format!("{ORIGIN}{path}"),
            iat: server.clock.now().as_seconds(),
            nonce: Some(&server.app.oauth.nonce()),
            ath: token.map(ath).as_deref(),
        })
    }

    pub(super) fn proof(&self, server: &OAuthServer, path: &str) -> String {
        self.proof_at(server, path, Some(&server.app.oauth.nonce()))
    }

    pub(super) fn assertion(&self, server: &OAuthServer, change: &Value) -> String {
        let (key, kid) = self.own_key.as_ref().unwrap();
        let now = server.clock.now().as_seconds();
        let mut claims = json!({
            "iss": self.id, "sub": self.id, "aud": ORIGIN, "iat": now, "exp": now + 60, "jti": random::id(),
        });
        for (member, value) in change.as_object().unwrap() {
            claims[member] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        jwt::sign_es256(key, "JWT", kid, &claims)
    }

    /// Posts with a good proof and good credentials, unless `changes` says otherwise (an empty
    /// value leaves out).
    pub(super) async fn post(
        &self,
        server: &OAuthServer,
        path: &str,
        form: &[(&str, &str)],
        changes: &[(&str, &str)],
    ) -> Answer {
        let proof = self.proof(server, path);
        self.post_with(server, path, form, changes, &[&proof]).await
    }

    pub(super) async fn post_with(
        &self,
        server: &OAuthServer,
        path: &str,
        form: &[(&str, &str)],
        changes: &[(&str, &str)],
        proofs: &[&str],
    ) -> Answer {
        let assertion = self.own_key.as_ref().map(|_| self.assertion(server, &json!({})));
        let mut all: Vec<(&str, &str)> = vec![("client_id", &self.id)];
        if let Some(assertion) = &assertion {
            all.push(("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"));
            all.push(("client_assertion", assertion));
        }
        all.extend_from_slice(form);
        for (name, value) in changes {
            all.retain(|(one, _)| one != name);
            if !value.is_empty() {
                all.push((name, value));
            }
        }
        server.post(path, &all, proofs).await
    }

    pub(super) async fn push(&self, server: &OAuthServer, changes: &[(&str, &str)]) -> Answer {
        let proof = self.proof(server, "/oauth/par");
        self.push_with(server, changes, &[&proof]).await
    }

    pub(super) async fn push_with(
        &self,
        server: &OAuthServer,
        changes: &[(&str, &str)],
        proofs: &[&str],
    ) -> Answer {
        let challenge = Challenge::of(&self.verifier()).to_string();
        let form = [
            ("response_type", "code"),
            ("redirect_uri", &self.redirect),
            ("scope", &self.scope),
            ("state", "the state"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        self.post_with(server, "/oauth/par", &form, changes, proofs).await
    }

    /// What goes with the latest code.
    pub(super) fn verifier(&self) -> String {
        format!("verifier-{}-{}", self.round.load(Ordering::SeqCst), self.proof_key.thumbprint())
    }

    pub(super) async fn redeem(&self, server: &OAuthServer, code: &str, changes: &[(&str, &str)]) -> Answer {
        let verifier = self.verifier();
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &*self.redirect),
            ("code_verifier", &*verifier),
        ];
        self.post(server, "/oauth/token", &form, changes).await
    }

    pub(super) async fn refresh(&self, server: &OAuthServer, token: &str) -> Answer {
        self.post(server, "/oauth/token", &[("grant_type", "refresh_token"), ("refresh_token", token)], &[])
            .await
    }

    pub(super) async fn revoke(&self, server: &OAuthServer, token: &str) -> Answer {
        self.post(server, "/oauth/revoke", &[("token", token)], &[]).await
    }
}

pub(super) fn confidential_members(key: &P256PrivateKey, kid: &str) -> Value {
    json!({
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "ES256",
        "jwks": { "keys": [Jwk::of(&key.public()).named(kid)] },
    })
}

pub(super) fn fresh_key() -> P256PrivateKey {
    P256PrivateKey::from_bytes(&random::bytes::<32>()).unwrap()
}

pub(super) fn fresh_proof_key() -> ProofKey {
    ProofKey::new(fresh_key())
}
