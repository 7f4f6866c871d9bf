//! An account's e-mail address on its page: confirming it by a code, and changing it.
//!
//! Which form is open is in the address of the page, so that it survives a reload; codes and e-mail addresses
//! never are, and a code that was typed is never shown again. What counts as an attempt is what counts for clients.

use http::StatusCode;

use super::Pages;
use super::account::{AccountForm, again, at_home};
use super::call::{Call, Form};
use super::frame::Note;
use super::messages::Messages;
use super::reply::Reply;
use super::trouble::Trouble;
use crate::accounts::{Account, ClaimError, CodeError, Email, EmailsError};
use crate::db::audit::Actor;
use crate::limits::{Limit, address, code_for};
use crate::mail::Reason;
use crate::signin::{SignIn, Visit};

/// The part of the account page that is about the address.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub(super) address: Option<&'a str>,
    pub(super) confirmed: bool,
    /// The operator sends mail.
    pub(super) is_on: bool,
    /// Which form is to be open, if it may: as the address of the page has it.
    step: &'a str,
    /// The new address, as it was typed.
    pub(super) typed: String,
}

impl<'a> Section<'a> {
    pub(super) fn of(account: &'a Account, is_on: bool, step: &'a str, typed: String) -> Self {
        let (address, confirmed) = (account.email.as_deref(), account.email_confirmed_at.is_some());
        Self { address, confirmed, is_on, step, typed }
    }

    /// The form for the code that confirms is open.
    pub(super) fn confirming(&self) -> bool {
        self.step == CONFIRM && self.may_confirm()
    }

    /// The form for another address is open.
    pub(super) fn changing(&self) -> bool {
        self.step == CHANGE && self.may_change()
    }

    pub(super) const fn may_confirm(&self) -> bool {
        self.is_on && !self.confirmed && self.address.is_some()
    }

    /// A confirmed address takes a code to change, so it takes mail.
    pub(super) const fn may_change(&self) -> bool {
        self.is_on || !self.confirmed
    }

    /// Whether there is a form that is not open.
    pub(super) fn has_ways(&self) -> bool {
        (self.may_confirm() && !self.confirming()) || (self.may_change() && !self.changing())
    }
}

/// A code is wanted.
pub(super) async fn send_code(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let (_, one) = at_home(&pages, &call, &form).await?;
    let (account, language) = (&one.account, call.jar.language());
    let (did, step) = (account.did.as_str(), form.text("step"));
    let reason = match step {
        CONFIRM => Reason::ConfirmEmail,
        CHANGE => Reason::UpdateEmail,
        _ => return Err(Trouble::NotFound),
    };
    pages.count(Limit::RequestMail, &code_for(reason.as_str(), did)).await?;
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

/// The code that confirms the address was typed.
pub(super) async fn confirm(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let (visit, one) = at_home(&pages, &call, &form).await?;
    let (account, did) = (&one.account, one.account.did.as_str());
    let messages = Messages::of(call.jar.language());
    let code = form.text("code").trim();
    if code.is_empty() {
        let notes = vec![Note::new("code", messages.code_missing)];
        return refused(&pages, &call, &visit, &one, (CONFIRM, ""), notes).await;
    }
    pages.count(Limit::UseCode, &address(call.address)).await?;
    let present = account.email.as_deref().ok_or(Trouble::NotFound)?;
    match pages.app.emails.confirm(account, present, code, Actor::Account(did)).await {
        Ok(()) => pages.see_other(&format!("/account/u/{did}?done=email-confirmed")),
        Err(error) => {
            let notes = vec![note_of(error, messages)?];
            refused(&pages, &call, &visit, &one, (CONFIRM, ""), notes).await
        }
    }
}

/// Another address was typed, and the code from the email to the present one where that is confirmed.
pub(super) async fn change(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let (visit, one) = at_home(&pages, &call, &form).await?;
    let (account, did) = (&one.account, one.account.did.as_str());
    let messages = Messages::of(call.jar.language());
    let (typed, code) = (form.text("email").trim(), form.text("code").trim());
    let mut notes = Vec::new();
    let email: Option<Email> = typed.parse().ok();
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
    pages.count(Limit::UseCode, &address(call.address)).await?;
    let code = (!code.is_empty()).then_some(code);
    match pages.app.emails.update(account, &email, code, Actor::Account(did)).await {
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

/// What the form tells itself; else what becomes of the page. Forms that cannot work are not shown.
fn note_of(error: EmailsError, messages: &Messages) -> Result<Note, Trouble> {
    match error {
        EmailsError::Code(CodeError::Invalid | CodeError::Expired) => {
            Ok(Note::new("code", messages.code_wrong))
        }
        EmailsError::CodeRequired => Ok(Note::new("code", messages.code_missing)),
        EmailsError::Address(ClaimError::Taken) => Ok(Note::new("email", messages.email_used)),
        EmailsError::Off | EmailsError::NoAddress => Err(Trouble::NotFound),
        EmailsError::Address(ClaimError::NotFound) => Err(Trouble::NotSignedIn),
        EmailsError::Code(CodeError::Storage(cause))
        | EmailsError::Address(ClaimError::Storage(cause))
        | EmailsError::Storage(cause) => Err(cause.into()),
        other @ EmailsError::OtherAddress => Err(Trouble::Bug(Box::new(other))),
    }
}

const CONFIRM: &str = "confirm";
const CHANGE: &str = "change";
