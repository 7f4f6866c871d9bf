//! `com.atproto.temp.dereferenceScope`

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::http::XrpcQuery;
use crate::http::method::method;
use crate::oauth;
use crate::wire::error::{XrpcError, bad_request};

method!(DereferenceScope, "com.atproto.temp.dereferenceScope");

#[derive(Deserialize)]
pub(crate) struct Query {
    scope: String,
}

#[derive(Serialize)]
pub(crate) struct Output {
    scope: String,
}

/// Returns the scope behind a reference in a token. Hosts call this without credentials and cache
/// the answer, because a reference never changes its meaning.
pub(crate) async fn dereference_scope(
    State(app): State<App>,
    XrpcQuery(query): XrpcQuery<Query>,
) -> Result<Json<Output>, XrpcError> {
    match app.oauth.dereference(&query.scope).await {
        Ok(Some(scope)) => Ok(Json(Output { scope: scope.to_string() })),
        Ok(None) => Err(bad_request("InvalidScopeReference", "the scope reference is not known")),
        Err(oauth::Error::Storage(cause)) => Err(cause.into()),
        Err(cause) => Err(XrpcError::internal(cause)),
    }
}
