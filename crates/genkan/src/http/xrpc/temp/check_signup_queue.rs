//! `com.atproto.temp.checkSignupQueue`

use axum::Json;
use serde::Serialize;

use crate::http::caller::Caller;
use crate::http::method::method;
use crate::wire::error::XrpcError;

method!(CheckSignupQueue, "com.atproto.temp.checkSignupQueue");

#[derive(Serialize)]
pub(crate) struct Output {
    activated: bool,
}

/// Answers that the account is activated, because Genkan has no queue.
pub(crate) async fn check_signup_queue(_: Caller<CheckSignupQueue>) -> Result<Json<Output>, XrpcError> {
    Ok(Json(Output { activated: true }))
}
