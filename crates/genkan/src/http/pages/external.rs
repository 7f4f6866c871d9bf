//! People with an account on an external PDS. They sign in at their own server, and when they
//! return, Genkan asks whether the app may have what was granted there.

use askama::Template;
use axum::body::Body;
use axum::response::Response;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{Request, StatusCode};

use super::call::{Call, Form, Names};
use super::consent_page;
use super::flow::Flow;
use super::frame::{FormContext, Frame, Message, Note};
use super::messages::Messages;
use super::reply::Reply;
use super::trouble::Trouble;
use super::{LEAST, Pages, at_least};
use crate::base::{Origin, Secret};
use crate::identity::is_given_out;
use crate::links::{
    Arrival, BeginError, CALLBACK, Callback, Failure, FinishError, Identifier, NewLogin, Visitor,
};
use crate::oauth::{ExpandedScope, LinkedAccount};
use crate::signin::{Persistence, Visit};

#[derive(Template)]
#[template(path = "pages/external.html")]
struct External<'a> {
    f: Frame<'a>,
    context: FormContext,
    /// The host to which the person is sent.
    server: &'a str,
    url: &'a str,
}

/// Whether the typed text names an account without a home here. Names under Genkan's own domains
/// never do.
pub(super) async fn is_meant(pages: &Pages, typed: &str) -> Result<bool, Trouble> {
    let app = &pages.app;
    if !app.config.links.enabled {
        return Ok(false);
    }
    let name = match Identifier::parse(typed) {
        None => return Ok(false),
        // A server's address means the account that its sign-in page will name.
        Some(Identifier::Address(_)) => return Ok(true),
        Some(Identifier::Did(did)) => did.to_string(),
        Some(Identifier::Handle(handle)) => {
            if is_given_out(&app.config.service.handle_domains, handle.as_str()) {
                return Ok(false);
            }
            handle.to_string()
        }
    };
    // A local account wins, even under a domain that is not Genkan's.
    Ok(app.accounts.find_by_identifier(&name).await?.is_none())
}

/// Sends a person to their own server, or reports what is wrong with the typed text.
pub(super) async fn leave(
    pages: &Pages,
    call: &Call,
    flow: Option<&Flow>,
    visit: &Visit,
    identifier: &str,
) -> Result<Result<Reply, Note>, Trouble> {
    let context = flow.map_or_else(|| FormContext::of(pages, call, None), |flow| flow.context(pages, call));
    let back = context.link("");
    let login = NewLogin {
        identifier,
        // The account pages only need to know who the person is.
        scope: flow.map_or("atproto", |flow| flow.opened.scope().as_str()),
        request: flow.map(|flow| flow.opened.uri.id()),
        back: &back,
        device: visit.device.as_str(),
        network: call.address,
        browser: call.browser.as_deref(),
    };
    let messages = Messages::of(call.jar.language());
    // The duration must not reveal who has an account here.
    let departure = match at_least(LEAST, pages.app.links.begin(login)).await {
        Ok(departure) => departure,
        Err(BeginError::Storage(cause)) => return Err(cause.into()),
        Err(error) => {
            tracing::info!(cause = %error, "a sign-in at an external server could not begin");
            return Ok(Err(Note::new("identifier", why_not(&error, messages))));
        }
    };
    let origin = pages.origin();
    let server =
        departure.url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let page = External { f: Frame::of(pages, messages), context, server, url: &departure.url };
    // A page and not a redirect: the content security policy of the submitted form allows it to
    // lead here only.
    let mut reply = pages.show(&page, None)?;
    if let Ok(refresh) = HeaderValue::from_str(&format!("0; url={}", departure.url)) {
        reply.set(REFRESH, refresh);
    }
    reply.set_cookie(Names::of(origin).link, departure.browser.expose(), Some(AN_HOUR), origin);
    Ok(Ok(reply))
}

fn why_not(error: &BeginError, messages: &Messages) -> &'static str {
    match error {
        BeginError::NotAnIdentifier | BeginError::NoSuchAccount => messages.external_unknown,
        BeginError::Home => messages.external_home,
        BeginError::Unusable(_) => messages.external_unusable,
        BeginError::Refused(_) => messages.external_refused,
        BeginError::Away(_) | BeginError::Storage(_) => messages.external_away,
    }
}

/// `GET /oauth/callback`: a person returns from their server.
pub(super) async fn back(pages: Pages, call: Call) -> Result<Reply, Trouble> {
    let visit = pages.known_visit(&call).await?;
    let device = visit.as_ref().map(|visit| visit.device.as_str());
    let callback = Callback {
        state: call.parameter("state"),
        iss: call.parameter("iss"),
        code: call.parameter("code").map(Secret::new),
        error: call.parameter("error"),
        has_response: call.has_parameter("response"),
    };
    match pages.app.links.finish(callback, call.browser.as_deref(), device).await {
        Ok(arrival) => {
            let Some(mut visit) = visit else { return Err(Trouble::NotSignedIn) };
            let keep = arrival.request.as_deref().map_or(Persistence::Visit, Persistence::OneRequest);
            pages.app.sign_ins.sign_in_linked(&mut visit, &arrival.did, keep).await?;
            call.jar.keep(&visit);
            if arrival.request.is_some() {
                return pages.see_other(&arrival.back);
            }
            pages.app.links.start_visit(&arrival, visit.device.as_str()).await?;
            pages.see_other(&format!("/account/u/{}", arrival.did))
        }
        Err(FinishError { why: Failure::Storage(cause), .. }) => Err(cause.into()),
        Err(error) => failed(&pages, &call, &error),
    }
}

fn failed(pages: &Pages, call: &Call, error: &FinishError) -> Result<Reply, Trouble> {
    tracing::info!(cause = %error, "a sign-in at an external server failed");
    let messages = Messages::of(call.jar.language());
    let (status, text, code) = match &error.why {
        Failure::Unknown => (StatusCode::BAD_REQUEST, messages.error_unknown, "unknown_state"),
        Failure::OtherBrowser => (StatusCode::BAD_REQUEST, messages.external_other_browser, "other_browser"),
        Failure::Denied(_) => (StatusCode::OK, messages.external_denied, "denied"),
        Failure::Unacceptable(why) => (StatusCode::BAD_REQUEST, messages.external_unacceptable, *why),
        Failure::Away(_) | Failure::Storage(_) => (StatusCode::BAD_GATEWAY, messages.external_away, "away"),
    };
    let back = error.back.as_deref().unwrap_or("/account");
    let page = Message {
        f: Frame::of(pages, messages),
        title: messages.external_failed_title,
        paragraphs: vec![text.to_owned()],
        technical: vec![("error", code)],
        link: Some((back, messages.error_cookies_again)),
    };
    Reply::page(status, &page, pages.origin(), None)
}

/// On loopback, servers send browsers back to the IP address, which has no cookies. This redirects
/// them to the name that has them.
pub(super) fn to_our_name(request: &Request<Body>, origin: &Origin) -> Option<Response> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    if !origin.is_loopback() || request.uri().path() != CALLBACK || host == Some(origin.authority().as_str())
    {
        return None;
    }
    let query = request.uri().query().unwrap_or_default();
    Reply::see_other(&format!("{origin}{CALLBACK}?{query}"), origin).ok().map(Reply::into_response)
}

/// Returns the person who returned for this flow and has to decide, if there is one.
pub(super) async fn arrived(pages: &Pages, flow: &Flow) -> Result<Option<Arrival>, Trouble> {
    let request = flow.opened.uri.id();
    let arrival = pages.app.links.waiting(request, flow.visit.device.as_str()).await?;
    let Some(arrival) = arrival else { return Ok(None) };
    // Another browser with a cookie from before the return is not the person.
    let signed_in = pages.app.sign_ins.linked_in(&flow.visit, Persistence::OneRequest(request)).await?;
    if !signed_in.contains(&arrival.did) {
        return Ok(None);
    }
    let linked = linked(&arrival);
    if flow.opened.wants(&linked.did, &linked.handle) {
        return Ok(Some(arrival));
    }
    // The app named another account, and would refuse tokens for this one.
    pages.app.links.drop_waiting(&arrival.link).await?;
    Ok(None)
}

/// Shows the consent page to a linked person.
pub(super) async fn ask(
    pages: &Pages,
    call: &Call,
    flow: &Flow,
    arrival: &Arrival,
) -> Result<Reply, Trouble> {
    let view = pages.app.oauth.consent_view_linked(&flow.opened, &linked(arrival)).await?;
    let server = arrival.issuer.split("://").nth(1).unwrap_or(&arrival.issuer);
    consent_page::page(pages, call, flow, &view, Some((arrival.link.as_str(), server)))
}

/// Handles a linked person's answer.
pub(super) async fn decide(pages: &Pages, call: &Call, form: &Form, flow: Flow) -> Result<Reply, Trouble> {
    let app = &pages.app;
    let arrival = arrived(pages, &flow).await?.filter(|arrival| arrival.link.as_str() == form.text("link"));
    let Some(arrival) = arrival else { return Err(Trouble::NotSignedIn) };
    if form.text("answer") != "allow" {
        app.links.drop_waiting(&arrival.link).await?;
        let redirect = app.oauth.reject(&flow.opened).await?;
        return flow.leave(pages, call, &redirect).await;
    }
    let redirect = app.oauth.approve_linked(&flow.opened, &linked(&arrival)).await?;
    flow.leave(pages, call, &redirect).await
}

/// Ends the sign-in at the external server when its person leaves the flow.
pub(super) async fn forget(pages: &Pages, flow: &Flow) -> Result<(), Trouble> {
    if let Some(arrival) = arrived(pages, flow).await? {
        pages.app.links.drop_waiting(&arrival.link).await?;
    }
    Ok(())
}

/// Returns the linked people who manage their apps in this browser.
pub(super) async fn visitors(pages: &Pages, visit: &Visit) -> Result<Vec<Visitor>, Trouble> {
    let mut visitors = pages.app.links.visitors(visit.device.as_str()).await?;
    if !visitors.is_empty() {
        let signed_in = pages.app.sign_ins.linked_in(visit, Persistence::Visit).await?;
        visitors.retain(|visitor| signed_in.contains(&visitor.did));
    }
    Ok(visitors)
}

fn linked(arrival: &Arrival) -> LinkedAccount {
    LinkedAccount {
        id: (&arrival.link).into(),
        did: arrival.did.clone(),
        handle: arrival.handle.clone().unwrap_or_else(|| arrival.did.to_string()),
        scope: ExpandedScope::granted_externally(arrival.scope.clone()),
    }
}

const REFRESH: HeaderName = http::header::REFRESH;
/// Longer than a sign-in may take.
const AN_HOUR: u64 = 3600;
