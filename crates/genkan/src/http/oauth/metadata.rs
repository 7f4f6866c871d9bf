//! The documents that describe Genkan as a server (RFC 8414, RFC 9728), and its public keys.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use genkan_protocol::oauth::jwk::{Jwk, JwkSet};
use genkan_protocol::oauth::server_metadata::{AuthorizationServer, ProtectedResource};
use http::header::CACHE_CONTROL;

use crate::app::App;
use crate::keys::WebPurpose;

/// `/.well-known/oauth-authorization-server`
///
/// It has no `protected_resources`, because that list would have to name every host at every
/// moment.
pub(super) async fn authorization_server(State(app): State<App>) -> Response {
    let mut server = AuthorizationServer::of_genkan(app.config.service.public_url.as_str());
    server.ui_locales_supported = Some(vec!["en".to_owned(), "de".to_owned()]);
    lasting(Json(server))
}

/// `/.well-known/oauth-protected-resource`, for people who type Genkan's own address into an app.
pub(super) async fn protected_resource(State(app): State<App>) -> Response {
    lasting(Json(ProtectedResource::of_genkan(app.config.service.public_url.as_str())))
}

/// `/oauth/jwks`: the signing keys of tokens for each host, and of tokens for Genkan.
///
/// A host's tokens carry no `kid`: their audience selects the key. Genkan's own tokens carry one.
pub(super) async fn jwks(State(app): State<App>) -> Response {
    let hosts = app.ring.current_host_keys();
    let own = app.ring.web_keys(WebPurpose::Tokens);
    let hosts = hosts.iter().map(|key| Jwk::of(&key.public).named(&key.id));
    let keys = hosts.chain(own.iter().map(|key| Jwk::of(&key.public).named(&key.id))).collect();
    lasting(Json(JwkSet { keys }))
}

fn lasting(answer: impl IntoResponse) -> Response {
    ([(CACHE_CONTROL, "max-age=300")], answer).into_response()
}
