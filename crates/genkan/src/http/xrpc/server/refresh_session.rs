//! `com.atproto.server.refreshSession`

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;

use crate::app::App;
use crate::http::caller::bearer;
use crate::http::error::XrpcError;
use crate::http::session_answer::SessionAnswer;

/// From clients, and from hosts that pass a client's token on.
pub(crate) async fn refresh_session(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Json<SessionAnswer>, XrpcError> {
    let opened = app.sessions.refresh(bearer(&headers)?).await?;
    Ok(Json(SessionAnswer::opened(&app, opened).await))
}
