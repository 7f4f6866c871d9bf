//! The pages that people sign in on: plain forms that work without script.
//!
//! A *page* is shown by a GET, which changes nothing but who holds an authorization request; a *form* is sent by a
//! POST, which answers 303 to the next page, or the same page again with what is wrong in it. A *flow* is an
//! authorization request in a browser; its pages carry `client_id` and `request_uri` along, and where a flow leads
//! back to is never read from a browser. Everything else is below `/account`.

mod account;
mod authorize;
mod call;
mod colour;
mod consent;
mod email;
mod external;
mod flow;
mod frame;
mod messages;
mod permissions;
mod redirect;
mod reply;
mod reset;
mod sign_in;
mod sign_up;
mod theme;
mod trouble;

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Request, StatusCode};

use crate::app::App;
use crate::base::{Language, Origin};
use crate::limits::Limit;
use crate::links::CALLBACK;
use crate::signin::Visit;
use crate::wire::error::{ErrorName, XrpcError};
use call::{Call, Form, Jar, Names};
use frame::Frame;
use messages::Messages;
use reply::Reply;
use theme::Theme;
pub(crate) use theme::ThemeError;
use trouble::Trouble;

/// What the pages are made with. Cheap to clone.
#[derive(Clone, Debug)]
struct Pages {
    app: App,
    theme: Theme,
}

/// Every page, and the files that pages load.
pub(crate) fn routes(app: &App) -> Result<Router, ThemeError> {
    let pages = Pages { app: app.clone(), theme: Theme::of(&app.config)? };
    macro_rules! page {
        ($show:path) => {
            get(async |State(pages): State<Pages>, request: Request<Body>| pages.page(request, $show).await)
        };
    }
    macro_rules! form {
        ($take:path) => {
            post(async |State(pages): State<Pages>, request: Request<Body>| pages.form(request, $take).await)
        };
    }
    let routes = Router::new()
        .route("/oauth/authorize", page!(authorize::show))
        .route("/oauth/authorize/sign-in", form!(sign_in::take))
        .route("/oauth/authorize/sign-up", form!(sign_up::take))
        .route("/oauth/authorize/choose", form!(authorize::choose))
        .route("/oauth/authorize/consent", form!(consent::take))
        .route("/oauth/authorize/reject", form!(consent::reject))
        .route("/oauth/authorize/reactivate", form!(authorize::reactivate))
        .route(CALLBACK, page!(external::back))
        .route("/account", page!(account::first))
        .route("/account/u/{did}", page!(account::show))
        .route("/account/email/code", page!(account::first).merge(form!(email::send_code)))
        .route("/account/email/confirm", page!(account::first).merge(form!(email::confirm)))
        .route("/account/email/change", page!(account::first).merge(form!(email::change)))
        .route("/account/reactivate", page!(account::first).merge(form!(account::reactivate)))
        .route("/account/sign-in", page!(sign_in::show).merge(form!(sign_in::take)))
        .route("/account/sign-up", page!(sign_up::show).merge(form!(sign_up::take)))
        .route("/account/revoke", form!(account::revoke))
        .route("/account/reset-password", page!(reset::show).merge(form!(reset::take)))
        .route("/account/sign-out", form!(account::sign_out))
        .route("/account/{*rest}", page!(nothing))
        .merge(pages.theme.routes());
    Ok(routes.with_state(pages))
}

/// Whether a path is one of the pages: they are for their own origin only.
pub(crate) fn is_page(path: &str) -> bool {
    ["/oauth/authorize", "/account", CALLBACK]
        .iter()
        .any(|page| path.strip_prefix(page).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

async fn nothing(_: Pages, _: Call) -> Result<Reply, Trouble> {
    Err(Trouble::NotFound)
}

impl Pages {
    fn origin(&self) -> &Origin {
        &self.app.config.service.public_url
    }

    async fn page<F, Fut>(self, request: Request<Body>, show: F) -> Response
    where
        F: FnOnce(Self, Call) -> Fut,
        Fut: Future<Output = Result<Reply, Trouble>>,
    {
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

    async fn form<F, Fut>(self, request: Request<Body>, take: F) -> Response
    where
        F: FnOnce(Self, Call, Form) -> Fut,
        Fut: Future<Output = Result<Reply, Trouble>>,
    {
        let call = match Call::of(&request, self.origin()) {
            Ok(call) => call,
            Err(error) => return error.into_response(),
        };
        let jar = call.jar.clone();
        let done = match Form::read(&call, request, self.origin()).await {
            Ok(form) => take(self.clone(), call, form).await,
            Err(trouble) => Err(trouble),
        };
        self.answer(done, &jar)
    }

    /// Every answer carries the cookies that changed on the way to it, also one about trouble: what rotated is
    /// worth nothing any more.
    fn answer(&self, done: Result<Reply, Trouble>, jar: &Jar) -> Response {
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
            response.extensions_mut().insert(ErrorName(name.into()));
        }
        response
    }

    fn about(
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
            Trouble::Limited(verdict) => {
                let seconds = verdict.retry_after(self.app.clock.now());
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

    /// The browser at hand, known from now on.
    async fn visit(&self, call: &Call) -> Result<Visit, Trouble> {
        let visit = self.app.sign_ins.visit(call.cookies.as_ref(), &call.seen()).await?;
        call.jar.keep(&visit);
        Ok(visit)
    }

    /// The browser at hand, if it is known.
    async fn known_visit(&self, call: &Call) -> Result<Option<Visit>, Trouble> {
        let visit = self.app.sign_ins.peek(call.cookies.as_ref(), &call.seen()).await?;
        if let Some(visit) = &visit {
            call.jar.keep(visit);
        }
        Ok(visit)
    }

    /// Counts an attempt, before its work.
    async fn count(&self, limit: Limit, key: &str) -> Result<(), Trouble> {
        let app = &self.app;
        match app.limits.attempt(&app.db, limit, key, app.clock.now()).await? {
            Some(verdict) if !verdict.allowed => Err(Trouble::Limited(verdict)),
            _ => Ok(()),
        }
    }

    fn show(&self, page: &impl askama::Template, form_action: Option<&str>) -> Result<Reply, Trouble> {
        Reply::page(StatusCode::OK, page, self.origin(), form_action)
    }

    fn see_other(&self, location: &str) -> Result<Reply, Trouble> {
        Reply::see_other(location, self.origin())
    }
}

/// Answers no sooner than this, so that how long it took tells nothing.
async fn at_least<T>(least: Duration, work: impl Future<Output = T>) -> T {
    let (done, ()) = tokio::join!(work, tokio::time::sleep(least));
    done
}

/// Sign-ins, handle checks and their failures.
const LEAST: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests;

#[cfg(test)]
mod path_tests {
    use super::*;

    #[test]
    fn pages_are_known_by_their_paths() {
        for path in [
            "/oauth/authorize",
            "/oauth/authorize/sign-in",
            "/oauth/callback",
            "/account",
            "/account/u/did:plc:x",
        ] {
            assert!(is_page(path), "{path}");
        }
        for path in ["/", "/oauth/authorizes", "/oauth/token", "/accounts", "/xrpc/account"] {
            assert!(!is_page(path), "{path}");
        }
    }
}
