//! `com.atproto.server.requestPasswordReset`, `resetPassword`

use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;

use crate::app::App;
use crate::base::Secret;
use crate::http::XrpcInput;
use crate::http::language::language;
use crate::http::method::method;
use crate::limits::{Limit, address, code_for};
use crate::mail::Reason;
use crate::wire::ClientAddr;
use crate::wire::error::XrpcError;
use crate::wire::rate_limit::check_rate_limit;

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

/// Limits, answer and time do not depend on whether an account has the address, so that no one can
/// find out.
pub(crate) async fn request_password_reset(
    State(app): State<App>,
    from: ClientAddr,
    headers: HeaderMap,
    XrpcInput(input): XrpcInput<RequestInput>,
) -> Result<(), XrpcError> {
    let now = app.clock.now();
    check_rate_limit(app.limits.attempt(&app.db, Limit::PasswordReset, &address(from.0), now).await?, now)?;
    let key = code_for(Reason::ResetPassword.as_str(), &input.email);
    check_rate_limit(app.limits.attempt(&app.db, Limit::RequestMail, &key, now).await?, now)?;
    Ok(app.recovery.request(&input.email, language(&headers)).await?)
}

pub(crate) async fn reset_password(
    State(app): State<App>,
    from: ClientAddr,
    XrpcInput(input): XrpcInput<ResetInput>,
) -> Result<(), XrpcError> {
    let now = app.clock.now();
    check_rate_limit(app.limits.attempt(&app.db, Limit::UseCode, &address(from.0), now).await?, now)?;
    let password = Secret::new(input.password);
    app.sign_ups.rules().check_password(&password).map_err(crate::signup::Error::from)?;
    app.recovery.reset(&input.token, &password).await?;
    Ok(())
}
