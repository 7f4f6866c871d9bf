//! Activating a deactivated account.

use http::StatusCode;

use super::owner::at_home;
use super::page::{AccountForm, again};
use crate::db::audit::Actor;
use crate::http::pages::Pages;
use crate::http::pages::call::{Call, Form};
use crate::http::pages::frame::Note;
use crate::http::pages::messages::Messages;
use crate::http::pages::reply::Reply;
use crate::http::pages::trouble::Trouble;
use crate::standing;

/// Handles the form with which the owner reactivates an account.
pub(in crate::http::pages) async fn reactivate(
    pages: Pages,
    call: Call,
    form: Form,
) -> Result<Reply, Trouble> {
    let (visit, one) = at_home(&pages, &call, &form).await?;
    let did = &one.account.did;
    match pages.app.standings.activate(did, Actor::Account(did)).await {
        Ok(()) => pages.see_other(&format!("/account/u/{did}?done=activated")),
        Err(standing::Error::Storage(cause)) => Err(cause.into()),
        Err(cause) => {
            tracing::warn!(account.did = %did, cause = %cause, "an account could not be activated");
            let note = Note::new("", Messages::of(call.jar.language()).reactivate_failed);
            let shown = AccountForm {
                step: String::new(),
                typed: String::new(),
                status: StatusCode::BAD_GATEWAY,
                problems: vec![note],
            };
            again(&pages, &call, &visit, did.as_str(), shown).await
        }
    }
}
