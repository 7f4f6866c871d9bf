//! The documents that describe Genkan as an OAuth client to other servers.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::Uri;
use http::header::CACHE_CONTROL;
use serde::Deserialize;

use crate::app::App;
use crate::wire::{XrpcError, messages};

/// `/oauth/client-metadata.json`
pub(super) async fn stable(State(app): State<App>) -> Result<Response, XrpcError> {
    document(&app, None, None).await
}

/// The query of a client id that carries its scope.
#[derive(Default, Deserialize)]
struct Carried {
    scope: Option<String>,
}

/// `/oauth/clients/<hash>.json`: the document for a scope that the stable one does not list.
pub(super) async fn other(
    State(app): State<App>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, XrpcError> {
    let carried: Carried = serde_html_form::from_str(uri.query().unwrap_or_default()).unwrap_or_default();
    match name.strip_suffix(".json") {
        Some(hash) => document(&app, Some(hash), carried.scope.as_deref()).await,
        None => Err(nothing()),
    }
}

/// `/oauth/client-jwks.json`
pub(super) async fn key_set(State(app): State<App>) -> Response {
    lasting(Json(app.links.client_key_set()))
}

async fn document(app: &App, hash: Option<&str>, carried: Option<&str>) -> Result<Response, XrpcError> {
    let document = app.links.client_document(hash, carried).await?;
    document.map(|document| lasting(Json(document))).ok_or_else(nothing)
}

fn nothing() -> XrpcError {
    XrpcError::new(http::StatusCode::NOT_FOUND, "NotFound", messages::NOTHING_HERE)
}

fn lasting(answer: impl IntoResponse) -> Response {
    ([(CACHE_CONTROL, "max-age=300")], answer).into_response()
}
