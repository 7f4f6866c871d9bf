//! `com.atproto.server.requestEmailUpdate`, `updateEmail`

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::accounts::Email;
use crate::app::App;
use crate::http::XrpcInput;
use crate::http::caller::Caller;
use crate::http::deadline::Waiting;
use crate::http::language::language;
use crate::http::method::method;
use crate::limits::{Limit, code_for};
use crate::mail::Reason;
use crate::wire::{XrpcError, messages};

method!(RequestEmailUpdate, "com.atproto.server.requestEmailUpdate");
method!(UpdateEmail, "com.atproto.server.updateEmail");

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RequestOutput {
    token_required: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UpdateInput {
    email: String,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    email_auth_factor: Option<bool>,
}

pub(crate) async fn request_email_update(
    State(app): State<App>,
    caller: Caller<RequestEmailUpdate>,
    headers: HeaderMap,
) -> Result<Json<RequestOutput>, XrpcError> {
    let key = code_for(Reason::UpdateEmail.as_str(), caller.account.did.as_str());
    app.count_attempt(Limit::RequestMail, &key).await?;
    let token_required = app.emails.request_update(&caller.account, language(&headers)).await?;
    Ok(Json(RequestOutput { token_required }))
}

pub(crate) async fn update_email(
    State(app): State<App>,
    caller: Caller<UpdateEmail>,
    Waiting(client): Waiting,
    XrpcInput(input): XrpcInput<UpdateInput>,
) -> Result<(), XrpcError> {
    if input.email_auth_factor == Some(true) {
        // If Genkan accepted this and did nothing, people would believe that a second factor
        // protects them.
        return Err(XrpcError::invalid("sign-in with a second factor by e-mail is not supported"));
    }
    let email: Email = input.email.parse().map_err(|_| XrpcError::invalid(messages::EMAIL_UNSUPPORTED))?;
    app.sign_ups.rules().check_email(&email).map_err(crate::signup::Error::from)?;
    let token = input.token.as_deref().filter(|token| !token.is_empty());
    Ok(app.emails.update(&caller.account, &email, token, caller.actor(), &client).await?)
}
