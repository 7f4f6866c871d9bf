//! `com.atproto.server.requestEmailConfirmation`, `confirmEmail`

use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;

use crate::app::App;
use crate::http::XrpcInput;
use crate::http::caller::Caller;
use crate::http::deadline::Waiting;
use crate::http::language::language;
use crate::http::method::method;
use crate::limits::{Limit, code_for};
use crate::mail::Reason;
use crate::wire::error::XrpcError;

method!(RequestEmailConfirmation, "com.atproto.server.requestEmailConfirmation");
method!(ConfirmEmail, "com.atproto.server.confirmEmail");

#[derive(Deserialize)]
pub(crate) struct ConfirmInput {
    email: String,
    token: String,
}

pub(crate) async fn request_email_confirmation(
    State(app): State<App>,
    caller: Caller<RequestEmailConfirmation>,
    headers: HeaderMap,
) -> Result<(), XrpcError> {
    let key = code_for(Reason::ConfirmEmail.as_str(), caller.account.did.as_str());
    app.count_attempt(Limit::RequestMail, &key).await?;
    Ok(app.emails.send_code(&caller.account, Reason::ConfirmEmail, language(&headers)).await?)
}

pub(crate) async fn confirm_email(
    State(app): State<App>,
    caller: Caller<ConfirmEmail>,
    Waiting(client): Waiting,
    XrpcInput(input): XrpcInput<ConfirmInput>,
) -> Result<(), XrpcError> {
    Ok(app.emails.confirm(&caller.account, &input.email, &input.token, caller.actor(), &client).await?)
}
