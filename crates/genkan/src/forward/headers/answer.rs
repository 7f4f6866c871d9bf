//! The headers of a forwarded answer: those that may cross, and those that guard Genkan's origin.

use http::header::{
    self, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, VARY,
};
use http1::AnswerFields;

use crate::wire::cors;

/// The choice of an answer's headers for the client, and what the server said to Genkan itself.
///
/// What a server says about a token of Genkan's stays here and reaches no client.
#[derive(Debug)]
pub(in crate::forward) struct AnswerFilter {
    token: Token,
    follows_redirects: bool,
    /// The nonce that the server demands in the next proof.
    pub(in crate::forward) nonce: Option<String>,
    /// The server's `WWW-Authenticate`, several joined by commas.
    challenge: Option<String>,
    /// The target of the server's redirect.
    pub(in crate::forward) location: Option<String>,
}

/// The token that a request carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    None,
    /// The caller's own.
    Callers,
    Genkans,
}

impl AnswerFilter {
    pub(super) const fn new(token: Token, follows_redirects: bool) -> Self {
        Self { token, follows_redirects, nonce: None, challenge: None, location: None }
    }

    /// Whether the challenge names this error, for any scheme.
    pub(in crate::forward) fn names_error(&self, error: &str) -> bool {
        self.challenge.as_ref().is_some_and(|challenge| challenge.contains(&format!("error=\"{error}\"")))
    }

    /// Whether the challenge is one for DPoP and names this error (RFC 9449 §7.1).
    pub(in crate::forward) fn names_dpop_error(&self, error: &str) -> bool {
        let Some(challenge) = &self.challenge else { return false };
        // The scheme starts the field, or follows another challenge and a comma.
        let dpop = challenge.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("dpop "))
            || challenge.to_ascii_lowercase().contains(", dpop ");
        dpop && self.names_error(error)
    }

    /// Records what is meant for Genkan.
    fn hear(&mut self, name: &str, value: &[u8]) {
        let text = || std::str::from_utf8(value).ok().map(|text| text.trim().to_owned());
        match name {
            "dpop-nonce" if self.token == Token::Genkans => self.nonce = text(),
            "www-authenticate" if self.token == Token::Genkans => {
                self.challenge = match (self.challenge.take(), text()) {
                    // A server may send one field per scheme. Joined, they have one form (RFC 9110
                    // §5.3).
                    (Some(before), Some(more)) => Some(format!("{before}, {more}")),
                    (before, more) => more.or(before),
                };
            }
            "location" if self.follows_redirects => self.location = text(),
            _ => {}
        }
    }
}

impl AnswerFields for AnswerFilter {
    const ADDED: usize = MOST_ADDED;

    fn keep(&mut self, name: &str, value: &[u8]) -> Option<HeaderName> {
        if self.token == Token::Genkans || self.follows_redirects {
            self.hear(name, value);
        }
        reaches_client(name, self.token == Token::Callers)
    }
}

/// Adds the headers that protect Genkan's origin to those of an answer.
pub(in crate::forward) fn guard(headers: &mut HeaderMap, by_caller: bool, is_file: bool) {
    if is_file || !is_harmless(headers) {
        // The file name is the only part of the header that is worth keeping, and the only one that
        // is harmless.
        let name = headers.get(CONTENT_DISPOSITION).and_then(plain_file_name);
        headers.insert(CONTENT_DISPOSITION, name.unwrap_or(HeaderValue::from_static("attachment")));
    }
    if by_caller {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        // A shared cache must not give one caller's answer to another.
        headers.append(VARY, HeaderValue::from_static("authorization"));
    }
    for (name, value) in &GUARDS {
        headers.insert(name, value.clone());
    }
}

/// The most headers that [`guard`] adds.
const MOST_ADDED: usize = GUARDS.len() + 3;

/// Returns the name of an answer's header if it may reach a client. The body's length is not in the
/// list, because `http1` sets it.
///
/// A challenge reaches the client only when it answers the client's own token.
fn reaches_client(name: &str, by_own_token: bool) -> Option<HeaderName> {
    Some(match name {
        "accept-ranges" => header::ACCEPT_RANGES,
        "age" => header::AGE,
        "atproto-content-labelers" => HeaderName::from_static("atproto-content-labelers"),
        "atproto-repo-rev" => HeaderName::from_static("atproto-repo-rev"),
        "cache-control" => CACHE_CONTROL,
        "content-disposition" => CONTENT_DISPOSITION,
        "content-encoding" => header::CONTENT_ENCODING,
        "content-language" => header::CONTENT_LANGUAGE,
        "content-range" => header::CONTENT_RANGE,
        "content-type" => CONTENT_TYPE,
        "date" => header::DATE,
        "etag" => header::ETAG,
        "expires" => header::EXPIRES,
        "last-modified" => header::LAST_MODIFIED,
        "ratelimit-limit" => HeaderName::from_static("ratelimit-limit"),
        "ratelimit-policy" => HeaderName::from_static("ratelimit-policy"),
        "ratelimit-remaining" => HeaderName::from_static("ratelimit-remaining"),
        "ratelimit-reset" => HeaderName::from_static("ratelimit-reset"),
        "retry-after" => header::RETRY_AFTER,
        "vary" => VARY,
        "www-authenticate" if by_own_token => header::WWW_AUTHENTICATE,
        _ => return None,
    })
}

/// Whether there is exactly one content type and no browser executes it. Of several types, browsers
/// choose one.
fn is_harmless(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(CONTENT_TYPE).iter().map(HeaderValue::as_bytes);
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
    // Parameters such as the charset do not change the type.
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    !kind.contains(&b',') && HARMLESS.iter().any(|harmless| essence.eq_ignore_ascii_case(harmless))
}

/// Returns `attachment` with the host's file name, if that is a plain token.
fn plain_file_name(disposition: &HeaderValue) -> Option<HeaderValue> {
    let name =
        disposition.to_str().ok()?.split(';').find_map(|part| part.trim().strip_prefix("filename="))?;
    let name = name.trim_matches('"');
    let plain = !name.is_empty()
        // A name such as `.bashrc` would be a hidden file.
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    plain.then(|| HeaderValue::try_from(format!("attachment; filename=\"{name}\"")).ok()).flatten()
}

/// Content types that a browser shows without executing any of it.
const HARMLESS: [&[u8]; 3] = [b"application/json", b"application/vnd.ipld.car", b"text/plain"];

/// Set on every forwarded answer, because it comes from the origin of the sign-in pages.
static GUARDS: [(HeaderName, HeaderValue); 6] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("cross-origin")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(cors::EXPOSED)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn an_answer_sets_nothing_on_our_origin() {
        for name in [
            "set-cookie",
            "dpop-nonce",
            "location",
            "access-control-allow-origin",
            "access-control-allow-credentials",
            "strict-transport-security",
            "alt-svc",
            "clear-site-data",
            "refresh",
            "link",
            "server",
            "x-powered-by",
            "content-security-policy",
            "sourcemap",
            "report-to",
            "nel",
            "service-worker-allowed",
            "keep-alive",
            "transfer-encoding",
            "content-length",
            "connection",
        ] {
            assert_eq!(reaches_client(name, true), None, "{name}");
        }
        for name in ["content-type", "etag", "vary", "atproto-repo-rev", "ratelimit-reset", "retry-after"] {
            assert_eq!(reaches_client(name, false).unwrap(), name);
        }
        assert!(reaches_client("www-authenticate", true).is_some());
        assert!(reaches_client("www-authenticate", false).is_none());
    }

    #[test]
    fn an_answer_is_guarded() {
        let said = [("content-type", "application/json"), ("cache-control", "public"), ("vary", "origin")];
        let (mut own, mut public) = (map(&said), map(&said));
        guard(&mut own, true, false);
        guard(&mut public, false, false);
        assert_eq!(own[CACHE_CONTROL], "private, no-store");
        assert_eq!(public[CACHE_CONTROL], "public");
        assert_eq!(own[header::CONTENT_SECURITY_POLICY], "default-src 'none'; sandbox");
        assert_eq!(own[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(own.get_all(VARY).iter().collect::<Vec<_>>(), ["origin", "authorization"]);
        assert!(own.len() <= said.len() + MOST_ADDED);
    }

    #[test]
    fn what_a_browser_might_run_is_an_attachment() {
        let disposition = |pairs: &[(&'static str, &'static str)], is_file| {
            let mut headers = map(pairs);
            guard(&mut headers, false, is_file);
            headers.get(CONTENT_DISPOSITION).map(|value| value.to_str().unwrap().to_owned())
        };
        let attachment = Some("attachment".to_owned());
        assert_eq!(disposition(&[("content-type", "text/html")], false), attachment);
        assert_eq!(disposition(&[], false), attachment);
        assert_eq!(disposition(&[("content-type", "application/json; charset=utf-8")], false), None);
        assert_eq!(disposition(&[("content-type", "application/vnd.ipld.car")], false), None);
        assert_eq!(disposition(&[("content-type", "text/plain")], true), attachment);
        for harmless in ["application/json", "Application/JSON ; charset=utf-8", "text/plain;charset=utf-8"] {
            assert_eq!(disposition(&[("content-type", harmless)], false), None, "{harmless}");
        }
        for odd in
            ["application/jsonx", "text/plainhtml", "text/plain, text/html", "text/html;text/plain", ""]
        {
            assert_eq!(disposition(&[("content-type", odd)], false), attachment, "{odd}");
        }
        let two = [("content-type", "text/plain"), ("content-type", "text/html")];
        assert_eq!(disposition(&two, false), attachment);
        let named =
            |value| disposition(&[("content-type", "image/png"), ("content-disposition", value)], true);
        assert_eq!(
            named("inline; filename=\"cat.png\""),
            Some("attachment; filename=\"cat.png\"".to_owned())
        );
        for odd in ["inline; filename=\"a b\"", "inline; filename=\"../x\"", "inline; filename=", "inline"] {
            assert_eq!(named(odd), attachment, "{odd}");
        }
    }

    fn filtered(text: &'static str, token: Token) -> (HeaderMap, AnswerFilter) {
        let mut filter = AnswerFilter::new(token, false);
        let head = http1::read_answer_head(&text.into(), false, &mut filter).unwrap().unwrap();
        (head.headers, filter)
    }

    #[test]
    fn only_what_may_cross_is_made_a_header() {
        let (headers, _) = filtered(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: a=b\r\nETag: x\r\nVary: a\r\nvary: b\r\n\
             X-Much-Longer-Than-Any-Name-That-We-Know: x\r\nConnection: etag, content-length\r\n\
             Content-Length: 007\r\n\r\n",
            Token::Callers,
        );
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        assert_eq!(lines, ["content-length: 7", "content-type: text/plain", "vary: a", "vary: b"]);
    }

    #[test]
    fn answers_to_genkans_proof_do_not_reach_the_client() {
        let text = "HTTP/1.1 401 Unauthorized\r\nDPoP-Nonce: n\r\n\
            WWW-Authenticate: DPoP algs=\"ES256\", error=\"use_dpop_nonce\"\r\ncontent-length: 0\r\n\r\n";
        let (headers, ours) = filtered(text, Token::Genkans);
        assert_eq!(ours.nonce.as_deref(), Some("n"));
        assert!(ours.names_dpop_error("use_dpop_nonce") && !ours.names_dpop_error("invalid_token"));
        assert_eq!(headers.len(), 1);
        let (headers, own) = filtered(text, Token::Callers);
        assert!(own.nonce.is_none() && own.challenge.is_none());
        assert!(headers.contains_key("www-authenticate") && !headers.contains_key("dpop-nonce"));
    }
}
