//! Cross-origin requests: anybody may ask, nobody with cookies.
//!
//! Genkan answers these itself, on every answer, also on errors; what a host says is never passed on.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HeaderMap,
    HeaderName, HeaderValue,
};

/// Sets what every answer carries, forwarded ones too.
pub(crate) fn allow(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
}

/// The headers of the answer to a preflight (`OPTIONS`). Its status is 204.
pub(crate) fn preflight(asked: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    allow(&mut headers);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    if let Some(names) = reflected(asked) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    headers
}

/// The names asked for, so that headers which clients invent tomorrow work without a release.
fn reflected(asked: &HeaderMap) -> Option<HeaderValue> {
    let names: Vec<HeaderName> = asked
        .get_all(ACCESS_CONTROL_REQUEST_HEADERS)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .take(MOST_NAMES)
        .collect();
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    (!names.is_empty()).then(|| names.join(", ").parse().ok()).flatten()
}

const MOST_NAMES: usize = 32;

/// Header fields of answers that scripts may read.
const EXPOSED: &str = "dpop-nonce, www-authenticate, atproto-repo-rev, atproto-content-labelers, retry-after, \
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
                .get(ACCESS_CONTROL_ALLOW_HEADERS)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(asked("Atproto-Proxy, x-new").as_deref(), Some("atproto-proxy, x-new"));
        assert_eq!(asked("a b, , c:d, ok").as_deref(), Some("ok"));
        assert_eq!(asked(""), None);
        let many: Vec<String> = (0..50).map(|number| format!("x-{number}")).collect();
        assert_eq!(asked(&many.join(",")).unwrap().split(", ").count(), MOST_NAMES);
    }

    #[test]
    fn nobody_is_allowed_with_credentials() {
        let headers = preflight(&HeaderMap::new());
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!headers.contains_key("access-control-allow-credentials"));
    }
}
