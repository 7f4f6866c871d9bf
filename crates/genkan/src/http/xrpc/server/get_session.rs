//! `com.atproto.server.getSession`

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;

use crate::app::App;
use crate::http::caller::{Needs, STANDARD_QUEUED, caller};
use crate::http::error::XrpcError;
use crate::http::session_answer::SessionAnswer;

const NEEDS: Needs = Needs {
    method: "com.atproto.server.getSession",
    scopes: STANDARD_QUEUED,
    from_hosts: true,
    standing: true,
};

pub(crate) async fn get_session(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Json<SessionAnswer>, XrpcError> {
    let caller = caller(&app, &headers, NEEDS).await?;
    let answer = SessionAnswer::of(&app, &caller.account).await;
    Ok(Json(if caller.sees_email() { answer } else { answer.without_email() }))
}
