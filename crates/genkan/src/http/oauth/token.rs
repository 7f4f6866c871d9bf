//! `POST /oauth/token`

use axum::Json;
use axum::extract::State;
use http::HeaderMap;
use serde_json::{Value, json};

use super::TOKEN;
use super::error::Refusal;
use super::form::PostedForm;
use crate::app::App;
use crate::http::deadline::Waiting;
use crate::limits::OAuthEndpoint;
use crate::oauth::{Call, proofs};
use crate::wire::ClientAddr;

pub(super) async fn token(
    State(app): State<App>,
    client: ClientAddr,
    Waiting(waiting): Waiting,
    headers: HeaderMap,
    posted: Result<PostedForm, Refusal>,
) -> Result<Json<Value>, Refusal> {
    app.limits.call(OAuthEndpoint::Token, client.0, app.clock.now())?;
    let PostedForm(form) = posted?;
    let call = Call { method: "POST", path: TOKEN, proofs: proofs(&headers) };
    let tokens = app.oauth.token(&call, &form, &waiting).await?;
    let mut answer = json!({
        "access_token": tokens.access.expose(),
        "token_type": if tokens.bound { "DPoP" } else { "Bearer" },
        "scope": tokens.scope.as_str(),
        "expires_in": tokens.expires_in,
        "sub": tokens.sub,
    });
    if let (Some(refresh), Some(members)) = (tokens.refresh, answer.as_object_mut()) {
        members.insert("refresh_token".to_owned(), refresh.expose().as_str().into());
    }
    Ok(Json(answer))
}
