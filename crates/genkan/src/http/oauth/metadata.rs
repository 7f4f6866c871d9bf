//! What servers say of themselves: RFC 8414, RFC 9728, and the public keys.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use genkan_protocol::oauth::jwk::{Jwk, JwkSet};
use genkan_protocol::oauth::server_metadata::{AuthorizationServer, ProtectedResource};
use http::header::CACHE_CONTROL;

use crate::app::App;
use crate::keys::WebPurpose;

/// `/.well-known/oauth-authorization-server`. No `protected_resources`: a list would have to name every host, always.
pub(super) async fn authorization_server(State(app): State<App>) -> Response {
    let mut server = AuthorizationServer::of_genkan(app.config.service.public_url.as_str());
    server.ui_locales_supported = Some(vec!["en".to_owned(), "de".to_owned()]);
    lasting(Json(server))
}

/// `/.well-known/oauth-protected-resource`: who types Genkan's own address at an app gets to the same server.
pub(super) async fn protected_resource(State(app): State<App>) -> Response {
    lasting(Json(ProtectedResource::of_genkan(app.config.service.public_url.as_str())))
}

/// `/oauth/jwks`: the key of each host's tokens, which do not name theirs, the audience does; and those of tokens that
/// are addressed to Genkan, which do.
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
