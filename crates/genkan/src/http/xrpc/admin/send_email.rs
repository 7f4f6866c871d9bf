//! `com.atproto.admin.sendEmail`

use axum::Json;
use axum::extract::State;
use genkan_protocol::syntax::Did;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::db::audit::Actor;
use crate::http::XrpcInput;
use crate::http::admin_auth::OperatorOrAccount;
use crate::http::method::method;
use crate::wire::error::XrpcError;

method!(SendEmail, "com.atproto.admin.sendEmail");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Input {
    recipient_did: Did,
    /// The body of the e-mail, as HTML.
    content: String,
    #[serde(default)]
    subject: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Output {
    sent: bool,
}

/// Serves the operator, and the recipient's host for its moderators. The host's call is signed with
/// the recipient's key.
pub(crate) async fn send_email(
    State(app): State<App>,
    caller: OperatorOrAccount<SendEmail>,
    XrpcInput(input): XrpcInput<Input>,
) -> Result<Json<Output>, XrpcError> {
    let subject = input.subject.as_deref();
    match caller {
        OperatorOrAccount::Account(caller) => {
            if caller.account.did != input.recipient_did {
                let message = "Input/recipientDid must be the DID of the token's account";
                return Err(XrpcError::invalid(message));
            }
            app.emails.send_message(&caller.account, subject, &input.content, caller.actor()).await?;
        }
        OperatorOrAccount::Operator => {
            let account = app.accounts.find(&input.recipient_did).await?;
            let account = account.ok_or_else(|| XrpcError::invalid("Recipient not found"))?;
            app.emails.send_message(&account, subject, &input.content, Actor::Operator).await?;
        }
    }
    Ok(Json(Output { sent: true }))
}
