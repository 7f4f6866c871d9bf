//! An authorization request in a browser.

use super::call::{Call, Form};
use super::frame::{FlowRef, FormContext};
use super::reply::Reply;
use super::trouble::Trouble;
use super::{Pages, redirect};
use crate::base::Language;
use crate::oauth::{OpenRequest, Redirect};
use crate::signin::{SignIn, Visit};

/// A flow that this browser has opened and owns.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) opened: OpenRequest,
    pub(super) visit: Visit,
    pub(super) reference: FlowRef,
}

impl Flow {
    pub(super) async fn open(
        pages: &Pages,
        call: &Call,
        client_id: &str,
        request_uri: &str,
    ) -> Result<Self, Trouble> {
        let visit = pages.visit(call).await?;
        let mut opened = pages.app.oauth.open(request_uri, client_id, &visit.device).await?;
        opened.browser = call.client.clone();
        if let Some(language) = Language::first_of(opened.ui_locales.iter().map(String::as_str)) {
            call.jar.speak(language);
        }
        let reference = FlowRef {
            client_id: client_id.to_owned(),
            request_uri: request_uri.to_owned(),
            host: opened.client.host.clone(),
        };
        Ok(Self { opened, visit, reference })
    }

    /// Opens the flow of a form.
    pub(super) async fn of_form(pages: &Pages, call: &Call, form: &Form) -> Result<Self, Trouble> {
        Self::open(pages, call, form.text("client_id"), form.text("request_uri")).await
    }

    pub(super) fn context(&self, pages: &Pages, call: &Call) -> FormContext {
        FormContext::of(pages, call, Some(self.reference.clone()))
    }

    /// Returns the accounts that are signed in to this browser, at least for this request.
    pub(super) async fn signed_in(&self, pages: &Pages) -> Result<Vec<SignIn>, Trouble> {
        Ok(pages.app.sign_ins.signed_in(&self.visit, Some(self.opened.uri.id())).await?)
    }

    pub(super) async fn signed_in_as(&self, pages: &Pages, did: &str) -> Result<Option<SignIn>, Trouble> {
        Ok(self.signed_in(pages).await?.into_iter().find(|one| one.account.did.as_str() == did))
    }

    /// Returns to the app after the request was decided, with a new cookie.
    pub(super) async fn leave(
        mut self,
        pages: &Pages,
        call: &Call,
        redirect: &Redirect,
    ) -> Result<Reply, Trouble> {
        // Without this answer the app would get no code for what is allowed already, and the same form
        // cannot be sent again.
        if let Err(cause) = pages.app.sign_ins.rotate(&mut self.visit).await {
            let cause = &cause as &dyn std::error::Error;
            tracing::warn!(cause, "a cookie was not rotated after a decision");
        }
        call.jar.keep(&self.visit);
        redirect::leave(pages, call.jar.language(), redirect)
    }
}
