//! `com.atproto.admin.disableInviteCodes`, `getInviteCodes`

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::http::admin_auth::Operator;
use crate::http::method::method;
use crate::http::xrpc::server::invite_codes::InviteView;
use crate::http::{XrpcInput, XrpcQuery};
use crate::wire::error::XrpcError;

method!(DisableInviteCodes, "com.atproto.admin.disableInviteCodes");
method!(GetInviteCodes, "com.atproto.admin.getInviteCodes");

#[derive(Deserialize)]
pub(crate) struct DisableInput {
    #[serde(default)]
    codes: Vec<String>,
    #[serde(default)]
    accounts: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    limit: Option<u32>,
}

#[derive(Serialize)]
pub(crate) struct ListOutput {
    codes: Vec<InviteView>,
}

pub(crate) async fn disable_invite_codes(
    State(app): State<App>,
    _: Operator<DisableInviteCodes>,
    XrpcInput(input): XrpcInput<DisableInput>,
) -> Result<(), XrpcError> {
    if input.accounts.iter().any(|account| account == "admin") {
        return Err(XrpcError::invalid("the operator's invite codes cannot be disabled all at once"));
    }
    Ok(app.invites.disable_all(&input.codes, &input.accounts).await?)
}

pub(crate) async fn get_invite_codes(
    State(app): State<App>,
    _: Operator<GetInviteCodes>,
    XrpcQuery(query): XrpcQuery<ListQuery>,
) -> Result<Json<ListOutput>, XrpcError> {
    let limit = i64::from(query.limit.unwrap_or(100).clamp(1, 500));
    let mut codes = Vec::new();
    for invite in app.invites.list(limit).await? {
        codes.push(InviteView::of(&app, invite).await?);
    }
    Ok(Json(ListOutput { codes }))
}
