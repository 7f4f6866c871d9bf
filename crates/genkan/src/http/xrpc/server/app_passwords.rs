//! `com.atproto.server.createAppPassword`, `listAppPasswords`, `revokeAppPassword`

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::accounts::app_password::{self, AppPassword};
use crate::app::App;
use crate::db::audit;
use crate::http::XrpcInput;
use crate::http::caller::Caller;
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
pub(crate) struct Listed {
    name: String,
    created_at: String,
    privileged: bool,
}

#[derive(Serialize)]
pub(crate) struct ListOutput {
    passwords: Vec<Listed>,
}

#[derive(Deserialize)]
pub(crate) struct RevokeInput {
    name: String,
}

pub(crate) async fn create_app_password(
    State(app): State<App>,
    caller: Caller<CreateAppPassword>,
    XrpcInput(input): XrpcInput<CreateInput>,
) -> Result<Json<CreateOutput>, XrpcError> {
    let name = input.name.trim().to_owned();
    if name.is_empty() || name.chars().count() > NAME_MOST {
        return Err(XrpcError::invalid("name must have between 1 and 64 characters"));
    }
    let (did, now, privileged) =
        (caller.account.did.as_str(), app.clock.now(), input.privileged.unwrap_or(false));
    let mut tx = app.db.begin().await?;
    let Some(password) = app_password::create(&mut tx, did, &name, privileged, now).await? else {
        return Err(XrpcError::invalid("an app password of this name already exists"));
    };
    audit::record(&mut tx, now, caller.actor(), "app_password.create", did, &name).await?;
    tx.commit().await?;
    Ok(Json(CreateOutput {
        name,
        password: password.expose().clone(),
        created_at: now.rfc3339(),
        privileged,
    }))
}

pub(crate) async fn list_app_passwords(
    State(app): State<App>,
    caller: Caller<ListAppPasswords>,
) -> Result<Json<ListOutput>, XrpcError> {
    let passwords = app_password::list(&app.db, caller.account.did.as_str()).await?;
    Ok(Json(ListOutput { passwords: passwords.into_iter().map(listed).collect() }))
}

/// Ends the sessions that were opened with it, too.
pub(crate) async fn revoke_app_password(
    State(app): State<App>,
    caller: Caller<RevokeAppPassword>,
    XrpcInput(input): XrpcInput<RevokeInput>,
) -> Result<(), XrpcError> {
    let (did, now) = (caller.account.did.as_str(), app.clock.now());
    let mut tx = app.db.begin().await?;
    app_password::remove(&mut tx, did, &input.name).await?;
    let ended = app.sessions.end_of_app_password(&mut tx, did, &input.name).await?;
    audit::record(&mut tx, now, caller.actor(), "app_password.revoke", did, &input.name).await?;
    tx.commit().await?;
    app.sessions.tell_ended(&ended);
    Ok(())
}

fn listed(one: AppPassword) -> Listed {
    Listed { name: one.name, created_at: one.created_at.rfc3339(), privileged: one.privileged }
}

const NAME_MOST: usize = 64;
