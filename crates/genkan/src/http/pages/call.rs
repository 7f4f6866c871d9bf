//! A request for a page: what the browser sent, and whether the request is allowed.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use data_encoding::HEXLOWER;
use http::header::{
    ACCEPT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HeaderMap, ORIGIN, REFERER, USER_AGENT,
};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Limited};
use subtle::ConstantTimeEq as _;

use super::paths::is_page;
use super::trouble::Trouble;
use crate::base::{Language, Origin, Secret, WaitingClient, random};
use crate::signin::{BrowserInfo, Cookies, Visit};
use crate::wire::ClientAddr;
use crate::wire::error::XrpcError;

/// A request as it is known before any work.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) address: IpAddr,
    pub(super) cookies: Option<Cookies>,
    /// The language and the cookies of the answer.
    pub(super) jar: Jar,
    /// Whether the browser sent any of Genkan's cookies, which shows that it keeps them.
    pub(super) keeps_cookies: bool,
    /// The secret that the browser got when Genkan sent it to another server.
    pub(super) browser: Option<String>,
    pub(super) uri: Uri,
    /// The browser, as long as it waits for the answer.
    pub(super) client: WaitingClient,
    headers: HeaderMap,
}

/// The language and the cookies, which may change while a request is handled and apply to every
/// kind of answer.
#[derive(Clone, Debug)]
pub(super) struct Jar {
    inner: Arc<Mutex<JarState>>,
    /// The CSRF token of every form, which is also this browser's cookie.
    token: Arc<str>,
    token_is_new: bool,
}

#[derive(Debug)]
struct JarState {
    language: Language,
    cookies: Option<Cookies>,
}

impl Jar {
    fn new(language: Language, token: Option<String>) -> Self {
        Self {
            inner: Arc::new(Mutex::new(JarState { language, cookies: None })),
            token_is_new: token.is_none(),
            token: token.unwrap_or_else(|| HEXLOWER.encode(&random::bytes::<12>())).into(),
        }
    }

    pub(super) fn language(&self) -> Language {
        self.kept().language
    }

    pub(super) fn speak(&self, language: Language) {
        self.kept().language = language;
    }

    /// Returns the cookies to send.
    pub(super) fn cookies(&self) -> Option<Cookies> {
        self.kept().cookies.clone()
    }

    /// Keeps the visit's new cookies for the answer. It is called after each step that may change
    /// them.
    pub(super) fn keep(&self, visit: &Visit) {
        if let Some(cookies) = visit.to_set() {
            self.kept().cookies = Some(cookies.clone());
        }
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) fn new_token(&self) -> Option<&str> {
        self.token_is_new.then_some(&*self.token)
    }

    fn kept(&self) -> MutexGuard<'_, JarState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names of Genkan's cookies. With https they have the prefix `__Host-`, so that another host
/// of the same domain cannot set them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    pub(super) device: &'static str,
    pub(super) session: &'static str,
    pub(super) csrf: &'static str,
    pub(super) test: &'static str,
    pub(super) link: &'static str,
}

impl Names {
    pub(super) const fn of(origin: &Origin) -> Self {
        if origin.is_https() {
            Self {
                device: "__Host-dev-id",
                session: "__Host-ses-id",
                csrf: "__Host-csrf-token",
                test: "__Host-cookie-test",
                link: "__Host-link",
            }
        } else {
            Self {
                device: "genkan-dev-id",
                session: "genkan-ses-id",
                csrf: "genkan-csrf-token",
                test: "genkan-cookie-test",
                link: "genkan-link",
            }
        }
    }
}

impl Call {
    pub(super) fn of(request: &Request<Body>, origin: &Origin) -> Result<Self, XrpcError> {
        let headers = request.headers().clone();
        let address = request.extensions().get::<ClientAddr>().copied();
        let address = address.ok_or_else(|| XrpcError::internal("a request without its client's address"))?.0;
        let names = Names::of(origin);
        let cookie = |name: &str| cookie(&headers, name);
        // Half of the pair is useless: a device without its session secret proves nothing.
        let cookies = cookie(names.device)
            .zip(cookie(names.session))
            .and_then(|(device, session)| Cookies::shown(&device, &session));
        // Only the form that Genkan makes is taken over. A planted cookie of another form is
        // replaced.
        let csrf = cookie(names.csrf).filter(|value| is_csrf(value));
        let keeps_cookies = csrf.is_some() || cookies.is_some() || cookie(names.test).is_some();
        let language = headers
            .get(ACCEPT_LANGUAGE)
            .and_then(|value| value.to_str().ok())
            .and_then(Language::accepted)
            .unwrap_or_default();
        let jar = Jar::new(language, csrf);
        let (browser, uri) = (cookie(names.link), request.uri().clone());
        let client = request.extensions().get().cloned().unwrap_or_default();
        Ok(Self { address, cookies, jar, keeps_cookies, browser, uri, client, headers })
    }

    pub(super) fn seen(&self) -> BrowserInfo {
        let user_agent = self.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        BrowserInfo {
            address: self.address,
            user_agent: user_agent.unwrap_or_default().to_owned(),
            client: self.client.clone(),
        }
    }

    /// Returns a parameter of the query that appears exactly once.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let pairs = pairs(self.uri.query().unwrap_or_default().as_bytes())?;
        single(&pairs, name).map(str::to_owned)
    }

    /// Whether the query has a parameter at all.
    pub(super) fn has_parameter(&self, name: &str) -> bool {
        pairs(self.uri.query().unwrap_or_default().as_bytes())
            .is_none_or(|pairs| pairs.iter().any(|(found, _)| found == name))
    }

    /// Checks that a page is opened by navigation, from any site, and not in a frame or by a
    /// script. Browsers and web views that do not send these headers are accepted, because opening
    /// a page changes nothing.
    pub(super) fn check_navigation(&self) -> Result<(), Trouble> {
        let fine = self.says("sec-fetch-mode", &["navigate"])
            && self.says("sec-fetch-dest", &["document"])
            && self.says("sec-fetch-site", &["same-origin", "same-site", "cross-site", "none"]);
        if fine { Ok(()) } else { Err(Trouble::Form("the page was not opened as a document of its own")) }
    }

    /// Checks that a form was sent from one of Genkan's pages. A browser that sends no
    /// `Sec-Fetch-Site` must send `Origin`.
    pub(super) fn check_form(&self, origin: &Origin) -> Result<(), Trouble> {
        let text = |name| self.headers.get(name).map(|value| value.to_str().unwrap_or_default());
        // Header values that are not visible ASCII become empty, which matches no origin.
        let (from, referer) = (text(ORIGIN), text(REFERER));
        // `Origin: null` comes from sandboxed frames and some redirects. It does not match either.
        if from.is_some_and(|from| from != origin.as_str()) {
            return Err(Trouble::Form("Origin is another"));
        }
        // Old browsers send no `Sec-Fetch-*` and some omit `Origin`. At least one of the two must
        // vouch for the form.
        if from.is_none() && !self.headers.contains_key("sec-fetch-site") {
            return Err(Trouble::Form("neither Origin nor Sec-Fetch-Site is there"));
        }
        let fine = self.says("sec-fetch-site", &["same-origin"])
            && self.says("sec-fetch-mode", &["navigate"])
            && self.says("sec-fetch-dest", &["document"]);
        if !fine {
            return Err(Trouble::Form("Sec-Fetch-* is not that of a form of ours"));
        }
        if referer.is_some_and(|referer| !is_page_of(referer, origin)) {
            return Err(Trouble::Form("Referer is no page with a form"));
        }
        Ok(())
    }

    /// Whether a header is absent or has one of these values.
    fn says(&self, name: &str, expected: &[&str]) -> bool {
        self.headers.get(name).is_none_or(|value| expected.iter().any(|one| value == one))
    }
}

fn is_page_of(referer: &str, origin: &Origin) -> bool {
    // The origin has no final slash, so `https://example.com.evil.test` leaves a rest that is not a
    // path of a page.
    let Some(rest) = referer.strip_prefix(origin.as_str()) else { return false };
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    is_page(path)
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value.to_owned())
}

fn is_csrf(value: &str) -> bool {
    value.len() == 24 && value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The fields of a submitted form.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads a form and checks that it was sent from one of Genkan's pages, with the token that its
    /// cookie has.
    pub(super) async fn read(call: &Call, request: Request<Body>, origin: &Origin) -> Result<Self, Trouble> {
        call.check_form(origin)?;
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Trouble::Form("Content-Type is not application/x-www-form-urlencoded"));
        }
        let length =
            request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        // Refused before the body is read. The limit below holds for bodies without a length.
        if length.is_some_and(|length: usize| length > LARGEST) {
            return Err(Trouble::TooLarge);
        }
        let body = Limited::new(request.into_body(), LARGEST).collect().await;
        let body = body.map_err(|_| Trouble::TooLarge)?.to_bytes();
        let form = Self(pairs(&body).ok_or(Trouble::Form("the form is not readable"))?);
        // A new token means that the browser sent no usable cookie, so no form can match it. The
        // two errors tell a lost cookie from a browser that keeps none.
        if call.jar.new_token().is_some() {
            return Err(if call.keeps_cookies {
                Trouble::Form("the form's cookie is gone")
            } else {
                Trouble::NoCookies
            });
        }
        let (given, expected) = (form.text("csrf").as_bytes(), call.jar.token().as_bytes());
        // Compared in constant time, so that the token cannot be guessed byte by byte.
        if !bool::from(given.ct_eq(expected)) {
            return Err(Trouble::Form("the form's token is not that of its cookie"));
        }
        Ok(form)
    }

    /// Returns a field that appears exactly once, and otherwise an empty text.
    pub(super) fn text(&self, name: &str) -> &str {
        single(&self.0, name).unwrap_or_default()
    }

    pub(super) fn secret(&self, name: &str) -> Secret<String> {
        Secret::new(self.text(name).to_owned())
    }

    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(found, _)| found == name).map(|(_, value)| value.clone()).collect()
    }
}

fn pairs(text: &[u8]) -> Option<Vec<(String, String)>> {
    let pairs: Vec<(String, String)> = serde_html_form::from_bytes(text).ok()?;
    // PostgreSQL cannot store NUL in a text, and no browser sends it.
    let clean = pairs.iter().all(|(name, value)| !name.contains('\0') && !value.contains('\0'));
    clean.then_some(pairs)
}

fn single<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    // A parameter that is repeated counts as absent: two readers might choose different ones.
    let mut found = pairs.iter().filter(|(one, _)| one == name);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

/// Maximum size of a form in bytes. A form has a few fields, and as many scopes as a client may
/// request.
const LARGEST: usize = 64 * 1024;
