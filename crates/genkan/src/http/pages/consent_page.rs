//! The page that asks an account's owner for consent.

use askama::Template;

use super::Pages;
use super::call::Call;
use super::flow::Flow;
use super::frame::{FormContext, Frame};
use super::messages::Messages;
use super::permissions::{Group, groups};
use super::reply::Reply;
use super::trouble::Trouble;
use crate::oauth::ConsentView;

#[derive(Template)]
#[template(path = "pages/consent.html")]
struct Consent<'a> {
    f: Frame<'a>,
    context: FormContext,
    client_id: &'a str,
    client_host: &'a str,
    client_name: Option<&'a str>,
    client_terms: Option<&'a str>,
    client_policy: Option<&'a str>,
    development: bool,
    handle: &'a str,
    did: &'a str,
    /// Whether the app requests only `atproto`.
    only_identity: bool,
    groups: Vec<Group>,
    /// The requested values, as the app wrote them.
    values: Vec<&'a str>,
    /// The link and the server of a person who signed in there. Scope values that were granted
    /// there cannot be deselected here.
    external: Option<(&'a str, &'a str)>,
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
        context: flow.context(pages, call),
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

/// Whether a URL may be a link. The app chose it, so only web addresses may.
fn is_web_address(url: &str) -> bool {
    url.starts_with("https://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_links_to_web_pages_only() {
        assert!(is_web_address("https://app.example.com/terms"));
        for other in ["javascript:alert(1)//https://", "data:text/html,x", "http://app.example.com/terms", ""]
        {
            assert!(!is_web_address(other), "{other}");
        }
    }
}
