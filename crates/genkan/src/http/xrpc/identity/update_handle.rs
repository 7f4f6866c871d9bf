//! `com.atproto.identity.updateHandle`

use axum::extract::State;
use serde::Deserialize;

use crate::app::App;
use crate::http::XrpcInput;
use crate::http::caller::Caller;
use crate::http::method::method;
use crate::limits::Limit;
use crate::wire::error::XrpcError;

method!(UpdateHandle, "com.atproto.identity.updateHandle");

#[derive(Deserialize)]
pub(crate) struct Input {
    handle: String,
    /// The account, which hosts add. The lexicon does not have it.
    did: Option<String>,
}

/// Serves clients with a session, and hosts for a client.
pub(crate) async fn update_handle(
    State(app): State<App>,
    caller: Caller<UpdateHandle>,
    XrpcInput(input): XrpcInput<Input>,
) -> Result<(), XrpcError> {
    let did = caller.account.did.as_str();
    if input.did.as_deref().is_some_and(|named| named != did) {
        return Err(XrpcError::invalid("Input/did must be the DID of the token's account"));
    }
    app.count_attempt(Limit::UpdateHandle, did).await?;
    Ok(app.renames.rename(&caller.account, &input.handle, caller.actor()).await?)
}
