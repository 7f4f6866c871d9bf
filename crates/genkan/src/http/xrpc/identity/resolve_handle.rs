//! `com.atproto.identity.resolveHandle`

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use genkan_protocol::syntax::{Did, Handle};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::accounts::Standing;
use crate::app::App;
use crate::http::XrpcQuery;
use crate::http::method::method;
use crate::identity::Freshness;
use crate::limits::ClientNetwork;
use crate::wire::error::bad_request;
use crate::wire::{AccountClient, XrpcError, messages};

method!(ResolveHandle, "com.atproto.identity.resolveHandle");

#[derive(Deserialize)]
pub(crate) struct Query {
    handle: Handle,
}

/// Resolves handles of accounts from Genkan's own records, and other names by DNS and HTTP.
///
/// Names under Genkan's own domains are never looked up in DNS or at another server, because only
/// Genkan gives them out.
pub(crate) async fn resolve_handle(
    State(app): State<App>,
    client: AccountClient,
    XrpcQuery(Query { handle }): XrpcQuery<Query>,
) -> Result<Json<Value>, XrpcError> {
    let did = match app.accounts.account_hosts().find_by_handle(handle.as_str()).await? {
        Some(home) if home.standing != Standing::TakenDown => home.did.clone(),
        _ => resolve_external(&app, &handle, client.said()).await?,
    };
    Ok(Json(json!({ "did": did })))
}

async fn resolve_external(app: &App, handle: &Handle, client: IpAddr) -> Result<Did, XrpcError> {
    let policy = &app.sign_ups.rules().handles;
    if policy.is_service_handle(handle) {
        return Err(bad_request("HandleNotFound", messages::HANDLE_UNRESOLVED));
    }
    // Anyone may ask, so the lookups of one client leave places to others.
    let handles = app.identity.handles.caused_by(ClientNetwork::of(client));
    let found = handles.resolve(handle, Freshness::Remembered).await;
    found.map_err(|_| XrpcError::invalid(messages::HANDLE_UNRESOLVED))
}
