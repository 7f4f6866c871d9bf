//! A browser without scripts. It keeps cookies, follows redirects within its site, and fills in
//! forms.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use http::Method;
use http_body_util::Full;

use crate::loopback::locked;
use crate::{Answer, Client};

/// A person's browser at one origin.
#[derive(Debug)]
pub struct Browser {
    client: Client,
    /// The origin in the address bar.
    origin: String,
    cookies: Mutex<BTreeMap<String, String>>,
    keeps_cookies: bool,
}

/// A page in a browser.
#[derive(Clone, Debug)]
pub struct Page {
    /// The path and query at which the page was found.
    pub path: String,
    /// The answer.
    pub answer: Answer,
    /// The number of redirects that led to the page.
    pub redirects: usize,
}

/// A form of a page.
#[derive(Clone, Debug)]
pub struct PageForm {
    /// The address that the form is sent to.
    pub action: String,
    /// The content: hidden fields, filled-in fields and ticked boxes.
    pub fields: Vec<(String, String)>,
    page: String,
}

impl Page {
    /// Returns the text of the page, with its tags.
    pub fn html(&self) -> String {
        String::from_utf8_lossy(&self.answer.body).into_owned()
    }

    /// Returns whether the page contains this text.
    pub fn says(&self, words: &str) -> bool {
        self.html().contains(words)
    }

    /// Returns the content of the first heading.
    pub fn heading(&self) -> String {
        let html = self.html();
        between(&html, "<h1>", "</h1>").map(unescape).unwrap_or_default()
    }

    /// Returns the form whose action ends with this text.
    ///
    /// # Panics
    ///
    /// If the page has no such form.
    #[track_caller]
    pub fn form(&self, action: &str) -> PageForm {
        let found = self.forms().into_iter().find(|form| form.action.ends_with(action));
        found.unwrap_or_else(|| panic!("no form to {action} on {} {}", self.path, self.answer.transcript()))
    }

    /// Returns all forms.
    pub fn forms(&self) -> Vec<PageForm> {
        let html = self.html();
        let forms = html.split("<form ").skip(1).map(|rest| rest.split("</form>").next().unwrap_or(rest));
        forms
            .map(|form| PageForm {
                action: attribute(form, "action").unwrap_or_default(),
                fields: fields_of(form),
                page: self.path.clone(),
            })
            .collect()
    }

    /// Returns the address that the link with this text leads to.
    ///
    /// # Panics
    ///
    /// If the page has no such link.
    #[track_caller]
    pub fn link(&self, text: &str) -> String {
        let html = self.html();
        let found = html
            .split("<a ")
            .skip(1)
            .find(|link| between(link, ">", "</a>").is_some_and(|shown| unescape(shown) == text));
        let href = found.and_then(|link| attribute(link, "href"));
        href.unwrap_or_else(|| panic!("no link {text:?} on {}:\n{html}", self.path))
    }
}

impl PageForm {
    /// Fills in a field, or replaces its content.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.retain(|(field, _)| field != name);
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds another value of a field.
    #[must_use]
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Unticks a box.
    #[must_use]
    pub fn without(mut self, name: &str, value: &str) -> Self {
        self.fields.retain(|(field, given)| field != name || given != value);
        self
    }

    /// Returns the content of a field.
    pub fn text(&self, name: &str) -> String {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    }
}

impl Browser {
    /// Makes a browser with no cookies. `client` sends the requests, `origin` is the public origin.
    pub fn new(client: Client, origin: &str) -> Self {
        Self { client, origin: origin.to_owned(), cookies: Mutex::default(), keeps_cookies: true }
    }

    /// Makes the browser drop every cookie.
    #[must_use]
    pub fn without_cookies(mut self) -> Self {
        self.keeps_cookies = false;
        self
    }

    /// Returns the value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<String> {
        locked(&self.cookies).get(name).cloned()
    }

    /// Sets a cookie.
    pub fn set_cookie(&self, name: &str, value: &str) {
        locked(&self.cookies).insert(name.to_owned(), value.to_owned());
    }

    /// Makes a second browser with the same cookies, as a thief of the cookies would have.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            client: self.client.clone(),
            origin: self.origin.clone(),
            cookies: Mutex::new(locked(&self.cookies).clone()),
            keeps_cookies: self.keeps_cookies,
        }
    }

    /// Opens a page by a link on another site, and follows the redirects that stay on this site.
    pub async fn open(&self, path: &str) -> Page {
        // Tests pass whole URLs as well as paths, as links in pages and e-mails have them.
        let path = path.strip_prefix(&self.origin).unwrap_or(path).to_owned();
        let answer = self.ask(Method::GET, &path, "cross-site", None, None).await;
        self.follow(path, answer, "cross-site").await
    }

    /// Sends a form as a person would, and follows the redirects that stay on this site.
    pub async fn send(&self, form: &PageForm) -> Page {
        let answer = self.post(form, &[]).await;
        self.follow(form.action.clone(), answer, "same-origin").await
    }

    /// Sends a form with other headers than a browser would, and follows no redirect. An empty
    /// value removes a header.
    pub async fn post(&self, form: &PageForm, changed: &[(&'static str, &str)]) -> Answer {
        let body = serde_html_form::to_string(&form.fields).unwrap();
        let referer = format!("{}{}", self.origin, form.page);
        self.ask_with(Method::POST, &form.action, "same-origin", Some(&referer), Some(body), changed).await
    }

    /// Requests a page with other headers than a browser would, and follows no redirect.
    pub async fn get(&self, path: &str, changed: &[(&'static str, &str)]) -> Answer {
        self.ask_with(Method::GET, path, "cross-site", None, None, changed).await
    }

    async fn follow(&self, mut path: String, mut answer: Answer, site: &str) -> Page {
        let mut redirects = 0;
        while answer.status == 303 && redirects < MOST_REDIRECTS {
            let location = answer.header("location").to_owned();
            let here = location.strip_prefix(&self.origin).unwrap_or(&location);
            // The redirect leaves the site, as one back to an app does. The test reads its address
            // from the page.
            if !here.starts_with('/') {
                break;
            }
            redirects += 1;
            path = here.to_owned();
            answer = self.ask(Method::GET, &path, site, None, None).await;
        }
        Page { path, answer, redirects }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        site: &str,
        referer: Option<&str>,
        body: Option<String>,
    ) -> Answer {
        self.ask_with(method, path, site, referer, body, &[]).await
    }

    async fn ask_with(
        &self,
        method: Method,
        path: &str,
        site: &str,
        referer: Option<&str>,
        body: Option<String>,
        changed: &[(&'static str, &str)],
    ) -> Answer {
        let mut headers = vec![
            ("accept-language", "en".to_owned()),
            (
                "user-agent",
                "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0".to_owned(),
            ),
            // Browsers send these fields with every navigation, and Genkan checks them.
            ("sec-fetch-site", site.to_owned()),
            ("sec-fetch-mode", "navigate".to_owned()),
            ("sec-fetch-dest", "document".to_owned()),
        ];
        if let Some(referer) = referer {
            headers.push(("referer", referer.to_owned()));
        }
        if body.is_some() {
            headers.push(("origin", self.origin.clone()));
            headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
        }
        let cookies: Vec<String> =
            locked(&self.cookies).iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            headers.push(("cookie", cookies.join("; ")));
        }
        for (name, value) in changed {
            // A changed field replaces the browser's own one.
            headers.retain(|(known, _)| known != name);
            if !value.is_empty() {
                headers.push((name, (*value).to_owned()));
            }
        }
        let mut request = self.client.request(method, path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer =
            self.client.send(request.body(Full::new(Bytes::from(body.unwrap_or_default()))).unwrap()).await;
        self.keep(&answer);
        answer
    }

    fn keep(&self, answer: &Answer) {
        if !self.keeps_cookies {
            return;
        }
        for value in answer.headers.get_all("set-cookie") {
            // Attributes are ignored: one origin and a short test need neither path nor lifetime.
            let pair = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                locked(&self.cookies).insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

fn fields_of(form: &str) -> Vec<(String, String)> {
    let inputs = form.split("<input ").skip(1).map(|rest| rest.split('>').next().unwrap_or(rest));
    let mut fields = Vec::new();
    for input in inputs {
        let (Some(name), kind) = (attribute(input, "name"), attribute(input, "type").unwrap_or_default())
        else {
            continue;
        };
        let has = |word: &str| input.split_whitespace().any(|part| part == word);
        // A browser sends neither of these fields.
        if has("disabled") || (kind == "checkbox" && !has("checked")) {
            continue;
        }
        fields.push((name, attribute(input, "value").unwrap_or_default()));
    }
    fields
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    between(tag, &format!("{name}=\""), "\"").map(unescape)
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)?.1.split_once(end).map(|(found, _)| found)
}

fn unescape(text: &str) -> String {
    // `&` comes last, or an escaped entity in the text would be read as an entity.
    ["&#60;<", "&#62;>", "&#34;\"", "&#39;'", "&#38;&"].iter().fold(text.to_owned(), |text, pair| {
        let (entity, character) = pair.split_at(5);
        text.replace(entity, character)
    })
}

const MOST_REDIRECTS: usize = 5;
