//! `POST /oauth/par`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::PAR;
use super::error::Refusal;
use super::form::PostedForm;
use crate::app::App;
use crate::limits::{ClientNetwork, OAuthEndpoint};
use crate::oauth::{Call, proofs};
use crate::wire::ClientAddr;

pub(super) async fn par(
    State(app): State<App>,
    client: ClientAddr,
    headers: HeaderMap,
    posted: Result<PostedForm, Refusal>,
) -> Result<Response, Refusal> {
    // Counted before the form's own error is reported, so that malformed requests are limited too.
    app.limits.call(OAuthEndpoint::Push, client.0, app.clock.now())?;
    let PostedForm(form) = posted?;
    let call = Call { method: "POST", path: PAR, proofs: proofs(&headers) };
    let pushed = app.oauth.push(&call, &form, ClientNetwork::of(client.0).address()).await?;
    let answer = json!({ "request_uri": pushed.request_uri.to_string(), "expires_in": pushed.expires_in });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}
