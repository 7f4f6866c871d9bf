//! `/.well-known/`: `atproto-did` for the handles of accounts, `did.json` for Genkan itself, and
//! `change-password`.

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use genkan_protocol::syntax::Handle;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use serde_json::json;

use crate::accounts::Standing;
use crate::app::App;
use crate::base::Origin;
use crate::wire::error::XrpcError;

pub(crate) fn routes(app: &App) -> Router {
    Router::new()
        .route("/.well-known/atproto-did", get(atproto_did))
        .route("/.well-known/did.json", get(did_document))
        .route("/.well-known/change-password", get(change_password))
        .with_state(app.clone())
}

/// The DID of the account whose handle is the request's `Host`
/// (<https://atproto.com/specs/handle>).
async fn atproto_did(State(app): State<App>, request: Request) -> Result<Response, XrpcError> {
    let Ok(handle) = named_host(&request).unwrap_or_default().parse::<Handle>() else {
        return Ok(not_found());
    };
    match app.accounts.account_hosts().find_by_handle(handle.as_str()).await? {
        Some(home) if home.standing != Standing::TakenDown => {
            let plain = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
            Ok((plain, home.did.to_string()).into_response())
        }
        _ => Ok(not_found()),
    }
}

/// Genkan's own DID document, under its own name only.
async fn did_document(State(app): State<App>, request: Request) -> Response {
    let service = &app.config.service;
    let asked = named_host(&request).unwrap_or_default();
    // A `did:web` belongs to one host. Under any other name the document would be for another DID.
    if asked != service.public_url.host() || service.did.as_str() != did_of(&service.public_url) {
        return not_found();
    }
    let document = json!({
        "@context": ["https://www.w3.org/ns/did/v1"],
        "id": service.did,
        "service": [{
            "id": "#atproto_pds",
            "type": "AtprotoPersonalDataServer",
            "serviceEndpoint": service.public_url.as_str(),
        }],
    });
    Json(document).into_response()
}

/// The page to which password managers send people (W3C, A Well-Known URL for Changing Passwords).
async fn change_password() -> Redirect {
    Redirect::to("/account/reset-password")
}

/// The host that the request names, in lower case and without port.
fn named_host(request: &Request) -> Option<String> {
    let by_header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has no `Host` header. The authority of the request takes its place (RFC 9113 §8.3.1).
    let authority = by_header.or_else(|| request.uri().authority().map(http::uri::Authority::as_str))?;
    let authority: http::uri::Authority = authority.parse().ok()?;
    Some(authority.host().to_ascii_lowercase())
}

fn did_of(origin: &Origin) -> String {
    format!("did:web:{}", origin.authority().as_str().replace(':', "%3A"))
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "text/plain; charset=utf-8")], "not found\n").into_response()
}
