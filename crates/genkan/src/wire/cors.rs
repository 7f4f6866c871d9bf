//! Cross-origin requests (Fetch §3.2): every origin may ask, but never with cookies.
//!
//! Genkan sets these headers itself, on every answer and on errors too; those of a PDS are never
//! passed on.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HeaderMap,
    HeaderName, HeaderValue, VARY,
};
use http::{Response, StatusCode};

/// Sets the CORS headers of every answer except a preflight's.
pub(crate) fn allow(headers: &mut HeaderMap) {
    // Browsers refuse the wildcard for requests with credentials, so a page of another site cannot
    // use the cookies of this one.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
}

/// The answer to a preflight (`OPTIONS`), before the method is looked at.
///
/// It exposes no headers, because scripts never see those of a preflight. It reflects header names,
/// so `Vary` tells caches.
pub(crate) fn preflight(asked: &HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(VERBS));
    // One day. Browsers cap it lower, and then ask more often.
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    headers.insert(VARY, HeaderValue::from_static("access-control-request-headers"));
    if let Some(names) = reflected(asked) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    response
}

/// Reflects the requested header names, so that headers invented tomorrow work without a release.
fn reflected(asked: &HeaderMap) -> Option<HeaderValue> {
    // Parsed and printed again, so that only header names can reach the answer's head.
    let names: Vec<HeaderName> = asked
        .get_all(ACCESS_CONTROL_REQUEST_HEADERS)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // The bound keeps the answer small whatever the request contained.
        .take(MOST_NAMES)
        .collect();
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    (!names.is_empty()).then(|| names.join(", ").parse().ok()).flatten()
}

/// The most header names that a preflight may ask for.
const MOST_NAMES: usize = 32;

/// The verbs that are served anywhere.
pub(crate) const VERBS: &str = "GET, HEAD, POST, OPTIONS";

/// Header fields of answers that scripts may read.
pub(crate) const EXPOSED: &str = "dpop-nonce, www-authenticate, atproto-repo-rev, atproto-content-labelers, retry-after, \
    ratelimit-limit, ratelimit-remaining, ratelimit-reset, ratelimit-policy, content-range, content-length, \
    content-encoding, etag";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_reflected_if_they_are_names_and_not_too_many() {
        let asked = |value: &str| {
            let headers = HeaderMap::from_iter([(ACCESS_CONTROL_REQUEST_HEADERS, value.parse().unwrap())]);
            preflight(&headers)
                .headers()
                .get(ACCESS_CONTROL_ALLOW_HEADERS)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(asked("Atproto-Proxy, x-new").as_deref(), Some("atproto-proxy, x-new"));
        assert_eq!(asked("a b, , c:d, ok").as_deref(), Some("ok"));
        assert_eq!(asked(""), None);
        let two = [("x-one", ACCESS_CONTROL_REQUEST_HEADERS), ("x-two", ACCESS_CONTROL_REQUEST_HEADERS)];
        let mut lines = HeaderMap::new();
        for (value, name) in two {
            lines.append(name, value.parse().unwrap());
        }
        assert_eq!(preflight(&lines).headers()[ACCESS_CONTROL_ALLOW_HEADERS], "x-one, x-two");
        let many: Vec<String> = (0..50).map(|number| format!("x-{number}")).collect();
        assert_eq!(asked(&many.join(",")).unwrap().split(", ").count(), MOST_NAMES);
    }

    #[test]
    fn no_origin_is_allowed_with_credentials() {
        let response = preflight(&HeaderMap::new());
        let headers = response.headers();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!headers.contains_key("access-control-allow-credentials"));
    }
}
