//! `com.atproto.server.createSession`

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use crate::app::App;
use crate::base::Secret;
use crate::http::XrpcInput;
use crate::http::method::method;
use crate::http::session_answer::SessionAnswer;
use crate::sessions;
use crate::signin::Attempt;
use crate::telemetry::metrics::SIGN_INS;
use crate::wire::AccountClient;
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
    from: AccountClient,
    XrpcInput(input): XrpcInput<Input>,
) -> Result<Json<SessionAnswer>, XrpcError> {
    let account = app.accounts.find_by_identifier(&input.identifier).await?;
    let client = from.address(account.as_ref().map(|account| account.host.as_str()));
    let (account, identifier) = (account.as_ref(), &*input.identifier);
    let attempt = Attempt { account, identifier, client, browser: None };
    let admitted = app.attempts.admit(&attempt).await?;
    let (password, taken_down) = (Secret::new(input.password), input.allow_takendown.unwrap_or(false));
    let opened = app.sessions.open(identifier, &password, taken_down, admitted.requester).await;
    match &opened {
        Ok(_) => app.attempts.succeeded(&admitted).await,
        Err(sessions::Error::WrongPassword) => app.attempts.failed(&admitted),
        Err(_) => {}
    }
    app.metrics.counter(&SIGN_INS, &[if opened.is_ok() { "done" } else { "refused" }]).increment();
    let opened = opened?;
    Ok(Json(SessionAnswer::opened(&app, opened).await))
}
