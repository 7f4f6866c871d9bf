//! Answers to requests for pages and from forms, including errors.

use std::future::Future;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::Request;
use http::header::{HeaderValue, RETRY_AFTER};

use super::call::{Call, Form, Jar, Names};
use super::frame::{self, Frame};
use super::messages::Messages;
use super::reply::Reply;
use super::service::Pages;
use super::trouble::Trouble;
use super::{external, redirect};
use crate::base::Language;
use crate::http::deadline::{ANSWER_WITHIN, Deadline};
use crate::wire::error::{ErrorName, XrpcError};

impl Pages {
    pub(super) async fn page<F, Fut>(self, request: Request<Body>, show: F) -> Response
    where
        F: FnOnce(Self, Call) -> Fut,
        Fut: Future<Output = Result<Reply, Trouble>>,
    {
        // Cookies are bound to the public origin, so a page at another name of this server would
        // not see them.
        if let Some(external) = external::to_our_name(&request, self.origin()) {
            return external;
        }
        let call = match Call::of(&request, self.origin()) {
            Ok(call) => call,
            Err(error) => return error.into_response(),
        };
        let jar = call.jar.clone();
        let done = match call.check_navigation() {
            Ok(()) => show(self.clone(), call).await,
            Err(trouble) => Err(trouble),
        };
        self.answer(done, &jar)
    }

    /// Answers a form, in time. What it asked for goes on when it takes longer, or when the browser
    /// disconnects, so the same form sent again finds it.
    pub(super) async fn form<F, Fut>(self, request: Request<Body>, take: F) -> Response
    where
        F: FnOnce(Self, Call, Form) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Reply, Trouble>> + Send,
    {
        let (deadline, request) = Deadline::begin(ANSWER_WITHIN, request);
        let call = match Call::of(&request, self.origin()) {
            Ok(call) => call,
            Err(error) => return error.into_response(),
        };
        let (jar, pages) = (call.jar.clone(), self.clone());
        let work = async move {
            let form = Form::read(&call, request, pages.origin()).await?;
            take(pages, call, form).await
        };
        let done = deadline.go_on(work).await;
        self.answer(done.unwrap_or(Err(Trouble::Busy(None))), &jar)
    }

    /// Every answer carries the cookies that changed on the way, and so does an error page: a
    /// rotated cookie is no longer valid.
    pub(super) fn answer(&self, done: Result<Reply, Trouble>, jar: &Jar) -> Response {
        let mut name = None;
        let reply = match done {
            Ok(reply) => Ok(reply),
            Err(trouble) => self.about(trouble, jar.language(), &mut name),
        };
        let mut reply = match reply {
            Ok(reply) => reply.in_language(jar.language().tag()),
            Err(trouble) => return XrpcError::internal(format!("{trouble:?}")).into_response(),
        };
        if let Some(cookies) = jar.cookies() {
            reply.set_pair(&cookies, self.origin());
        }
        if let Some(token) = jar.new_token() {
            reply.set_cookie(Names::of(self.origin()).csrf, token, None, self.origin());
        }
        let mut response = reply.into_response();
        if let Some(name) = name {
            // The request log names the error, which the status alone does not tell.
            response.extensions_mut().insert(ErrorName(name.into()));
        }
        response
    }

    pub(super) fn about(
        &self,
        trouble: Trouble,
        language: Language,
        name: &mut Option<&'static str>,
    ) -> Result<Reply, Trouble> {
        if let Trouble::Leave(redirect) = trouble {
            return redirect::leave(self, language, &redirect);
        }
        let messages = Messages::of(language);
        let error_page = trouble.error_page(messages);
        *name = Some(error_page.name);
        let mut text = error_page.text.to_owned();
        let mut link = None;
        let mut retry = None;
        match &trouble {
            Trouble::Bug(cause) => tracing::error!(cause = cause.as_ref(), "answered 500 with a page"),
            Trouble::Busy(Some(cause)) => tracing::warn!(cause = cause.as_ref(), "answered 503 with a page"),
            Trouble::OverLimit(over) => {
                let seconds = over.retry_after;
                let minutes = seconds.div_ceil(60);
                let wait = if minutes == 1 {
                    messages.one_minute.to_owned()
                } else {
                    messages.with(messages.minutes, minutes)
                };
                text = messages.with(error_page.text, wait);
                retry = Some(seconds);
            }
            Trouble::NoCookies => text = messages.with(error_page.text, self.origin().host()),
            Trouble::NotFound => link = Some(("/account", messages.to_account)),
            _ => {}
        }
        if matches!(trouble, Trouble::Busy(_)) {
            retry = Some(5);
        }
        let page = frame::Message {
            f: Frame::of(self, messages),
            title: error_page.title,
            paragraphs: vec![text],
            technical: error_page.technical,
            link,
        };
        let mut reply = Reply::page(error_page.status, &page, self.origin(), None)?;
        if let Some(seconds) = retry {
            reply.set(RETRY_AFTER, HeaderValue::from(seconds));
        }
        Ok(reply)
    }
}
