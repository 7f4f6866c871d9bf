//! Genkan as an OAuth client of other servers: its metadata documents and keys.
//!
//! The stable client id stands for the operator's list of scope values. Servers compare a requested
//! scope with the client's document as a string, so a request beyond that list uses a client id of
//! its own, derived from the hash of exactly that scope. On loopback Genkan is a client in
//! development, which has no document and no keys.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use futures_util::future::BoxFuture;
use genkan_protocol::crypto::P256PrivateKey;
use genkan_protocol::oauth::jwk::{Jwk, JwkSet};
use genkan_protocol::oauth::{client_assertion, client_id};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::base::{Origin, Timestamp, query, random};

/// A key that proves which client Genkan is (`private_key_jwt`).
#[derive(Clone)]
pub(crate) struct ClientKey {
    /// `kid` in Genkan's key set.
    pub(crate) id: String,
    pub(crate) private: P256PrivateKey,
    /// The time from which the key signs. It is published earlier, because other servers may cache
    /// an older key set.
    pub(crate) usable_from: Timestamp,
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey({} [sealed])", self.id)
    }
}

/// Returns the current keys, the newest first.
pub(crate) type ClientKeys = Arc<dyn Fn() -> Vec<ClientKey> + Send + Sync>;

/// Reads Genkan's keys from the database again. `false` if that failed.
pub(crate) type ReloadKeys = Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// The client that other servers know Genkan as.
pub(super) struct Client {
    origin: Origin,
    name: String,
    scope: String,
    keys: ClientKeys,
    pages: Vec<(&'static str, String)>,
}

/// The client id and key of one session. A session keeps both for its whole life.
#[derive(Clone, Debug)]
pub(super) struct ClientIdentity {
    pub(super) id: String,
    pub(super) key: Option<ClientKey>,
}

/// The client id for a set of scope values, which may need a document of its own.
#[derive(Debug)]
pub(super) struct ClientName {
    pub(super) id: String,
    /// The hash under which the document is found.
    pub(super) own_document: Option<String>,
}

impl Client {
    pub(super) fn new(
        origin: Origin,
        name: String,
        scope: String,
        pages: Vec<(&'static str, String)>,
        keys: ClientKeys,
    ) -> Self {
        Self { origin, name, scope, keys, pages }
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether Genkan has no https, and so no document that others could fetch.
    fn is_in_development(&self) -> bool {
        !self.origin.is_https()
    }

    /// The address to which browsers return. Servers accept loopback only as an IP address.
    pub(super) fn redirect_uri(&self) -> String {
        if self.is_in_development() {
            return format!("http://127.0.0.1:{}{CALLBACK}", self.origin.port());
        }
        format!("{}{CALLBACK}", self.origin)
    }

    /// The client id for a scope.
    pub(super) fn name_for(&self, scope: &str) -> ClientName {
        if self.is_in_development() {
            // A client in development has no document. Its id carries what the document would say
            // (atproto OAuth, "Localhost Client Development").
            let query = query::of_pairs(&[("scope", scope), ("redirect_uri", &self.redirect_uri())]);
            return ClientName { id: format!("http://localhost?{query}"), own_document: None };
        }
        // Compared as a set, because the order of scope values has no meaning (RFC 6749 §3.3).
        let listed: HashSet<&str> = self.scope.split(' ').collect();
        if scope.split(' ').all(|value| listed.contains(value)) {
            return ClientName { id: format!("{}{STABLE}", self.origin), own_document: None };
        }
        let hash = hash_of(scope);
        ClientName { id: format!("{}{OTHERS}{hash}.json", self.origin), own_document: Some(hash) }
    }

    /// The client id for a scope that is stored nowhere. It carries the scope, from which every
    /// replica makes its document. `None` if servers would find it too long.
    pub(super) fn name_with(&self, scope: &str) -> Option<ClientName> {
        let query = query::of_pairs(&[("scope", scope)]);
        let id = format!("{}?{query}", self.name_for(scope).id);
        (id.len() <= client_id::MAX_LENGTH).then_some(ClientName { id, own_document: None })
    }

    /// Returns the document of a client id that carries its scope, if `hash` is that of the scope.
    pub(super) fn document_with(&self, hash: &str, scope: &str) -> Option<Value> {
        let is_named = self.name_for(scope).own_document.as_deref() == Some(hash);
        let name = self.name_with(scope).filter(|_| is_named)?;
        Some(self.document_of(&name.id, scope))
    }

    /// Returns the hash in a client id whose document is made from a row.
    pub(super) fn own_document(client_id: &str) -> Option<&str> {
        client_id.split_once(OTHERS)?.1.strip_suffix(".json")
    }

    /// The key for new sign-ins: the newest one that every server can have seen. `None` in
    /// development.
    pub(super) fn newest_key(&self, now: Timestamp) -> Option<ClientKey> {
        if self.is_in_development() {
            return None;
        }
        let keys = (self.keys)();
        // The keys are in order, newest first. Other servers cache the key set, so a new key is not
        // used at once. If all keys are that new, the oldest is the best choice.
        keys.iter().find(|key| key.usable_from <= now).or_else(|| keys.last()).cloned()
    }

    pub(super) fn key(&self, id: &str) -> Option<ClientKey> {
        // A session keeps the key with which it began, so older keys are looked for too.
        (self.keys)().into_iter().find(|key| key.id == id)
    }

    /// The document of the stable client id, or of the one for this scope.
    pub(super) fn document(&self, own_scope: Option<&str>) -> Value {
        let scope = own_scope.unwrap_or(&self.scope);
        // Derived from the scope again, so id and content of a document cannot disagree.
        self.document_of(&self.name_for(scope).id, scope)
    }

    fn document_of(&self, client_id: &str, scope: &str) -> Value {
        let mut document = json!({
            "client_id": client_id,
            "application_type": "web",
            "client_name": self.name,
            "client_uri": self.origin.as_str(),
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "redirect_uris": [self.redirect_uri()],
            "scope": scope,
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": "ES256",
            "dpop_bound_access_tokens": true,
            "jwks_uri": format!("{}{KEY_SET}", self.origin),
        });
        for (name, url) in &self.pages {
            if let Some(members) = document.as_object_mut() {
                members.insert((*name).to_owned(), json!(url));
            }
        }
        document
    }

    pub(super) fn key_set(&self) -> JwkSet {
        let keys = (self.keys)();
        JwkSet { keys: keys.iter().map(|key| Jwk::of(&key.private.public()).named(&key.id)).collect() }
    }
}

impl ClientIdentity {
    /// Adds the client's assertion to a form for this server. An assertion is valid for one
    /// attempt.
    pub(super) fn sign_form(&self, issuer: &str, now: Timestamp, fields: &mut Vec<(&'static str, String)>) {
        fields.push(("client_id", self.id.clone()));
        if let Some(key) = &self.key {
            let (jti, now) = (random::id(), now.as_seconds());
            let assertion = client_assertion::sign(&key.private, &key.id, &self.id, issuer, &jti, now);
            fields.push(("client_assertion_type", client_assertion::TYPE.to_owned()));
            fields.push(("client_assertion", assertion));
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.origin)
    }
}

fn hash_of(scope: &str) -> String {
    // 32 characters are 160 bits: nobody finds a second scope with the same name.
    let mut hash = BASE32_NOPAD.encode(&Sha256::digest(scope)).to_ascii_lowercase();
    hash.truncate(32);
    hash
}

/// The paths of Genkan's client documents.
pub(crate) const STABLE: &str = "/oauth/client-metadata.json";
pub(crate) const OTHERS: &str = "/oauth/clients/";
pub(crate) const KEY_SET: &str = "/oauth/client-jwks.json";
pub(crate) const CALLBACK: &str = "/oauth/callback";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use genkan_protocol::oauth::client_id::ClientId;
    use genkan_protocol::oauth::client_metadata::ClientMetadata;

    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    fn key(id: &str, usable_in: Duration) -> ClientKey {
        ClientKey {
            id: id.to_owned(),
            private: super::super::vault::fresh_key(),
            usable_from: NOW.plus(usable_in),
        }
    }

    fn client(origin: &str, keys: Vec<ClientKey>) -> Client {
        let keys: ClientKeys = Arc::new(move || keys.clone());
        let pages = vec![("tos_uri", "https://genkan.example.com/terms".to_owned())];
        let scope = "atproto transition:generic".to_owned();
        Client::new(origin.parse().unwrap(), "Genkan".to_owned(), scope, pages, keys)
    }

    #[test]
    fn our_documents_are_ones_that_we_would_take() {
        let client = client("https://genkan.example.com", vec![key("one", Duration::ZERO)]);
        let stable = client.name_for("transition:generic atproto");
        assert_eq!(stable.id, "https://genkan.example.com/oauth/client-metadata.json");
        let other = client.name_for("atproto repo:com.example.post");
        assert!(other.own_document.is_some() && other.id != stable.id);
        assert_eq!(other.id, client.name_for("atproto repo:com.example.post").id, "always the same");
        let scope = "atproto repo:com.example.post?action=create";
        let carried = client.name_with(scope).unwrap();
        // An id has a certain length at most.
        let carried_with = |values: usize| client.name_with(&"x".repeat(values));
        let longest = client_id::MAX_LENGTH - carried_with(0).unwrap().id.len();
        assert!(ClientId::parse(&carried_with(longest).unwrap().id, &[]).is_ok());
        assert!(carried_with(longest + 1).is_none());
        let hash = client.name_for(scope).own_document.unwrap();
        let document_of_carried = client.document_with(&hash, scope).unwrap();
        assert!(client.document_with(&hash, "atproto repo:com.example.other").is_none());
        assert!(client.document_with("", "atproto").is_none(), "the stable one");
        for (name, document) in [
            (stable.id, client.document(None)),
            (other.id, client.document(Some("atproto repo:com.example.post"))),
            (carried.id, document_of_carried),
        ] {
            let document = document.to_string();
            let id = ClientId::parse(&name, &[]).unwrap();
            let metadata = ClientMetadata::parse(document.as_bytes(), &id).unwrap();
            assert!(metadata.is_confidential(), "{document}");
        }
        assert_eq!(client.key_set().keys[0].kid(), Some("one"));
    }

    #[test]
    fn c19_a_new_key_is_used_once_every_server_can_have_seen_it() {
        let keys = vec![key("new", Duration::from_mins(1)), key("old", Duration::ZERO)];
        let published = client("https://genkan.example.com", keys);
        assert_eq!(published.newest_key(NOW).unwrap().id, "old");
        assert_eq!(published.newest_key(NOW.plus(Duration::from_mins(1))).unwrap().id, "new");
        assert_eq!(published.key("old").unwrap().id, "old");
        let alone = client("https://genkan.example.com", vec![key("first", Duration::from_mins(9))]);
        assert_eq!(alone.newest_key(NOW).unwrap().id, "first");
    }

    #[test]
    fn on_loopback_we_are_a_client_in_development() {
        let client = client("http://localhost:2583", vec![key("one", Duration::ZERO)]);
        let name = client.name_for("atproto repo:a.b.c").id;
        let id = ClientId::parse(&name, &[]).unwrap();
        let development = id.development().unwrap().unwrap();
        assert_eq!(development.redirect_uris, ["http://127.0.0.1:2583/oauth/callback"]);
        assert_eq!(development.scope, "atproto repo:a.b.c");
        assert!(client.newest_key(NOW).is_none());
    }
}
