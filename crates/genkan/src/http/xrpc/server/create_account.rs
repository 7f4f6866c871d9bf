//! `com.atproto.server.createAccount`

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use genkan_protocol::crypto::PublicKey;
use genkan_protocol::syntax::Handle;
use serde::Deserialize;

use crate::accounts::Email;
use crate::app::App;
use crate::base::{Secret, WaitingClient};
use crate::http::XrpcInput;
use crate::http::deadline::Waiting;
use crate::http::method::method;
use crate::http::session_answer::SessionAnswer;
use crate::limits::{Limit, address};
use crate::signup;
use crate::telemetry::metrics::SIGN_UPS;
use crate::wire::ClientAddr;
use crate::wire::error::bad_request;
use crate::wire::{XrpcError, messages};

method!(CreateAccount, "com.atproto.server.createAccount");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Input {
    handle: String,
    email: Option<String>,
    password: Option<String>,
    invite_code: Option<String>,
    recovery_key: Option<String>,
    did: Option<String>,
    plc_op: Option<serde_json::Value>,
}

pub(crate) async fn create_account(
    State(app): State<App>,
    from: ClientAddr,
    Waiting(waiting): Waiting,
    headers: HeaderMap,
    XrpcInput(input): XrpcInput<Input>,
) -> Result<Json<SessionAnswer>, XrpcError> {
    if headers.contains_key(AUTHORIZATION) || input.did.is_some() || input.plc_op.is_some() {
        let text =
            "moving an account here from another server is not supported yet; sign up for a new account";
        return Err(XrpcError::invalid(text));
    }
    // Through a host it is the host's own address: no account lives there yet.
    let request = request(input, from.0, waiting)?;
    app.count_attempt(Limit::CreateAccount, &address(from.0)).await?;
    let opened = app.sign_ups.create(request).await;
    app.metrics.counter(&SIGN_UPS, &[if opened.is_ok() { "done" } else { "refused" }]).increment();
    let opened = opened?;
    Ok(Json(SessionAnswer::opened(&app, opened).await))
}

fn request(input: Input, client: IpAddr, waiting: WaitingClient) -> Result<signup::Request, XrpcError> {
    let invalid = |text: &'static str| XrpcError::invalid(text);
    let handle: Handle = input
        .handle
        .parse()
        .map_err(|_| bad_request("InvalidHandle", "Input/handle must be a valid handle"))?;
    let email = input.email.ok_or_else(|| invalid("Email is required"))?;
    let email: Email = email.parse().map_err(|_| invalid(messages::EMAIL_UNSUPPORTED))?;
    let password = input.password.ok_or_else(|| invalid("Password is required"))?;
    let recovery_key = input
        .recovery_key
        .map(|key| PublicKey::from_did_key(&key).map_err(|_| invalid("recoveryKey must be a did:key")))
        .transpose()?;
    let invite_code = input.invite_code.map(|code| code.trim().to_owned()).filter(|code| !code.is_empty());
    let password = Secret::new(password);
    Ok(signup::Request { handle, email, password, invite_code, recovery_key, client, waiting })
}
