//! `POST /oauth/revoke`

use axum::Json;
use axum::extract::State;
use http::HeaderMap;
use serde_json::{Value, json};

use super::REVOKE;
use super::error::Refusal;
use super::form::PostedForm;
use crate::app::App;
use crate::limits::OAuthEndpoint;
use crate::oauth::{Call, proofs};
use crate::wire::ClientAddr;

pub(super) async fn revoke(
    State(app): State<App>,
    client: ClientAddr,
    headers: HeaderMap,
    posted: Result<PostedForm, Refusal>,
) -> Result<Json<Value>, Refusal> {
    app.limits.call(OAuthEndpoint::Revoke, client.0, app.clock.now())?;
    let PostedForm(form) = posted?;
    let call = Call { method: "POST", path: REVOKE, proofs: proofs(&headers) };
    app.oauth.revoke(&call, &form).await?;
    Ok(Json(json!({})))
}
