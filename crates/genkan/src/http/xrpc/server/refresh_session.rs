//! `com.atproto.server.refreshSession`

use axum::Json;
use axum::extract::State;

use crate::app::App;
use crate::http::caller::RefreshToken;
use crate::http::method::method;
use crate::http::session_answer::SessionAnswer;
use crate::wire::error::XrpcError;

method!(RefreshSession, "com.atproto.server.refreshSession");

/// Serves clients, and hosts that pass a client's token on.
pub(crate) async fn refresh_session(
    State(app): State<App>,
    RefreshToken { token, .. }: RefreshToken<RefreshSession>,
) -> Result<Json<SessionAnswer>, XrpcError> {
    let opened = app.sessions.refresh(token.expose()).await?;
    Ok(Json(SessionAnswer::opened(&app, opened).await))
}
