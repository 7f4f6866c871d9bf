//! `com.atproto.server.deleteSession`

use axum::extract::State;

use crate::app::App;
use crate::http::caller::RefreshToken;
use crate::http::method::method;
use crate::wire::error::XrpcError;

method!(DeleteSession, "com.atproto.server.deleteSession");

/// Ends a session by its refresh token, even if the token has expired.
pub(crate) async fn delete_session(
    State(app): State<App>,
    RefreshToken { token, .. }: RefreshToken<DeleteSession>,
) -> Result<(), XrpcError> {
    Ok(app.sessions.end(token.expose()).await?)
}
