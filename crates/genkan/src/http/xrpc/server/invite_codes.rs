//! `com.atproto.server.createInviteCode`, `createInviteCodes`, `getAccountInviteCodes`

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::accounts::{Invite, NewInvites};
use crate::app::App;
use crate::http::admin_auth::Operator;
use crate::http::caller::Caller;
use crate::http::method::method;
use crate::http::{XrpcInput, XrpcQuery};
use crate::wire::error::XrpcError;

method!(CreateInviteCode, "com.atproto.server.createInviteCode");
method!(CreateInviteCodes, "com.atproto.server.createInviteCodes");
method!(GetAccountInviteCodes, "com.atproto.server.getAccountInviteCodes");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateInput {
    use_count: u32,
    for_account: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct CreateOutput {
    code: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateManyInput {
    #[serde(default = "one")]
    code_count: u32,
    use_count: u32,
    #[serde(default)]
    for_accounts: Option<Vec<String>>,
}

#[derive(Serialize)]
pub(crate) struct AccountCodes {
    account: String,
    codes: Vec<String>,
}

#[derive(Serialize)]
pub(crate) struct CreateManyOutput {
    codes: Vec<AccountCodes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListQuery {
    #[serde(default)]
    include_used: Option<bool>,
}

#[derive(Serialize)]
pub(crate) struct ListOutput {
    codes: Vec<InviteView>,
}

/// `com.atproto.server.defs#inviteCode`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InviteView {
    code: String,
    available: u32,
    disabled: bool,
    for_account: String,
    created_by: String,
    created_at: String,
    uses: Vec<UseView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UseView {
    used_by: String,
    used_at: String,
}

impl InviteView {
    pub(crate) async fn of(app: &App, invite: Invite) -> Result<Self, XrpcError> {
        let uses = app.invites.uses_of(&invite.code).await?;
        Ok(Self {
            available: invite.uses,
            disabled: invite.disabled_at.is_some(),
            for_account: invite.for_account,
            created_by: invite.created_by,
            created_at: invite.created_at.rfc3339(),
            uses: uses
                .into_iter()
                .map(|used| UseView { used_by: used.did, used_at: used.used_at.rfc3339() })
                .collect(),
            code: invite.code,
        })
    }
}

pub(crate) async fn create_invite_code(
    State(app): State<App>,
    _: Operator<CreateInviteCode>,
    XrpcInput(input): XrpcInput<CreateInput>,
) -> Result<Json<CreateOutput>, XrpcError> {
    let account = input.for_account.unwrap_or_else(|| "admin".to_owned());
    let mut made = make(&app, &account, 1, input.use_count).await?;
    let code = made.pop().ok_or_else(|| XrpcError::invalid("codeCount must be 1 or more"))?;
    Ok(Json(CreateOutput { code }))
}

pub(crate) async fn create_invite_codes(
    State(app): State<App>,
    _: Operator<CreateInviteCodes>,
    XrpcInput(input): XrpcInput<CreateManyInput>,
) -> Result<Json<CreateManyOutput>, XrpcError> {
    let accounts = input.for_accounts.unwrap_or_else(|| vec!["admin".to_owned()]);
    if accounts.len() > MANY || input.code_count > MANY_CODES {
        return Err(XrpcError::invalid(
            "too many codes at once: at most 1000 accounts and 100 codes for each",
        ));
    }
    let mut codes = Vec::with_capacity(accounts.len());
    for account in accounts {
        let made = make(&app, &account, input.code_count, input.use_count).await?;
        codes.push(AccountCodes { account, codes: made });
    }
    Ok(Json(CreateManyOutput { codes }))
}

/// Lists the codes made for the caller. Accounts earn no codes at Genkan, so `createAvailable` has
/// no effect.
pub(crate) async fn get_account_invite_codes(
    State(app): State<App>,
    caller: Caller<GetAccountInviteCodes>,
    XrpcQuery(query): XrpcQuery<ListQuery>,
) -> Result<Json<ListOutput>, XrpcError> {
    let include_used = query.include_used.unwrap_or(true);
    let mut codes = Vec::new();
    for invite in app.invites.of_account(caller.account.did.as_str()).await? {
        if include_used || invite.left > 0 {
            codes.push(InviteView::of(&app, invite).await?);
        }
    }
    Ok(Json(ListOutput { codes }))
}

async fn make(app: &App, account: &str, codes: u32, uses: u32) -> Result<Vec<String>, XrpcError> {
    if uses == 0 {
        return Err(XrpcError::invalid("useCount must be 1 or more"));
    }
    let new = NewInvites { for_account: account, created_by: "admin", count: codes, uses };
    Ok(app.invites.create(new).await?.into_iter().map(|invite| invite.code).collect())
}

const fn one() -> u32 {
    1
}

const MANY: usize = 1000;
const MANY_CODES: u32 = 100;
