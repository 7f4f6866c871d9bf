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

/// There is no queue: who has an account is in.
pub(crate) async fn check_signup_queue(_: Caller<CheckSignupQueue>) -> Result<Json<Output>, XrpcError> {
    Ok(Json(Output { activated: true }))
}
