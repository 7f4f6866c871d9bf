//! A new account, in a flow or for the account pages: the same saga as `createAccount`.

use askama::Template;
use genkan_protocol::syntax::Handle;
use http::StatusCode;

use super::call::{Call, Form};
use super::flow::Flow;
use super::frame::{FormContext, Frame, Note};
use super::messages::Messages;
use super::reply::Reply;
use super::trouble::Trouble;
use super::{LEAST, Pages, at_least};
use crate::accounts::Email;
use crate::identity::PolicyError;
use crate::limits::{AttemptError, Limit, address};
use crate::signin::Persistence;
use crate::signup::{self, RulesError};
use crate::telemetry::metrics::SIGN_UPS;

#[derive(Template)]
#[template(path = "pages/sign_up.html")]
struct SignUp<'a> {
    f: Frame<'a>,
    context: FormContext,
    handle: &'a str,
    domain: &'a str,
    domains: &'a [String],
    email: &'a str,
    invite: &'a str,
    invite_required: bool,
    least: usize,
    /// The handle, if it was checked and is free.
    free: Option<String>,
}

/// The values that were typed, without the password.
#[derive(Debug, Default)]
struct FormValues {
    handle: String,
    domain: String,
    email: String,
    invite: String,
}

/// `GET /account/sign-up`
pub(super) async fn show(pages: Pages, call: Call) -> Result<Reply, Trouble> {
    page(&pages, &call, None, &FormValues::default(), StatusCode::OK, Vec::new(), None)
}

pub(super) fn in_flow(pages: &Pages, call: &Call, flow: &Flow) -> Result<Reply, Trouble> {
    page(pages, call, Some(flow), &FormValues::default(), StatusCode::OK, Vec::new(), None)
}

/// Handles the form.
pub(super) async fn take(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let mut flow = if call.uri.path().starts_with("/account") {
        None
    } else {
        Some(Flow::of_form(&pages, &call, &form).await?)
    };
    let typed = FormValues {
        handle: form.text("handle").trim().trim_start_matches('@').to_lowercase(),
        domain: form.text("domain").to_owned(),
        email: form.text("email").trim().to_owned(),
        invite: form.text("invite").trim().to_owned(),
    };
    let messages = Messages::of(call.jar.language());
    let full = full_handle(&pages, &typed);
    if form.text("only") == "check" {
        // A fixed time, so that the delay does not say why a handle is refused.
        let found = at_least(LEAST, find_free(&pages, messages, &full)).await?;
        return match found {
            Ok(handle) => {
                let free = Some(messages.with(messages.handle_free, &handle));
                page(&pages, &call, flow.as_ref(), &typed, StatusCode::OK, Vec::new(), free)
            }
            Err(note) => {
                page(&pages, &call, flow.as_ref(), &typed, StatusCode::BAD_REQUEST, vec![note], None)
            }
        };
    }
    let request = match request(&pages, messages, &typed, &full, &form, &call) {
        Ok(request) => request,
        Err(problems) => {
            return page(&pages, &call, flow.as_ref(), &typed, StatusCode::BAD_REQUEST, problems, None);
        }
    };
    let app = &pages.app;
    // After the checks of the form: a mistyped field costs no attempt.
    app.count_attempt(Limit::CreateAccount, &address(call.address)).await?;
    let made = app.sign_ups.create_account(request).await;
    app.metrics.counter(&SIGN_UPS, &[if made.is_ok() { "done" } else { "refused" }]).increment();
    let account = match made {
        Ok(account) => account,
        Err(signup::Error::Storage(cause)) => return Err(cause.into()),
        Err(signup::Error::OverLimit(over)) => return Err(AttemptError::from(over).into()),
        Err(error) => {
            let (status, note) = note_of(&error, messages);
            return page(&pages, &call, flow.as_ref(), &typed, status, vec![note], None);
        }
    };
    let did = account.did.as_str();
    let mut visit = match &flow {
        Some(flow) => flow.visit.clone(),
        None => pages.visit(&call).await?,
    };
    // In a flow the sign-in counts for this one request only.
    let keep =
        flow.as_ref().map_or(Persistence::Remembered, |flow| Persistence::OneRequest(flow.opened.uri.id()));
    app.sign_ins.sign_in(&mut visit, &account, keep).await?;
    app.attempts.note_browser(&account.did, &visit).await;
    call.jar.keep(&visit);
    let context = FormContext::of(&pages, &call, flow.take().map(|flow| flow.reference));
    pages.see_other(&context.link_for(did))
}

/// Returns the whole handle: the typed name with the chosen domain, or a typed handle as it is.
fn full_handle(pages: &Pages, typed: &FormValues) -> String {
    let domains = &pages.app.config.service.handle_domains;
    // A full handle that the person typed. The rules decide whether its domain is served here.
    if typed.handle.contains('.') {
        return typed.handle.clone();
    }
    let domain = domains.iter().find(|domain| **domain == typed.domain).or_else(|| domains.first());
    format!("{}{}", typed.handle, domain.map_or("", String::as_str))
}

async fn find_free(
    pages: &Pages,
    messages: &'static Messages,
    handle: &str,
) -> Result<Result<Handle, Note>, Trouble> {
    let handle = match pages.app.sign_ups.rules().handles.for_sign_up(handle) {
        Ok(handle) => handle,
        Err(problem) => return Ok(Err(about_handle(&problem, messages))),
    };
    if pages.app.accounts.is_handle_free(&handle).await? {
        Ok(Ok(handle))
    } else {
        Ok(Err(Note::new("handle", messages.handle_taken)))
    }
}

/// Reads the form and collects all problems that show without the database.
fn request(
    pages: &Pages,
    messages: &'static Messages,
    typed: &FormValues,
    handle: &str,
    form: &Form,
    call: &Call,
) -> Result<signup::Request, Vec<Note>> {
    let rules = pages.app.sign_ups.rules();
    let mut problems = Vec::new();
    // All fields are checked before the answer, so that the page shows every problem at once.
    let handle = rules.handles.for_sign_up(handle);
    if let Err(problem) = &handle {
        problems.push(about_handle(problem, messages));
    }
    let email: Result<Email, _> = typed.email.parse();
    if email.is_err() {
        problems.push(Note::new("email", messages.email_invalid));
    }
    let password = form.secret("password");
    if let Err(problem) = rules.check_password(&password) {
        problems.push(about_rules(&problem, messages));
    }
    if typed.invite.is_empty() && rules.invite_required {
        problems.push(Note::new("invite", messages.invite_invalid));
    }
    match (handle, email) {
        (Ok(handle), Ok(email)) if problems.is_empty() => Ok(signup::Request {
            handle,
            email,
            password,
            invite_code: (!typed.invite.is_empty()).then(|| typed.invite.clone()),
            recovery_key: None,
            client: call.address,
            waiting: call.client.clone(),
        }),
        _ => Err(problems),
    }
}

fn about_handle(problem: &PolicyError, messages: &Messages) -> Note {
    let text = match problem {
        PolicyError::Invalid(_) | PolicyError::DoesNotLeadHere => messages.handle_invalid,
        PolicyError::Reserved => messages.handle_reserved,
        PolicyError::UnsupportedDomain => messages.handle_domain,
        PolicyError::Passing(_) => messages.handle_later,
    };
    Note::new("handle", text)
}

fn about_rules(problem: &RulesError, messages: &Messages) -> Note {
    match problem {
        RulesError::Handle(problem) => about_handle(problem, messages),
        RulesError::BlockedEmail => Note::new("email", messages.email_invalid),
        RulesError::PasswordTooShort(least) => {
            Note::new("password", messages.with(messages.password_short, least))
        }
        RulesError::PasswordTooLong => Note::new("password", messages.password_long),
    }
}

fn note_of(error: &signup::Error, messages: &Messages) -> (StatusCode, Note) {
    use signup::Error as E;
    let bad = |note| (StatusCode::BAD_REQUEST, note);
    match error {
        E::Rules(problem) => bad(about_rules(problem, messages)),
        E::HandleTaken => bad(Note::new("handle", messages.handle_taken)),
        E::EmailTaken => bad(Note::new("email", messages.email_taken)),
        E::InvalidInvite => bad(Note::new("invite", messages.invite_invalid)),
        E::Busy => (StatusCode::SERVICE_UNAVAILABLE, Note::new("", messages.sign_up_busy)),
        E::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, Note::new("", messages.sign_up_no_room)),
        E::Unfinished => (StatusCode::SERVICE_UNAVAILABLE, Note::new("", messages.sign_up_unfinished)),
        E::Refused(_) | E::Session(_) | E::OverLimit(_) | E::Storage(_) => {
            // The page shows no cause, since it would mean nothing to the person. The operator
            // needs it.
            tracing::warn!(cause = error as &dyn std::error::Error, "a sign-up on the page failed");
            (StatusCode::BAD_GATEWAY, Note::new("", messages.sign_up_refused))
        }
    }
}

fn page(
    pages: &Pages,
    call: &Call,
    flow: Option<&Flow>,
    typed: &FormValues,
    status: StatusCode,
    problems: Vec<Note>,
    free: Option<String>,
) -> Result<Reply, Trouble> {
    let rules = pages.app.sign_ups.rules();
    let domains = &pages.app.config.service.handle_domains;
    let chosen = domains.iter().find(|domain| **domain == typed.domain).or_else(|| domains.first());
    let page = SignUp {
        f: Frame::for_call(pages, call).with(problems),
        context: flow.map_or_else(|| FormContext::of(pages, call, None), |flow| flow.context(pages, call)),
        handle: &typed.handle,
        domain: chosen.map_or("", String::as_str),
        domains,
        email: &typed.email,
        invite: &typed.invite,
        invite_required: rules.invite_required,
        least: rules.password.0,
        free,
    };
    Reply::page(status, &page, pages.origin(), flow.map(|flow| flow.opened.form_action.as_str()))
}
