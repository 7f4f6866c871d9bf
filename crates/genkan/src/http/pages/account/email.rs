//! An account's e-mail address on its page: confirming it by a code, and changing it.
//!
//! The address of the page says which form is open, so that it survives a reload. Codes and e-mail
//! addresses are never in it, and a typed code is never shown again. Attempts are counted as they
//! are for clients.

use http::StatusCode;

use super::email_section::{CHANGE, CONFIRM};
use super::owner::at_home;
use super::page::{AccountForm, again};
use crate::accounts::{ClaimError, CodeError, Email, EmailsError};
use crate::db::audit::Actor;
use crate::http::pages::Pages;
use crate::http::pages::call::{Call, Form};
use crate::http::pages::frame::Note;
use crate::http::pages::messages::Messages;
use crate::http::pages::reply::Reply;
use crate::http::pages::trouble::Trouble;
use crate::limits::{Limit, address, code_for};
use crate::mail::Reason;
use crate::signin::{SignIn, Visit};

/// Handles the form that requests a code.
pub(in crate::http::pages) async fn send_code(
    pages: Pages,
    call: Call,
    form: Form,
) -> Result<Reply, Trouble> {
    let (_, one) = at_home(&pages, &call, &form).await?;
    let (account, language) = (&one.account, call.jar.language());
    let (did, step) = (account.did.as_str(), form.text("step"));
    let reason = match step {
        CONFIRM => Reason::ConfirmEmail,
        CHANGE => Reason::UpdateEmail,
        _ => return Err(Trouble::NotFound),
    };
    // By account and purpose, so that no one can fill a mailbox.
    pages.app.count_attempt(Limit::RequestMail, &code_for(reason.as_str(), did)).await?;
    let sent = match reason {
        Reason::UpdateEmail => pages.app.emails.request_update(account, language).await,
        _ => pages.app.emails.send_code(account, reason, language).await.map(|()| true),
    };
    let messages = Messages::of(language);
    match sent {
        Ok(true) => pages.see_other(&format!("/account/u/{did}?step={step}&done=code-sent")),
        Ok(false) => pages.see_other(&format!("/account/u/{did}?step={step}")),
        Err(error) => Err(note_of(error, messages).err().unwrap_or(Trouble::NotFound)),
    }
}

/// Handles the form with the code that confirms the address.
pub(in crate::http::pages) async fn confirm(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let (visit, one) = at_home(&pages, &call, &form).await?;
    let (account, did) = (&one.account, &one.account.did);
    let messages = Messages::of(call.jar.language());
    let code = form.text("code").trim();
    if code.is_empty() {
        let notes = vec![Note::new("code", messages.code_missing)];
        return refused(&pages, &call, &visit, &one, (CONFIRM, ""), notes).await;
    }
    pages.app.count_attempt(Limit::UseCode, &address(call.address)).await?;
    let present = account.email.as_deref().ok_or(Trouble::NotFound)?;
    match pages.app.emails.confirm(account, present, code, Actor::Account(did), &call.client).await {
        Ok(()) => pages.see_other(&format!("/account/u/{did}?done=email-confirmed")),
        Err(error) => {
            let notes = vec![note_of(error, messages)?];
            refused(&pages, &call, &visit, &one, (CONFIRM, ""), notes).await
        }
    }
}

/// Handles the form with a new address, and with the code from the present address if that is
/// confirmed.
pub(in crate::http::pages) async fn change(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let (visit, one) = at_home(&pages, &call, &form).await?;
    let (account, did) = (&one.account, &one.account.did);
    let messages = Messages::of(call.jar.language());
    let (typed, code) = (form.text("email").trim(), form.text("code").trim());
    let mut notes = Vec::new();
    let email: Option<Email> = typed.parse().ok();
    // The rules of sign-up apply: a change must not bring in a blocked domain.
    let email = email.filter(|email| pages.app.sign_ups.rules().check_email(email).is_ok());
    if email.is_none() {
        notes.push(Note::new("email", messages.email_invalid));
    }
    if account.email_confirmed_at.is_some() && code.is_empty() {
        notes.push(Note::new("code", messages.code_missing));
    }
    let Some(email) = email.filter(|_| notes.is_empty()) else {
        return refused(&pages, &call, &visit, &one, (CHANGE, typed), notes).await;
    };
    pages.app.count_attempt(Limit::UseCode, &address(call.address)).await?;
    let code = (!code.is_empty()).then_some(code);
    match pages.app.emails.update(account, &email, code, Actor::Account(did), &call.client).await {
        Ok(()) => pages.see_other(&format!("/account/u/{did}?done=email-changed")),
        Err(error) => {
            let notes = vec![note_of(error, messages)?];
            refused(&pages, &call, &visit, &one, (CHANGE, typed), notes).await
        }
    }
}

async fn refused(
    pages: &Pages,
    call: &Call,
    visit: &Visit,
    one: &SignIn,
    (step, typed): (&str, &str),
    problems: Vec<Note>,
) -> Result<Reply, Trouble> {
    let (step, typed) = (step.to_owned(), typed.to_owned());
    let shown = AccountForm { step, typed, status: StatusCode::BAD_REQUEST, problems };
    again(pages, call, visit, one.account.did.as_str(), shown).await
}

/// Returns the note for the form, or the problem that replaces the page. Forms that cannot work are
/// not shown.
fn note_of(error: EmailsError, messages: &Messages) -> Result<Note, Trouble> {
    match error {
        EmailsError::Code(CodeError::Invalid | CodeError::Expired) => {
            Ok(Note::new("code", messages.code_wrong))
        }
        EmailsError::CodeRequired => Ok(Note::new("code", messages.code_missing)),
        EmailsError::Address(ClaimError::Taken) => Ok(Note::new("email", messages.email_used)),
        // The page shows no such form in these cases.
        EmailsError::Off | EmailsError::NoAddress => Err(Trouble::NotFound),
        EmailsError::Address(ClaimError::NotFound) => Err(Trouble::NotSignedIn),
        EmailsError::Code(CodeError::Storage(cause))
        | EmailsError::Address(ClaimError::Storage(cause))
        | EmailsError::Storage(cause) => Err(cause.into()),
        other @ EmailsError::OtherAddress => Err(Trouble::Bug(Box::new(other))),
    }
}
