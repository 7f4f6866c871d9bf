//! `com.atproto.admin.sendEmail`

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use genkan_protocol::syntax::Did;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::db::audit::Actor;
use crate::http::XrpcInput;
use crate::http::admin_auth::require_admin;
use crate::http::caller::{Needs, caller};
use crate::http::error::XrpcError;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Input {
    recipient_did: Did,
    /// HTML.
    content: String,
    #[serde(default)]
    subject: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Output {
    sent: bool,
}

/// From the operator, or from the recipient's host in the name of its moderators: signed with the recipient's key.
pub(crate) async fn send_email(
    State(app): State<App>,
    headers: HeaderMap,
    XrpcInput(input): XrpcInput<Input>,
) -> Result<Json<Output>, XrpcError> {
    let subject = input.subject.as_deref();
    if is_bearer(&headers) {
        // No session, whatever its scope: only what the host signs for this method.
        let method = "com.atproto.admin.sendEmail";
        let caller =
            caller(&app, &headers, Needs { method, scopes: &[], from_hosts: true, standing: false }).await?;
        if caller.account.did != input.recipient_did {
            return Err(XrpcError::invalid(
                "Input/recipientDid is not the account that the token speaks for",
            ));
        }
        app.emails.send_message(&caller.account, subject, &input.content, caller.actor()).await?;
    } else {
        require_admin(&app, &headers)?;
        let account = app.accounts.find(input.recipient_did.as_str()).await?;
        let account = account.ok_or_else(|| XrpcError::invalid("Recipient not found"))?;
        app.emails.send_message(&account, subject, &input.content, Actor::Operator).await?;
    }
    Ok(Json(Output { sent: true }))
}

fn is_bearer(headers: &HeaderMap) -> bool {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(' ').next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer"))
}
