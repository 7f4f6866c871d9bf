//! The apps that push requests here, and their authentication.

use genkan_protocol::oauth::client_assertion::UnverifiedAssertion;
use genkan_protocol::oauth::client_id::ClientId;
use genkan_protocol::oauth::jwk::JwkSet;
use genkan_protocol::oauth::request::Form;

use super::Server;
use crate::loopback::locked;

/// The metadata of a client.
#[derive(Clone, Debug)]
pub(super) struct ClientMetadata {
    pub(super) scope: String,
    pub(super) keys: JwkSet,
}

/// An authenticated client.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) id: String,
    /// The scopes that it may ask for.
    pub(super) scope: String,
    /// The key that it signed with; None for one in development.
    pub(super) key: Option<String>,
}

/// The code and text of a refusal.
pub(super) type Refusal = (u16, &'static str, String);

impl Server {
    /// Authenticates the sender of a form in the way of its kind of client.
    pub(super) fn authenticate(&self, form: &Form) -> Result<Client, Refusal> {
        let invalid = |text: &str| (400, "invalid_client", text.to_owned());
        let id = form.get("client_id").ok_or_else(|| invalid("client_id is missing"))?;
        let issuer = locked(&self.issuer).clone();
        let listed: Vec<String> =
            locked(&self.clients).keys().filter_map(|known| Some(url_origin(known)?.to_owned())).collect();
        let parsed = ClientId::parse(id, &listed).map_err(|error| invalid(&error.to_string()))?;
        let assertion = form.client_assertion().map_err(|_| invalid("unsupported client_assertion_type"))?;
        if let Some(development) = parsed.development() {
            let development = development.map_err(|error| invalid(&error.to_string()))?;
            return match assertion {
                None => Ok(Client { id: id.to_owned(), scope: development.scope, key: None }),
                Some(_) => Err(invalid("a client in development has no keys")),
            };
        }
        // The test gives the metadata. Genkan in a test may have no address from which it could be
        // fetched.
        let known = locked(&self.clients).get(id).cloned();
        let known = known.ok_or_else(|| {
            (400, "invalid_client_metadata", format!("the metadata of {id} cannot be fetched"))
        })?;
        let assertion = assertion.ok_or_else(|| invalid("client_assertion is missing"))?;
        let unverified =
            UnverifiedAssertion::parse(assertion).map_err(|error| invalid(&error.to_string()))?;
        let assertion = unverified
            .verify(&known.keys, &parsed, &issuer, self.now())
            .map_err(|error| invalid(&error.to_string()))?;
        if !locked(&self.used).insert(format!("assertion {id} {}", assertion.jti)) {
            return Err(invalid("client_assertion replayed"));
        }
        Ok(Client { id: id.to_owned(), scope: known.scope, key: Some(assertion.kid) })
    }
}

fn url_origin(url: &str) -> Option<&str> {
    let path_at = url.get(8..)?.find('/')? + 8;
    url.get(..path_at)
}
