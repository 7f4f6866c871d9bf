//! `com.atproto.temp.checkHandleAvailability`

use axum::Json;
use axum::extract::State;
use genkan_protocol::syntax::Handle;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::http::XrpcQuery;
use crate::http::method::method;
use crate::wire::error::XrpcError;

method!(CheckHandleAvailability, "com.atproto.temp.checkHandleAvailability");

#[derive(Deserialize)]
pub(crate) struct Query {
    handle: Handle,
}

/// Says whether a handle is available at sign-up. The answer has no suggestions.
pub(crate) async fn check_handle_availability(
    State(app): State<App>,
    XrpcQuery(query): XrpcQuery<Query>,
) -> Result<Json<Value>, XrpcError> {
    let handle = app.sign_ups.rules().handles.for_sign_up(query.handle.as_str());
    let free = match handle {
        Ok(handle) => app.accounts.is_handle_free(&handle).await?,
        Err(crate::identity::PolicyError::Reserved) => false,
        Err(problem) => return Err(problem.into()),
    };
    let kind = if free { "resultAvailable" } else { "resultUnavailable" };
    let mut result = json!({ "$type": format!("com.atproto.temp.checkHandleAvailability#{kind}") });
    if !free && let Some(object) = result.as_object_mut() {
        object.insert("suggestions".to_owned(), json!([]));
    }
    Ok(Json(json!({ "handle": query.handle, "result": result })))
}
