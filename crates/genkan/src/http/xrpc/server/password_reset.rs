//! `com.atproto.server.requestPasswordReset`, `resetPassword`

use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;

use crate::app::App;
use crate::base::Secret;
use crate::http::XrpcInput;
use crate::http::deadline::Waiting;
use crate::http::language::language;
use crate::http::method::method;
use crate::limits::{Limit, code_for};
use crate::mail::Reason;
use crate::wire::AccountClient;
use crate::wire::error::XrpcError;

method!(RequestPasswordReset, "com.atproto.server.requestPasswordReset");
method!(ResetPassword, "com.atproto.server.resetPassword");

#[derive(Deserialize)]
pub(crate) struct RequestInput {
    email: String,
}

#[derive(Deserialize)]
pub(crate) struct ResetInput {
    token: String,
    password: String,
}

/// Sends a code to reset the password. Limits, answer and time do not show whether an account has
/// the address.
pub(crate) async fn request_password_reset(
    State(app): State<App>,
    from: AccountClient,
    headers: HeaderMap,
    XrpcInput(input): XrpcInput<RequestInput>,
) -> Result<(), XrpcError> {
    app.count_attempt_of(&from, (Limit::PasswordReset, Limit::PasswordResetAtHost)).await?;
    let key = code_for(Reason::ResetPassword.as_str(), &input.email);
    app.count_attempt(Limit::RequestMail, &key).await?;
    Ok(app.recovery.request(&input.email, language(&headers)).await?)
}

pub(crate) async fn reset_password(
    State(app): State<App>,
    from: AccountClient,
    Waiting(client): Waiting,
    XrpcInput(input): XrpcInput<ResetInput>,
) -> Result<(), XrpcError> {
    app.count_attempt_of(&from, (Limit::UseCode, Limit::UseCodeAtHost)).await?;
    let password = Secret::new(input.password);
    app.sign_ups.rules().check_password(&password).map_err(crate::signup::Error::from)?;
    app.recovery.reset(&input.token, &password, &client).await?;
    Ok(())
}
