//! Requests and documents of OAuth clients.

use genkan_protocol::oauth::client_id::ClientId;
use genkan_protocol::oauth::client_metadata::ClientMetadata;
use genkan_protocol::oauth::request::{AuthorizationRequest, Form, TokenRequest};
use genkan_protocol::oauth::scope::{Scope, Scopes};

use crate::text;

/// Parses a client id. Its text is the only spelling of its URL.
pub fn client_id(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(id) = ClientId::parse(text, &[]) {
        assert!(id.as_str() == text && (id.is_development() || id.url().as_str() == text));
        assert_eq!(
            id.development().is_some(),
            ClientMetadata::of_development(&id).is_ok() || id.is_development()
        );
    }
}

/// Parses a client's metadata document.
pub fn client_metadata(json: &[u8]) {
    let id = ClientId::parse("https://a.bc/d", &[]).expect("it is a client id");
    if let Ok(metadata) = ClientMetadata::parse(json, &id) {
        assert!(metadata.redirect_uris.iter().all(|declared| metadata.allows_redirect(declared.as_str())));
        assert!(metadata.scope.split(' ').any(|value| value == "atproto"));
    }
}

/// Parses the form of an authorization or token request.
pub fn form(body: &[u8]) {
    let Ok(form) = Form::parse(body) else { return };
    assert!(AuthorizationRequest::parse(&form).is_err() || form.get("state").is_some());
    assert!(TokenRequest::parse(&form).is_err() || form.get("grant_type").is_some());
    let _ = form.client_assertion();
}

/// Parses a scope, and a list of scopes.
pub fn scope(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(scope) = text.parse::<Scope>() {
        assert_eq!(scope.to_string().parse(), Ok(scope.clone()));
        assert!(Scopes::parse(text).covers(&scope) || matches!(scope, Scope::Include(_)));
    }
    let scopes = Scopes::parse(text);
    assert_eq!(Scopes::parse(&scopes.to_string()), scopes);
    assert!(scopes.is_within(&scopes));
}
