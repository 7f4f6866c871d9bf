//! `com.atproto.temp.checkSignupQueue`

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Serialize;

use crate::app::App;
use crate::http::caller::{Needs, STANDARD_QUEUED, caller};
use crate::http::error::XrpcError;

#[derive(Serialize)]
pub(crate) struct Output {
    activated: bool,
}

/// There is no queue: who has an account is in.
pub(crate) async fn check_signup_queue(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Json<Output>, XrpcError> {
    let method = "com.atproto.temp.checkSignupQueue";
    caller(&app, &headers, Needs { method, scopes: STANDARD_QUEUED, from_hosts: false, standing: true })
        .await?;
    Ok(Json(Output { activated: true }))
}
