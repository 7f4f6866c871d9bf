//! `com.atproto.server.activateAccount`, `deactivateAccount`

use axum::extract::State;
use serde::Deserialize;

use crate::app::App;
use crate::base::Timestamp;
use crate::http::XrpcInput;
use crate::http::caller::Caller;
use crate::http::method::method;
use crate::standing::Deletion;
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

/// Serves clients, apps, and hosts on behalf of either.
///
/// Deactivating can be undone, deleting cannot. Behind a host's call may be any OAuth app with
/// `account:status`, so `deleteAfter` counts only for a full session. Otherwise it is ignored, and
/// a date that the owner set before stays.
pub(crate) async fn deactivate_account(
    State(app): State<App>,
    caller: Caller<DeactivateAccount>,
    XrpcInput(input): XrpcInput<DeactivateInput>,
) -> Result<(), XrpcError> {
    let delete_after = input.delete_after.as_deref().map(parse_time).transpose()?;
    let deletion = if caller.has_full_session() { Deletion::At(delete_after) } else { Deletion::AsBefore };
    Ok(app.standings.deactivate(&caller.account.did, deletion, caller.actor()).await?)
}

fn parse_time(text: &str) -> Result<Timestamp, XrpcError> {
    Timestamp::parse_rfc3339(text).ok_or_else(|| XrpcError::invalid("Input/deleteAfter must be a datetime"))
}
