//! What the app asks for, and what its user says.

use askama::Template;

use super::call::{Call, Form};
use super::flow::Flow;
use super::frame::{FormContext, Frame};
use super::messages::Messages;
use super::permissions::{Group, groups};
use super::reply::Reply;
use super::trouble::Trouble;
use super::{Pages, external};
use crate::oauth::ConsentView;
use crate::signin::SignIn;

#[derive(Template)]
#[template(path = "pages/consent.html")]
struct Consent<'a> {
    f: Frame<'a>,
    place: FormContext,
    client_id: &'a str,
    client_host: &'a str,
    client_name: Option<&'a str>,
    client_terms: Option<&'a str>,
    client_policy: Option<&'a str>,
    development: bool,
    handle: &'a str,
    did: &'a str,
    /// It asks for `atproto` and no more.
    only_identity: bool,
    groups: Vec<Group>,
    /// As the app wrote them.
    values: Vec<&'a str>,
    /// The session and the server of a person who signed in there: what was granted there is not chosen from here.
    external: Option<(&'a str, &'a str)>,
}

pub(super) async fn show(pages: &Pages, call: &Call, flow: &Flow, one: &SignIn) -> Result<Reply, Trouble> {
    let view = pages.app.oauth.consent_view(&flow.opened, &one.account).await?;
    page(pages, call, flow, &view, None)
}

pub(super) fn page(
    pages: &Pages,
    call: &Call,
    flow: &Flow,
    view: &ConsentView,
    external: Option<(&str, &str)>,
) -> Result<Reply, Trouble> {
    let language = call.jar.language();
    let messages = Messages::of(language);
    let page = Consent {
        f: Frame::of(pages, messages),
        place: flow.place(pages, call),
        client_id: &view.client.id,
        client_host: &view.client.host,
        client_name: view.client.name.as_deref(),
        client_terms: view.client.terms.as_deref().filter(|url| is_web_address(url)),
        client_policy: view.client.policy.as_deref().filter(|url| is_web_address(url)),
        development: view.client.development,
        handle: &view.handle,
        did: view.did.as_str(),
        only_identity: view.permissions.iter().all(|one| one.value == "atproto"),
        groups: groups(&view.permissions, language, messages),
        values: view.permissions.iter().map(|one| one.value.as_str()).collect(),
        external,
    };
    pages.show(&page, Some(&flow.opened.form_action))
}

/// The form was sent: allowed with what was left ticked, or not.
pub(super) async fn take(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let flow = Flow::of_form(&pages, &call, &form).await?;
    if !form.text("link").is_empty() {
        return external::decide(&pages, &call, &form, flow).await;
    }
    let Some(one) = flow.signed_in_as(&pages, form.text("did")).await? else {
        // Somebody plays with the form, or the sign-in ran out: either way this request is over.
        pages.app.oauth.reject(&flow.opened).await?;
        return Err(Trouble::NotSignedIn);
    };
    let redirect = if form.text("answer") == "allow" {
        pages.app.oauth.approve(&flow.opened, &one, Some(&form.all("scope"))).await?
    } else {
        pages.app.oauth.reject(&flow.opened).await?
    };
    flow.leave(&pages, &call, &redirect).await
}

/// Back to the app without an account, from any page of a flow.
pub(super) async fn reject(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let flow = Flow::of_form(&pages, &call, &form).await?;
    external::forget(&pages, &flow).await?;
    let redirect = pages.app.oauth.reject(&flow.opened).await?;
    flow.leave(&pages, &call, &redirect).await
}

/// The app wrote it: no other scheme may be a link.
fn is_web_address(url: &str) -> bool {
    url.starts_with("https://")
}
