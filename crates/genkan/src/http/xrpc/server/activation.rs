//! `com.atproto.server.activateAccount`, `deactivateAccount`

use axum::extract::State;
use serde::Deserialize;

use crate::app::App;
use crate::base::Timestamp;
use crate::http::XrpcInput;
use crate::http::caller::Caller;
use crate::http::method::method;
use crate::wire::error::XrpcError;

method!(ActivateAccount, "com.atproto.server.activateAccount");
method!(DeactivateAccount, "com.atproto.server.deactivateAccount");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeactivateInput {
    #[serde(default)]
    delete_after: Option<String>,
}

/// Serves clients, and hosts that pass a client's token on. The account is activated at its host
/// from here.
pub(crate) async fn activate_account(
    State(app): State<App>,
    caller: Caller<ActivateAccount>,
) -> Result<(), XrpcError> {
    Ok(app.standings.activate(&caller.account.did, caller.actor()).await?)
}

pub(crate) async fn deactivate_account(
    State(app): State<App>,
    caller: Caller<DeactivateAccount>,
    XrpcInput(input): XrpcInput<DeactivateInput>,
) -> Result<(), XrpcError> {
    let delete_after = input.delete_after.as_deref().map(parse_time).transpose()?;
    Ok(app.standings.deactivate(&caller.account.did, delete_after, caller.actor()).await?)
}

fn parse_time(text: &str) -> Result<Timestamp, XrpcError> {
    Timestamp::parse_rfc3339(text).ok_or_else(|| XrpcError::invalid("Input/deleteAfter must be a datetime"))
}
