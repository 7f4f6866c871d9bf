//! `com.atproto.server.createAppPassword`, `listAppPasswords`, `revokeAppPassword`

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::accounts::AppPassword;
use crate::app::App;
use crate::http::XrpcInput;
use crate::http::caller::Caller;
use crate::http::deadline::Waiting;
use crate::http::method::method;
use crate::wire::error::XrpcError;

method!(CreateAppPassword, "com.atproto.server.createAppPassword");
method!(ListAppPasswords, "com.atproto.server.listAppPasswords");
method!(RevokeAppPassword, "com.atproto.server.revokeAppPassword");

#[derive(Deserialize)]
pub(crate) struct CreateInput {
    name: String,
    #[serde(default)]
    privileged: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateOutput {
    name: String,
    password: String,
    created_at: String,
    privileged: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppPasswordView {
    name: String,
    created_at: String,
    privileged: bool,
}

#[derive(Serialize)]
pub(crate) struct ListOutput {
    passwords: Vec<AppPasswordView>,
}

#[derive(Deserialize)]
pub(crate) struct RevokeInput {
    name: String,
}

pub(crate) async fn create_app_password(
    State(app): State<App>,
    caller: Caller<CreateAppPassword>,
    Waiting(client): Waiting,
    XrpcInput(input): XrpcInput<CreateInput>,
) -> Result<Json<CreateOutput>, XrpcError> {
    let name = input.name.trim().to_owned();
    if name.is_empty() || name.chars().count() > NAME_MOST {
        return Err(XrpcError::invalid("name must have between 1 and 64 characters"));
    }
    let privileged = input.privileged.unwrap_or(false);
    let (did, by) = (&caller.account.did, caller.actor());
    let created = app.app_passwords.create(did, &name, privileged, by, &client).await?;
    let Some((created, password)) = created else {
        return Err(XrpcError::invalid("an app password of this name already exists"));
    };
    Ok(Json(CreateOutput {
        name: created.name,
        password: password.expose().clone(),
        created_at: created.created_at.rfc3339(),
        privileged,
    }))
}

pub(crate) async fn list_app_passwords(
    State(app): State<App>,
    caller: Caller<ListAppPasswords>,
) -> Result<Json<ListOutput>, XrpcError> {
    let passwords = app.app_passwords.list(&caller.account.did).await?;
    Ok(Json(ListOutput { passwords: passwords.into_iter().map(listed).collect() }))
}

/// Revokes an app password, and ends the sessions that were opened with it.
pub(crate) async fn revoke_app_password(
    State(app): State<App>,
    caller: Caller<RevokeAppPassword>,
    XrpcInput(input): XrpcInput<RevokeInput>,
) -> Result<(), XrpcError> {
    Ok(app.credentials.revoke_app_password(&caller.account.did, &input.name, caller.actor()).await?)
}

fn listed(one: AppPassword) -> AppPasswordView {
    AppPasswordView { name: one.name, created_at: one.created_at.rfc3339(), privileged: one.privileged }
}

const NAME_MOST: usize = 64;
