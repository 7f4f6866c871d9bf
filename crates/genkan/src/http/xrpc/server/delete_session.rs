//! `com.atproto.server.deleteSession`

use axum::extract::State;
use axum::http::HeaderMap;

use crate::app::App;
use crate::http::caller::bearer;
use crate::http::error::XrpcError;

/// Takes the refresh token, however old.
pub(crate) async fn delete_session(State(app): State<App>, headers: HeaderMap) -> Result<(), XrpcError> {
    Ok(app.sessions.end(bearer(&headers)?).await?)
}
