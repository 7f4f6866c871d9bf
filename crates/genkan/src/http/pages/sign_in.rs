//! Signing in, in a flow or for the account pages.

use askama::Template;
use http::StatusCode;

use super::call::{Call, Form};
use super::flow::Flow;
use super::frame::{FormContext, Frame, Note};
use super::messages::Messages;
use super::reply::Reply;
use super::trouble::Trouble;
use super::{LEAST, Pages, at_least, external};
use crate::accounts::Account;
use crate::signin::{self, Attempt, Persistence, SignIn};
use crate::telemetry::metrics::SIGN_INS;

#[derive(Template)]
#[expect(clippy::struct_excessive_bools, reason = "what the template asks for, each by itself")]
#[template(path = "pages/sign_in.html")]
struct SignInPage<'a> {
    f: Frame<'a>,
    context: FormContext,
    identifier: &'a str,
    /// Whether the app or the chooser named the account, so that the name cannot be changed.
    fixed: bool,
    remember: bool,
    /// Whether there are accounts to choose from.
    choosing: bool,
    example: String,
    /// Whether accounts on external PDSes may sign in too.
    external: bool,
}

/// The values in the form.
#[derive(Debug, Default)]
struct FormValues {
    identifier: String,
    fixed: bool,
    remember: bool,
    choosing: bool,
}

/// `GET /account/sign-in`
pub(super) async fn show(pages: Pages, call: Call) -> Result<Reply, Trouble> {
    let typed =
        FormValues { identifier: call.parameter("handle").unwrap_or_default(), ..FormValues::default() };
    page(&pages, &call, None, &typed, StatusCode::OK, Vec::new())
}

/// Shows the form in a flow. `again` is the account whose sign-in is too old.
pub(super) async fn in_flow(
    pages: &Pages,
    call: &Call,
    flow: &Flow,
    again: Option<&SignIn>,
    choosing: bool,
) -> Result<Reply, Trouble> {
    let wanted = match (again, &flow.opened.login_hint) {
        (Some(one), _) => Some(one.account.handle.to_string()),
        (None, Some(hint)) => Some(shown_hint(pages, hint).await?),
        (None, None) => None,
    };
    let fixed = wanted.is_some();
    let typed = FormValues { identifier: wanted.unwrap_or_default(), fixed, choosing, remember: false };
    page(pages, call, Some(flow), &typed, StatusCode::OK, Vec::new())
}

/// Returns the hint as the form shows it. Apps may name a DID, but people know handles.
async fn shown_hint(pages: &Pages, hint: &str) -> Result<String, Trouble> {
    let known = match hint.parse() {
        Ok(did) => pages.app.accounts.find(&did).await?,
        Err(_) => None,
    };
    Ok(known.map_or_else(|| hint.to_owned(), |account| account.handle.to_string()))
}

/// Handles the form.
pub(super) async fn take(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    // One form serves the account pages and the flow of an app. The path tells them apart.
    let mut flow = if call.uri.path().starts_with("/account") {
        None
    } else {
        Some(Flow::of_form(&pages, &call, &form).await?)
    };
    let messages = Messages::of(call.jar.language());
    let hint = match flow.as_ref().and_then(|flow| flow.opened.login_hint.as_deref()) {
        Some(hint) => Some(shown_hint(&pages, hint).await?),
        None => None,
    };
    let typed = FormValues {
        // With a hint the name in the form is ignored: the app asked for one account and no other.
        identifier: hint.clone().unwrap_or_else(|| form.text("identifier").trim().to_owned()),
        fixed: hint.is_some(),
        remember: form.text("remember") == "yes",
        choosing: false,
    };
    let password = form.secret("password");
    let mut missing = Vec::new();
    if typed.identifier.is_empty() {
        missing.push(Note::new("identifier", messages.identifier_missing));
    }
    let is_external = external::is_meant(&pages, &typed.identifier).await?;
    if password.expose().is_empty() && !is_external {
        missing.push(Note::new("password", messages.password_missing));
    }
    if !missing.is_empty() {
        return page(&pages, &call, flow.as_ref(), &typed, StatusCode::BAD_REQUEST, missing);
    }
    let known = match &flow {
        Some(flow) => Some(flow.visit.clone()),
        None => pages.known_visit(&call).await?,
    };
    let identifier = full_identifier(&pages, &typed.identifier);
    // Counted even for external accounts, because a departure makes Genkan fetch documents from
    // other servers.
    let account = pages.app.accounts.find_by_identifier(&identifier).await?;
    let (account, client) = (account.as_ref(), call.address);
    let attempt = Attempt { account, identifier: &identifier, client, browser: known.as_ref() };
    let admitted = pages.app.attempts.admit(&attempt).await?;
    // After the limits: what they refuse costs no row.
    let mut visit = match known {
        Some(visit) => visit,
        None => pages.visit(&call).await?,
    };
    if is_external {
        // A typed password is not for Genkan, and is dropped.
        drop(password);
        return match external::leave(&pages, &call, flow.as_ref(), &visit, &typed.identifier).await? {
            Ok(reply) => Ok(reply),
            Err(note) => page(&pages, &call, flow.as_ref(), &typed, StatusCode::BAD_REQUEST, vec![note]),
        };
    }
    // A minimum time, so that the duration does not reveal whether the account exists.
    let found = pages.app.sign_ins.recognise(&identifier, &password, admitted.requester);
    let found = at_least(LEAST, found).await;
    if matches!(found, Err(signin::Error::WrongPassword)) {
        pages.app.attempts.failed(&admitted);
    }
    pages.app.metrics.counter(&SIGN_INS, &[if found.is_ok() { "done" } else { "refused" }]).increment();
    let note = match found {
        Ok(account) if !is_wanted(flow.as_ref(), &account) => {
            Note::new("identifier", messages.with(messages.wrong_account, &typed.identifier))
        }
        Ok(account) => {
            let did = account.did.as_str();
            let keep = match &flow {
                // Without "remember me" the sign-in is valid for this one request of an app.
                Some(flow) if !typed.remember => Persistence::OneRequest(flow.opened.uri.id()),
                _ => Persistence::Remembered,
            };
            match pages.app.sign_ins.sign_in(&mut visit, &account, keep).await {
                Ok(()) => {
                    pages.app.attempts.succeeded_in(&admitted, &visit).await;
                    call.jar.keep(&visit);
                    let context = FormContext::of(&pages, &call, flow.take().map(|flow| flow.reference));
                    return pages.see_other(&context.link_for(did));
                }
                // The password was changed a moment ago.
                Err(signin::Error::WrongPassword) => Note::new("password", messages.wrong_password),
                Err(error) => return Err(error.into()),
            }
        }
        Err(signin::Error::WrongPassword) => Note::new("password", messages.wrong_password),
        Err(signin::Error::TakenDown) => Note::new("identifier", messages.taken_down),
        Err(signin::Error::Busy) => Note::new("", messages.busy),
        Err(signin::Error::Storage(cause)) => return Err(cause.into()),
    };
    page(&pages, &call, flow.as_ref(), &typed, StatusCode::BAD_REQUEST, vec![note])
}

/// Completes a name without a domain by Genkan's first handle domain.
fn full_identifier(pages: &Pages, typed: &str) -> String {
    let name = typed.trim_start_matches('@');
    if name.is_empty() || name.contains(['.', '@', ':']) {
        return typed.to_owned();
    }
    let domain = pages.app.config.service.handle_domains.first().map_or("", String::as_str);
    format!("{name}{domain}")
}

fn is_wanted(flow: Option<&Flow>, account: &Account) -> bool {
    let hint = flow.and_then(|flow| flow.opened.login_hint.as_deref());
    hint.is_none_or(|hint| hint == account.did.as_str() || hint == account.handle.as_str())
}

fn page(
    pages: &Pages,
    call: &Call,
    flow: Option<&Flow>,
    typed: &FormValues,
    status: StatusCode,
    problems: Vec<Note>,
) -> Result<Reply, Trouble> {
    let domain = pages.app.config.service.handle_domains.first().map_or("", String::as_str);
    let page = SignInPage {
        f: Frame::for_call(pages, call).with(problems),
        context: flow.map_or_else(|| FormContext::of(pages, call, None), |flow| flow.context(pages, call)),
        identifier: &typed.identifier,
        fixed: typed.fixed,
        remember: typed.remember || flow.is_none(),
        choosing: typed.choosing,
        example: format!("alice{domain}"),
        external: pages.app.config.links.enabled,
    };
    let beyond = flow.map(|flow| flow.opened.form_action.as_str());
    Reply::page(status, &page, pages.origin(), beyond)
}
