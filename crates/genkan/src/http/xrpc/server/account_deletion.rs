//! `com.atproto.server.requestAccountDelete`, `deleteAccount`

use axum::extract::State;
use axum::http::HeaderMap;
use genkan_protocol::syntax::Did;
use serde::Deserialize;

use crate::accounts::{CodeError, EmailsError};
use crate::app::App;
use crate::base::Secret;
use crate::db::audit::Actor;
use crate::http::XrpcInput;
use crate::http::caller::Caller;
use crate::http::language::language;
use crate::http::method::method;
use crate::limits::{Limit, address, code_for};
use crate::mail::Reason;
use crate::signin::Attempt;
use crate::wire::AccountClient;
use crate::wire::error::unauthorized;
use crate::wire::{XrpcError, messages};

method!(RequestAccountDelete, "com.atproto.server.requestAccountDelete");
method!(DeleteAccount, "com.atproto.server.deleteAccount");

#[derive(Deserialize)]
pub(crate) struct DeleteInput {
    did: Did,
    password: String,
    token: String,
}

pub(crate) async fn request_account_delete(
    State(app): State<App>,
    caller: Caller<RequestAccountDelete>,
    headers: HeaderMap,
) -> Result<(), XrpcError> {
    let key = code_for(Reason::DeleteAccount.as_str(), caller.account.did.as_str());
    app.count_attempt(Limit::RequestMail, &key).await?;
    Ok(app.emails.send_code(&caller.account, Reason::DeleteAccount, language(&headers)).await?)
}

/// Deletes an account by its password and an e-mailed code, without a session.
///
/// A deletion that the host has not finished can be repeated, because the code is deleted with the
/// account and not before. A repeated request takes the deletion up again and waits for its end.
pub(crate) async fn delete_account(
    State(app): State<App>,
    from: AccountClient,
    XrpcInput(input): XrpcInput<DeleteInput>,
) -> Result<(), XrpcError> {
    let account = app.accounts.find_to_delete(&input.did).await?;
    let client = from.address(account.as_ref().map(|account| account.host.as_str()));
    app.count_attempt(Limit::UseCode, &address(client)).await?;
    // A wrong password counts as one at sign-in. Otherwise guesses could go on here.
    let attempt =
        Attempt { account: account.as_ref(), identifier: input.did.as_str(), client, browser: None };
    let admitted = app.attempts.admit(&attempt).await?;
    let account = account.ok_or_else(|| XrpcError::invalid("account not found"))?;
    let password = Secret::new(input.password);
    if !app.sessions.knows_password(Some(&account), &password, admitted.requester).await? {
        app.attempts.failed(&admitted);
        return Err(unauthorized("AuthenticationRequired", messages::WRONG_DID_OR_PASSWORD));
    }
    if !account.is_open() {
        // A client repeats the request until the account is gone. That uses up no attempt at the
        // password, which was right.
        app.attempts.take_back(&admitted).await?;
        return delete_again(&app, &input.did, &input.token).await;
    }
    let code =
        app.emails.check(&input.did, Reason::DeleteAccount, &input.token).await.map_err(EmailsError::from)?;
    Ok(app.standings.delete(code.did(), Actor::Account(&input.did)).await?)
}

/// Takes up a deletion that is under way. Its code costs no attempt: nothing is left to guess.
async fn delete_again(app: &App, did: &Did, code: &str) -> Result<(), XrpcError> {
    let again = match app.emails.find(Reason::DeleteAccount, code).await {
        Ok(code) if code.did() == did => {
            app.standings.delete(did, Actor::Account(did)).await.map_err(XrpcError::from)
        }
        Ok(_) => Err(CodeError::Invalid.into()),
        Err(cause) => Err(cause.into()),
    };
    match again {
        // The first request has finished the deletion meanwhile, and removed the code.
        Err(_) if app.accounts.find_to_delete(did).await?.is_none() => Ok(()),
        other => other,
    }
}
