//! Answers to browsers: pages with their headers, and redirects.

use askama::Template;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, SET_COOKIE,
};

use super::call::Names;
use super::trouble::Trouble;
use crate::base::Origin;
use crate::signin::Cookies;

/// An answer under construction.
#[derive(Debug)]
pub(super) struct Reply {
    response: Response,
}

impl Reply {
    /// A page. `form_action` is another origin to which its forms may lead.
    pub(super) fn page(
        status: StatusCode,
        page: &impl Template,
        origin: &Origin,
        form_action: Option<&str>,
    ) -> Result<Self, Trouble> {
        let html = page.render().map_err(|cause| Trouble::Bug(Box::new(cause)))?;
        let mut reply = Self { response: Response::new(Body::from(html)) };
        *reply.response.status_mut() = status;
        reply.set(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        reply.set(CONTENT_SECURITY_POLICY, policy(origin, form_action));
        reply.protect(origin);
        Ok(reply)
    }

    /// Redirects to another address, with GET after any verb. 303, because 307 would send the form
    /// there.
    pub(super) fn see_other(location: &str, origin: &Origin) -> Result<Self, Trouble> {
        let location = HeaderValue::from_str(location).map_err(|cause| Trouble::Bug(Box::new(cause)))?;
        let mut reply = Self { response: Response::new(Body::empty()) };
        // 303, so that the browser follows with a GET and a reload does not send the form again.
        *reply.response.status_mut() = StatusCode::SEE_OTHER;
        reply.set(LOCATION, location);
        reply.protect(origin);
        Ok(reply)
    }

    pub(super) fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.response.headers_mut().insert(name, value);
    }

    pub(super) fn in_language(mut self, tag: &'static str) -> Self {
        self.set(CONTENT_LANGUAGE, HeaderValue::from_static(tag));
        self
    }

    /// Sends the cookies by which a browser is known.
    pub(super) fn set_pair(&mut self, cookies: &Cookies, origin: &Origin) {
        let names = Names::of(origin);
        self.set_cookie(names.device, cookies.device().expose(), Some(TEN_YEARS), origin);
        self.set_cookie(names.session, cookies.session().expose(), Some(TEN_YEARS), origin);
    }

    /// Sets a cookie. It is Lax and not Strict, because apps send browsers here from other sites.
    /// Without `lifetime` it ends with the browser.
    pub(super) fn set_cookie(&mut self, name: &str, value: &str, lifetime: Option<u64>, origin: &Origin) {
        let age = lifetime.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
        let secure = if origin.is_https() { "; Secure" } else { "" };
        // `Lax` and not `Strict`: the person comes from the app's site, and must be known on the
        // first page.
        let text = format!("{name}={value}; Path=/{age}; HttpOnly; SameSite=Lax{secure}");
        let mut value: HeaderValue = text.parse().expect("our names and values are plain letters");
        // Debug output of the headers then hides the value.
        value.set_sensitive(true);
        self.response.headers_mut().append(SET_COOKIE, value);
    }

    pub(super) fn into_response(self) -> Response {
        self.response
    }

    fn protect(&mut self, origin: &Origin) {
        for (name, value) in HEADERS {
            self.set(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        // Pages show accounts and contain tokens against forged forms, so no cache may keep them.
        self.set(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if origin.is_https() {
            let year = HeaderValue::from_static("max-age=63072000");
            self.set(http::header::STRICT_TRANSPORT_SECURITY, year);
        }
    }
}

/// The content security policy: everything comes from this origin, no page frames it, and forms
/// lead to this origin and to the app of the present request.
fn policy(origin: &Origin, form_action: Option<&str>) -> HeaderValue {
    // `form-action` cannot express an IPv6 address, so its scheme is allowed.
    let beyond = match form_action {
        Some(target) if target.contains('[') => target.split_once("//").map_or(target, |(scheme, _)| scheme),
        Some(target) => target,
        None => "",
    };
    // The value comes from a registered redirect URI. Characters that could end the directive are
    // refused all the same.
    let plain = beyond.bytes().all(|byte| byte.is_ascii_graphic() && !b";,'\"".contains(&byte));
    let joint = if beyond.is_empty() || !plain { "" } else { " " };
    let beyond = if plain { beyond } else { "" };
    let upgrade = if origin.is_https() { "; upgrade-insecure-requests" } else { "" };
    let text = format!(
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
         base-uri 'none'; frame-ancestors 'none'; form-action 'self'{joint}{beyond}{upgrade}"
    );
    text.parse().expect("the policy is made of visible characters")
}

const CONTENT_SECURITY_POLICY: HeaderName = http::header::CONTENT_SECURITY_POLICY;

const HEADERS: [(&str, &str); 9] = [
    ("cross-origin-embedder-policy", "credentialless"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "permissions-policy",
        "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=(), interest-cohort=()",
    ),
    ("referrer-policy", "same-origin"),
    ("vary", "accept-language, cookie"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("x-xss-protection", "0"),
];

const TEN_YEARS: u64 = 10 * 365 * 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_may_lead_back_to_the_app_and_nowhere_else() {
        let origin = "http://localhost:2583".parse().unwrap();
        let said = |target| policy(&origin, target).to_str().unwrap().to_owned();
        assert!(said(None).ends_with("form-action 'self'"));
        assert!(
            said(Some("https://app.example.com")).ends_with("form-action 'self' https://app.example.com")
        );
        assert!(said(Some("com.example.app:")).ends_with("form-action 'self' com.example.app:"));
        assert!(said(Some("http://[::1]:80")).ends_with("form-action 'self' http:"));
        assert!(said(Some("https://x; script-src *")).ends_with("form-action 'self'"));
        let https = "https://example.com".parse().unwrap();
        assert!(policy(&https, None).to_str().unwrap().ends_with("; upgrade-insecure-requests"));
    }

    #[test]
    fn cookies_are_locked_to_this_very_host() {
        for (origin, expected) in [
            ("https://example.com", "__Host-ses-id=x; Path=/; Max-Age=1; HttpOnly; SameSite=Lax; Secure"),
            ("http://localhost:1", "genkan-ses-id=x; Path=/; Max-Age=1; HttpOnly; SameSite=Lax"),
        ] {
            let origin = origin.parse().unwrap();
            let mut reply = Reply::see_other("/", &origin).unwrap();
            reply.set_cookie(Names::of(&origin).session, "x", Some(1), &origin);
            let response = reply.into_response();
            assert_eq!(
                (response.status().as_u16(), &response.headers()["set-cookie"]),
                (303, &expected.parse::<HeaderValue>().unwrap())
            );
        }
    }
}
