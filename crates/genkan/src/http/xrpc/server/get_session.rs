//! `com.atproto.server.getSession`

use axum::Json;
use axum::extract::State;

use crate::app::App;
use crate::http::caller::Caller;
use crate::http::method::method;
use crate::http::session_answer::SessionAnswer;
use crate::wire::error::XrpcError;

method!(GetSession, "com.atproto.server.getSession");

pub(crate) async fn get_session(
    State(app): State<App>,
    caller: Caller<GetSession>,
) -> Result<Json<SessionAnswer>, XrpcError> {
    let answer = SessionAnswer::of(&app, &caller.account).await;
    Ok(Json(if caller.sees_email() { answer } else { answer.without_email() }))
}
