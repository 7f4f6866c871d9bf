//! A lost password: an address, then a code from its mailbox and a new password.
//!
//! The step is in the address of the page, so that it survives a reload. Neither the answer nor its
//! delay reveals whether an account has the address. A code that was typed is never shown again,
//! because it may still be valid.

use askama::Template;
use http::StatusCode;

use crate::accounts::Email;
use crate::http::pages::call::{Call, Form};
use crate::http::pages::frame::{FlowRef, FormContext, Frame, Message, Note};
use crate::http::pages::messages::Messages;
use crate::http::pages::reply::Reply;
use crate::http::pages::trouble::Trouble;
use crate::http::pages::{LEAST, Pages, at_least};
use crate::limits::{Limit, address, code_for};
use crate::mail::Reason;
use crate::recovery::Error;
use crate::signup::RulesError;

#[derive(Template)]
#[template(path = "pages/forgot.html")]
struct Forgot<'a> {
    f: Frame<'a>,
    context: FormContext,
    email: &'a str,
}

#[derive(Template)]
#[template(path = "pages/reset.html")]
struct Reset<'a> {
    f: Frame<'a>,
    context: FormContext,
    least: usize,
}

/// `GET /account/reset-password`
pub(in crate::http::pages) async fn show(pages: Pages, call: Call) -> Result<Reply, Trouble> {
    let context = FormContext::of(&pages, &call, flow_of(&call));
    match call.parameter("step").as_deref() {
        Some("code") => with_code(&pages, &call, context, StatusCode::OK, Vec::new()),
        Some("done") => {
            let messages = Messages::of(call.jar.language());
            let link = context.link("sign-in");
            let page = Message {
                f: Frame::for_call(&pages, &call),
                title: messages.reset_done_title,
                paragraphs: vec![messages.reset_done_text.to_owned()],
                technical: Vec::new(),
                link: Some((&link, messages.back_to_sign_in)),
            };
            pages.show(&page, None)
        }
        _ => forgot(&pages, &call, context, "", StatusCode::OK, Vec::new()),
    }
}

/// Handles both forms.
pub(in crate::http::pages) async fn take(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let flow = (!form.text("request_uri").is_empty())
        .then(|| FlowRef::back(form.text("client_id"), form.text("request_uri")));
    let context = FormContext::of(&pages, &call, flow);
    if form.text("only") == "reset" {
        return reset(&pages, &call, &form, context).await;
    }
    let typed = form.text("email").trim();
    let messages = Messages::of(call.jar.language());
    if typed.parse::<Email>().is_err() {
        let notes = vec![Note::new("email", messages.email_invalid)];
        return forgot(&pages, &call, context, typed, StatusCode::BAD_REQUEST, notes);
    }
    pages.app.count_attempt(Limit::PasswordReset, &address(call.address)).await?;
    // By the typed address, whether an account has it or not. Otherwise the limit would reveal
    // which addresses do.
    pages.app.count_attempt(Limit::RequestMail, &code_for(Reason::ResetPassword.as_str(), typed)).await?;
    let sent = at_least(LEAST, pages.app.recovery.request(typed, call.jar.language())).await;
    match sent {
        Ok(()) => pages.see_other(&context.reset_step("code")),
        Err(Error::Off) => Err(Trouble::NotFound),
        Err(Error::Storage(cause)) => Err(cause.into()),
        Err(other) => Err(Trouble::Bug(Box::new(other))),
    }
}

async fn reset(pages: &Pages, call: &Call, form: &Form, context: FormContext) -> Result<Reply, Trouble> {
    let messages = Messages::of(call.jar.language());
    let (code, password) = (form.text("code").trim(), form.secret("password"));
    // Before the code, so that a password that is too short does not cost an attempt.
    if let Err(problem) = pages.app.sign_ups.rules().check_password(&password) {
        let text = match problem {
            RulesError::PasswordTooShort(least) => messages.with(messages.password_short, least),
            _ => messages.password_long.to_owned(),
        };
        let notes = vec![Note::new("password", text)];
        return with_code(pages, call, context, StatusCode::BAD_REQUEST, notes);
    }
    pages.app.count_attempt(Limit::UseCode, &address(call.address)).await?;
    let note = match at_least(LEAST, pages.app.recovery.reset(code, &password, &call.client)).await {
        Ok(_) => return pages.see_other(&context.reset_step("done")),
        Err(Error::Code(_)) => Note::new("code", messages.code_wrong),
        Err(Error::TooLong) => Note::new("password", messages.password_long),
        Err(Error::Busy) => return Err(Trouble::Busy(None)),
        Err(Error::Off) => return Err(Trouble::NotFound),
        Err(Error::Storage(cause)) => return Err(cause.into()),
    };
    with_code(pages, call, context, StatusCode::BAD_REQUEST, vec![note])
}

/// Returns the flow that the page was reached from and leads back to.
fn flow_of(call: &Call) -> Option<FlowRef> {
    let (client_id, request_uri) = (call.parameter("client_id")?, call.parameter("request_uri")?);
    Some(FlowRef::back(&client_id, &request_uri))
}

fn forgot(
    pages: &Pages,
    call: &Call,
    context: FormContext,
    email: &str,
    status: StatusCode,
    problems: Vec<Note>,
) -> Result<Reply, Trouble> {
    if context.reset_link.is_empty() {
        return Err(Trouble::NotFound);
    }
    let page = Forgot { f: Frame::for_call(pages, call).with(problems), context, email };
    Reply::page(status, &page, pages.origin(), None)
}

fn with_code(
    pages: &Pages,
    call: &Call,
    context: FormContext,
    status: StatusCode,
    problems: Vec<Note>,
) -> Result<Reply, Trouble> {
    let least = pages.app.sign_ups.rules().password.0;
    let page = Reset { f: Frame::for_call(pages, call).with(problems), context, least };
    Reply::page(status, &page, pages.origin(), None)
}
