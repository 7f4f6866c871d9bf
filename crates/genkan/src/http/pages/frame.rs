//! The frame of all pages, and the page that has only a message.

use askama::Template;

use super::Pages;
use super::call::Call;
use super::messages::Messages;
use crate::base::query::escaped;

/// The frame around a page.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) messages: &'static Messages,
    pub(super) brand: &'a str,
    /// The host in the address bar.
    pub(super) host: &'a str,
    pub(super) css: &'a str,
    pub(super) logo: Option<&'a str>,
    pub(super) privacy: Option<&'a str>,
    pub(super) terms: Option<&'a str>,
    pub(super) contact: Option<&'a str>,
    pub(super) problems: Vec<Note>,
}

/// A mistake in a form.
#[derive(Clone, Debug)]
pub(super) struct Note {
    /// The field with the mistake. Empty for the form as a whole.
    pub(super) field: &'static str,
    pub(super) text: String,
}

impl Note {
    pub(super) fn new(field: &'static str, text: impl Into<String>) -> Self {
        Self { field, text: text.into() }
    }
}

impl<'a> Frame<'a> {
    pub(super) fn of(pages: &'a Pages, messages: &'static Messages) -> Self {
        let service = &pages.app.config.service;
        Self {
            messages,
            brand: &pages.theme.name,
            host: service.public_url.authority().as_str(),
            css: &pages.theme.css.path,
            logo: pages.theme.logo.as_ref().map(|logo| logo.path.as_str()),
            privacy: service.privacy_policy_url.as_deref(),
            terms: service.terms_of_service_url.as_deref(),
            contact: service.contact_email.as_deref(),
            problems: Vec::new(),
        }
    }

    pub(super) fn for_call(pages: &'a Pages, call: &Call) -> Self {
        Self::of(pages, Messages::of(call.jar.language()))
    }

    pub(super) fn with(mut self, problems: Vec<Note>) -> Self {
        self.problems = problems;
        self
    }

    /// Returns the mistake in a field.
    pub(super) fn problem_of(&self, field: &str) -> Option<&str> {
        self.problems.iter().find(|note| note.field == field).map(|note| note.text.as_str())
    }
}

/// The context of a form: in a flow or among the account pages.
#[derive(Clone, Debug)]
pub(super) struct FormContext {
    pub(super) csrf: String,
    pub(super) flow: Option<FlowRef>,
    pub(super) reset_link: String,
}

/// The parameters that each page of a flow passes to the next.
#[derive(Clone, Debug)]
pub(super) struct FlowRef {
    pub(super) client_id: String,
    pub(super) request_uri: String,
    /// The app's host, as people see it.
    pub(super) host: String,
}

impl FlowRef {
    /// Creates a reference that only leads back. Whether the request exists is not checked here.
    pub(super) fn back(client_id: &str, request_uri: &str) -> Self {
        Self { client_id: client_id.to_owned(), request_uri: request_uri.to_owned(), host: String::new() }
    }

    pub(super) fn query(&self) -> String {
        format!("client_id={}&request_uri={}", escaped(&self.client_id), escaped(&self.request_uri))
    }
}

impl FormContext {
    pub(super) fn of(pages: &Pages, call: &Call, flow: Option<FlowRef>) -> Self {
        let mut context = Self { csrf: call.jar.token().to_owned(), flow, reset_link: String::new() };
        // Without mail no code can be sent, so the page has no link to the form.
        if pages.app.emails.is_on() {
            context.reset_link = context.reset_step("");
        }
        context
    }

    /// Returns the path that a form is sent to.
    pub(super) fn action(&self, form: &str) -> String {
        let base = if self.flow.is_some() { "/oauth/authorize" } else { "/account" };
        format!("{base}/{form}")
    }

    /// Returns the address of another page. The empty step is the flow's present one.
    pub(super) fn link(&self, step: &str) -> String {
        match &self.flow {
            None => format!("/account/{step}").trim_end_matches('/').to_owned(),
            Some(flow) if step.is_empty() => format!("/oauth/authorize?{}", flow.query()),
            Some(flow) => format!("/oauth/authorize?{}&step={step}", flow.query()),
        }
    }

    /// Returns the address of a page for a lost password. Such a page leads back to where it was
    /// reached from.
    pub(super) fn reset_step(&self, step: &str) -> String {
        let step = if step.is_empty() { String::new() } else { format!("step={step}") };
        let query: Vec<String> =
            self.flow.iter().map(FlowRef::query).chain((!step.is_empty()).then_some(step)).collect();
        let joint = if query.is_empty() { "" } else { "?" };
        format!("/account/reset-password{joint}{}", query.join("&"))
    }

    /// Returns the address that continues with this account.
    pub(super) fn link_for(&self, did: &str) -> String {
        match &self.flow {
            None => format!("/account/u/{did}"),
            Some(_) => format!("{}&did={}", self.link("go"), escaped(did)),
        }
    }
}

/// A page that has only a message.
#[derive(Debug, Template)]
#[template(path = "pages/message.html")]
pub(super) struct Message<'a> {
    pub(super) f: Frame<'a>,
    pub(super) title: &'a str,
    pub(super) paragraphs: Vec<String>,
    pub(super) technical: Vec<(&'static str, &'static str)>,
    pub(super) link: Option<(&'a str, &'a str)>,
}
