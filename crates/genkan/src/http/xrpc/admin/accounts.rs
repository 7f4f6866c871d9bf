//! `com.atproto.admin.getAccountInfo`, `getAccountInfos`, `updateAccountEmail`,
//! `updateAccountPassword`, `deleteAccount`

use axum::Json;
use axum::extract::State;
use genkan_protocol::syntax::{AtIdentifier, Did};
use serde::{Deserialize, Serialize};

use crate::accounts::{Account, Email, Requester};
use crate::app::App;
use crate::base::Secret;
use crate::db::audit::Actor;
use crate::http::admin_auth::{AdminPassword, Operator};
use crate::http::method::method;
use crate::http::{XrpcInput, XrpcQuery};
use crate::wire::error::bad_request;
use crate::wire::{XrpcError, messages};

method!(GetAccountInfo, "com.atproto.admin.getAccountInfo");
method!(GetAccountInfos, "com.atproto.admin.getAccountInfos");
method!(UpdateAccountEmail, "com.atproto.admin.updateAccountEmail");
method!(UpdateAccountPassword, "com.atproto.admin.updateAccountPassword");
method!(DeleteAccount, "com.atproto.admin.deleteAccount");

#[derive(Deserialize)]
pub(crate) struct OneDid {
    did: Did,
}

#[derive(Deserialize)]
pub(crate) struct ManyDids {
    #[serde(default)]
    dids: Vec<Did>,
}

/// `com.atproto.admin.defs#accountView`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccountView {
    did: String,
    handle: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    indexed_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    email_confirmed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deactivated_at: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Infos {
    infos: Vec<AccountView>,
}

#[derive(Deserialize)]
pub(crate) struct EmailInput {
    account: AtIdentifier,
    email: String,
}

#[derive(Deserialize)]
pub(crate) struct PasswordInput {
    did: Did,
    password: String,
}

pub(crate) async fn get_account_info(
    State(app): State<App>,
    _: Operator<GetAccountInfo>,
    XrpcQuery(query): XrpcQuery<OneDid>,
) -> Result<Json<AccountView>, XrpcError> {
    Ok(Json(view(known(&app, &query.did).await?)))
}

pub(crate) async fn get_account_infos(
    State(app): State<App>,
    _: Operator<GetAccountInfos>,
    XrpcQuery(query): XrpcQuery<ManyDids>,
) -> Result<Json<Infos>, XrpcError> {
    let mut infos = Vec::new();
    for did in query.dids.iter().take(MANY) {
        if let Some(account) = app.accounts.find(did).await? {
            infos.push(view(account));
        }
    }
    Ok(Json(Infos { infos }))
}

/// Serves the operator, and hosts that pass their operator's call on.
pub(crate) async fn update_account_email(
    State(app): State<App>,
    admin: AdminPassword<UpdateAccountEmail>,
    XrpcInput(input): XrpcInput<EmailInput>,
) -> Result<(), XrpcError> {
    let account = app.accounts.find_by_identifier(input.account.as_str()).await?;
    let (account, by) = admin.unlock(&app, account)?;
    let email: Email =
        input.email.parse().map_err(|_| XrpcError::invalid("Input/email must be an e-mail address"))?;
    Ok(app.accounts.set_email(&account.did, &email, by.actor(&account)).await?)
}

/// Serves the operator, and hosts that pass their operator's call on. Ends every session of the
/// account.
pub(crate) async fn update_account_password(
    State(app): State<App>,
    admin: AdminPassword<UpdateAccountPassword>,
    XrpcInput(input): XrpcInput<PasswordInput>,
) -> Result<(), XrpcError> {
    let account = app.accounts.find(&input.did).await?;
    let (account, by) = admin.unlock(&app, account)?;
    let password = Secret::new(input.password);
    app.sign_ups.rules().check_password(&password).map_err(crate::signup::Error::from)?;
    let hash = app.passwords.hash(&password, Requester::TRUSTED).await.map_err(crate::signup::Error::from)?;
    Ok(app.standings.set_password_hash(&account.did, hash.expose(), by.actor(&account)).await?)
}

pub(crate) async fn delete_account(
    State(app): State<App>,
    _: Operator<DeleteAccount>,
    XrpcInput(input): XrpcInput<OneDid>,
) -> Result<(), XrpcError> {
    Ok(app.standings.delete(&input.did, Actor::Operator).await?)
}

async fn known(app: &App, did: &Did) -> Result<Account, XrpcError> {
    app.accounts.find(did).await?.ok_or_else(not_found)
}

fn not_found() -> XrpcError {
    bad_request("NotFound", messages::ACCOUNT_NOT_FOUND)
}

fn view(account: Account) -> AccountView {
    AccountView {
        did: account.did.to_string(),
        handle: account.handle.to_string(),
        email: account.email,
        indexed_at: account.created_at.rfc3339(),
        email_confirmed_at: account.email_confirmed_at.map(crate::base::Timestamp::rfc3339),
        deactivated_at: account.deactivated_at.map(crate::base::Timestamp::rfc3339),
    }
}

const MANY: usize = 100;
