//! `/oauth/authorize`: the page for the current step of an authorization request.

use askama::Template;

use super::call::{Call, Form, Names};
use super::consent;
use super::flow::Flow;
use super::frame::{FormContext, Frame, Message};
use super::messages::Messages;
use super::reply::Reply;
use super::trouble::Trouble;
use super::{Pages, external, sign_in, sign_up};
use crate::db::audit::Actor;
use crate::oauth::{Choice, Outcome, Page};
use crate::signin::SignIn;

/// Shows the page for the current state of a request.
pub(super) async fn show(pages: Pages, call: Call) -> Result<Reply, Trouble> {
    let (Some(client_id), Some(request_uri)) = (call.parameter("client_id"), call.parameter("request_uri"))
    else {
        return Err(Trouble::Request(
            "client_id and request_uri are needed, once each: push the request to the pushed_authorization_request_endpoint first (RFC 9126)",
        ));
    };
    // RFC 9101 request objects would be a second source of parameters beside the pushed request.
    if call.parameter("request").is_some() {
        return Err(Trouble::Request("request objects are not supported; push the request (RFC 9126)"));
    }
    if !call.keeps_cookies {
        return test_cookies(&pages, &call);
    }
    let flow = Flow::open(&pages, &call, &client_id, &request_uri).await?;
    let signed_in = flow.signed_in(&pages).await?;
    // A step in the URL is a choice that the person made on an earlier page. Without one, the state
    // of the request decides.
    let step = call.parameter("step").unwrap_or_default();
    if step.is_empty()
        && let Some(arrival) = external::arrived(&pages, &flow).await?
    {
        return external::ask(&pages, &call, &flow, &arrival).await;
    }
    let outcome = match step.as_str() {
        // With a hint the app has named an existing account, so there is nothing to sign up for.
        "sign-up" if flow.opened.login_hint.is_none() => Outcome::Show(Page::SignUp),
        "choose" if !signed_in.is_empty() => return chooser_of(&pages, &call, &flow, &signed_in),
        "sign-in" | "choose" => Outcome::Show(Page::SignIn),
        "go" => {
            let did = call.parameter("did").unwrap_or_default();
            match signed_in.iter().find(|one| one.account.did.as_str() == did) {
                // The account counts only if it is signed in, in this browser. A DID in the URL
                // proves nothing.
                Some(one) => pages.app.oauth.chosen(&flow.opened, one).await?,
                None => Outcome::Show(Page::SignIn),
            }
        }
        _ => pages.app.oauth.outcome(&flow.opened, &signed_in).await?,
    };
    match outcome {
        Outcome::Redirect(redirect) => flow.leave(&pages, &call, &redirect).await,
        Outcome::Show(Page::SignIn) => {
            let did = call.parameter("did");
            let again = signed_in.iter().find(|one| did.as_deref() == Some(one.account.did.as_str()));
            sign_in::in_flow(&pages, &call, &flow, again, !signed_in.is_empty()).await
        }
        Outcome::Show(Page::SignUp) => sign_up::in_flow(&pages, &call, &flow),
        Outcome::Show(Page::Choose(choices)) => chooser(&pages, &call, &flow, &choices),
        Outcome::Show(Page::Consent(did)) => match one_of(&signed_in, did.as_str()) {
            Some(one) => consent::show(&pages, &call, &flow, one).await,
            None => Err(Trouble::NotSignedIn),
        },
        Outcome::Show(Page::Reactivate(did)) => match one_of(&signed_in, did.as_str()) {
            Some(one) => asks_to_reactivate(&pages, &call, &flow, one, Vec::new()),
            None => Err(Trouble::NotSignedIn),
        },
    }
}

/// Redirects a browser without any cookie once, to see whether it keeps cookies. Some keep none
/// from the first page of a window, and a request must not be bound to a browser that cannot be
/// recognised later.
fn test_cookies(pages: &Pages, call: &Call) -> Result<Reply, Trouble> {
    let origin = pages.origin();
    // The browser returns from the redirect without a cookie, so it keeps none.
    if call.parameter("cookies").is_some() {
        let messages = Messages::of(call.jar.language());
        let again = call.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let page = Message {
            f: Frame::for_call(pages, call),
            title: messages.error_cookies_title,
            paragraphs: vec![messages.with(messages.error_cookies, origin.host())],
            technical: vec![("error", "ERR_COOKIES_UNSUPPORTED")],
            link: Some((&again, messages.error_cookies_again)),
        };
        let mut reply = Reply::page(http::StatusCode::BAD_REQUEST, &page, origin, None)?;
        reply.set_cookie(Names::of(origin).test, "testing", Some(TEST), origin);
        return Ok(reply);
    }
    let mut reply = pages.see_other(&format!(
        "{}?{}&cookies=1",
        call.uri.path(),
        call.uri.query().unwrap_or_default()
    ))?;
    reply.set_cookie(Names::of(origin).test, "testing", Some(TEST), origin);
    Ok(reply)
}

/// Handles the choice of an account on the chooser.
pub(super) async fn choose(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let flow = Flow::of_form(&pages, &call, &form).await?;
    pages.see_other(&flow.context(&pages, &call).link_for(form.text("did")))
}

/// Reactivates a deactivated account at its owner's request.
pub(super) async fn reactivate(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let flow = Flow::of_form(&pages, &call, &form).await?;
    let did = form.text("did");
    let Some(one) = flow.signed_in_as(&pages, did).await? else {
        // The sign-in ended in another tab or was revoked. The request must not wait for a person
        // who has left.
        pages.app.oauth.reject(&flow.opened).await?;
        return Err(Trouble::NotSignedIn);
    };
    // An old sign-in is not enough. Where the password is required, `chosen` asks for it first.
    match pages.app.oauth.chosen(&flow.opened, &one).await? {
        Outcome::Show(Page::Reactivate(_)) => {}
        Outcome::Show(_) => return pages.see_other(&flow.context(&pages, &call).link_for(did)),
        Outcome::Redirect(redirect) => return flow.leave(&pages, &call, &redirect).await,
    }
    match pages.app.standings.activate(&one.account.did, Actor::Account(&one.account.did)).await {
        Ok(()) => pages.see_other(&flow.context(&pages, &call).link_for(did)),
        Err(crate::standing::Error::Storage(cause)) => Err(cause.into()),
        Err(cause) => {
            tracing::warn!(account.did = did, cause = %cause, "an account could not be activated");
            let messages = Messages::of(call.jar.language());
            let note = super::frame::Note::new("", messages.reactivate_failed);
            asks_to_reactivate(&pages, &call, &flow, &one, vec![note])
        }
    }
}

#[derive(Template)]
#[template(path = "pages/reactivate.html")]
struct Reactivate<'a> {
    f: Frame<'a>,
    context: FormContext,
    handle: String,
    did: &'a str,
}

fn asks_to_reactivate(
    pages: &Pages,
    call: &Call,
    flow: &Flow,
    one: &SignIn,
    problems: Vec<super::frame::Note>,
) -> Result<Reply, Trouble> {
    let page = Reactivate {
        f: Frame::for_call(pages, call).with(problems),
        context: flow.context(pages, call),
        handle: format!("@{}", one.account.handle),
        did: one.account.did.as_str(),
    };
    pages.show(&page, Some(&flow.opened.form_action))
}

#[derive(Template)]
#[template(path = "pages/choose.html")]
struct Choose<'a> {
    f: Frame<'a>,
    context: FormContext,
    choices: Vec<Person>,
}

/// An account on the chooser.
struct Person {
    did: String,
    handle: String,
    initial: String,
    needs_password: bool,
}

fn chooser(pages: &Pages, call: &Call, flow: &Flow, choices: &[Choice]) -> Result<Reply, Trouble> {
    let people = choices.iter().map(|choice| Person {
        did: choice.account.did.to_string(),
        handle: choice.account.handle.to_string(),
        initial: choice.account.handle.as_str().chars().take(1).collect(),
        needs_password: choice.needs_password,
    });
    let page = Choose {
        f: Frame::for_call(pages, call),
        context: flow.context(pages, call),
        choices: people.collect(),
    };
    pages.show(&page, Some(&flow.opened.form_action))
}

/// The chooser, on a flow that would skip it.
fn chooser_of(pages: &Pages, call: &Call, flow: &Flow, all: &[SignIn]) -> Result<Reply, Trouble> {
    let choice = |one: &SignIn| Choice { account: one.account.clone(), needs_password: false };
    chooser(pages, call, flow, &all.iter().map(choice).collect::<Vec<_>>())
}

fn one_of<'a>(signed_in: &'a [SignIn], did: &str) -> Option<&'a SignIn> {
    signed_in.iter().find(|one| one.account.did.as_str() == did)
}

/// How long the test cookie is kept: 31 days.
const TEST: u64 = 31 * 24 * 3600;
