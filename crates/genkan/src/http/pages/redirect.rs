//! The redirect back to the app.

use askama::Template;
use genkan_protocol::oauth::request::ResponseMode;
use http::StatusCode;

use super::Pages;
use super::frame::Frame;
use super::messages::Messages;
use super::reply::Reply;
use super::trouble::Trouble;
use crate::base::Language;
use crate::base::query::escaped;
use crate::oauth::Redirect;

/// A form that submits itself, for apps that want the answer as a POST.
#[derive(Template)]
#[template(path = "pages/form_post.html")]
struct FormPost<'a> {
    f: Frame<'a>,
    uri: &'a str,
    parameters: Vec<(&'static str, &'a str)>,
    script: &'a str,
}

/// Sends the browser to the address in the stored request.
pub(super) fn leave(pages: &Pages, language: Language, redirect: &Redirect) -> Result<Reply, Trouble> {
    let joint = match redirect.mode {
        ResponseMode::Query if redirect.uri.contains('?') => '&',
        ResponseMode::Query => '?',
        ResponseMode::Fragment => '#',
        ResponseMode::FormPost => return form_post(pages, language, redirect),
    };
    let said: Vec<String> = redirect
        .parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", escaped(value.expose())))
        .collect();
    pages.see_other(&format!("{}{joint}{}", redirect.uri, said.join("&")))
}

fn form_post(pages: &Pages, language: Language, redirect: &Redirect) -> Result<Reply, Trouble> {
    let page = FormPost {
        f: Frame::of(pages, Messages::of(language)),
        uri: &redirect.uri,
        parameters: redirect
            .parameters
            .iter()
            .map(|(name, value)| (*name, value.expose().as_str()))
            .collect(),
        script: &pages.theme.script.path,
    };
    let target = target(&redirect.uri);
    Reply::page(StatusCode::OK, &page, pages.origin(), Some(&target))
}

/// Returns the `form-action` source of the address.
fn target(uri: &str) -> String {
    match uri.split_once("://") {
        Some((scheme, rest)) => {
            format!("{scheme}://{}", rest.split(['/', '?', '#']).next().unwrap_or_default())
        }
        None => format!("{}:", uri.split(':').next().unwrap_or_default()),
    }
}
