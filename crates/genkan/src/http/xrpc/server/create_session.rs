//! `com.atproto.server.createSession`

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use crate::app::App;
use crate::base::Secret;
use crate::http::XrpcInput;
use crate::http::method::method;
use crate::http::session_answer::SessionAnswer;
use crate::limits::{Limit, account_and_address};
use crate::telemetry::metrics::SIGN_INS;
use crate::wire::ClientAddr;
use crate::wire::error::XrpcError;

method!(CreateSession, "com.atproto.server.createSession");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Input {
    identifier: String,
    password: String,
    #[serde(default)]
    allow_takendown: Option<bool>,
}

pub(crate) async fn create_session(
    State(app): State<App>,
    from: ClientAddr,
    XrpcInput(input): XrpcInput<Input>,
) -> Result<Json<SessionAnswer>, XrpcError> {
    let account = app.accounts.find_by_identifier(&input.identifier).await?;
    let key = account_and_address(account.as_ref().map(|it| it.did.as_str()), &input.identifier, from.0);
    app.count_attempt(Limit::CreateSession, &key).await?;
    let password = Secret::new(input.password);
    let opened =
        app.sessions.open(&input.identifier, &password, input.allow_takendown.unwrap_or(false)).await;
    app.metrics.counter(&SIGN_INS, &[if opened.is_ok() { "done" } else { "refused" }]).increment();
    let opened = opened?;
    Ok(Json(SessionAnswer::opened(&app, opened).await))
}
