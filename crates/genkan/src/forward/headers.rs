//! Which headers cross, each way. Both are lists of what may; all else stays behind.

use http::header::{
    self, CACHE_CONTROL, CONNECTION, CONTENT_DISPOSITION, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    HeaderValue, USER_AGENT, VARY, VIA,
};

/// What a request gets from us on its way to a host.
#[derive(Debug)]
pub(super) struct Onward<'a> {
    /// The caller's own token goes along, and what belongs to it.
    pub(super) by_caller: bool,
    pub(super) host: &'a HeaderValue,
    /// The client's address.
    pub(super) client: &'a HeaderValue,
    /// Our name in `Via`.
    pub(super) via: &'a HeaderValue,
}

/// Leaves of a request's headers what may reach a host, and adds ours.
pub(super) fn onward(headers: &mut HeaderMap, ours: &Onward<'_>) {
    drop_named_by_connection(headers);
    retain(headers, |name| reaches_host(name, ours.by_caller));
    let via = match headers.remove(VIA) {
        Some(before) => append(&before, ours.via),
        None => ours.via.clone(),
    };
    headers.insert(VIA, via);
    headers.insert(HOST, ours.host.clone());
    headers.insert(USER_AGENT, AGENT);
    headers.insert(FORWARDED_FOR, ours.client.clone());
    if !headers.contains_key(header::ACCEPT_ENCODING) {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
}

/// Leaves of an answer's headers what may reach a client, and adds what guards our origin.
pub(super) fn back(headers: &mut HeaderMap, by_caller: bool, is_blob: bool) {
    drop_named_by_connection(headers);
    retain(headers, |name| reaches_client(name, by_caller));
    let kind = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    if is_blob || !HARMLESS.iter().any(|harmless| kind.starts_with(harmless)) {
        let name = headers.get(CONTENT_DISPOSITION).and_then(plain_file_name);
        headers.insert(CONTENT_DISPOSITION, name.unwrap_or(HeaderValue::from_static("attachment")));
    }
    if by_caller {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        headers.append(VARY, HeaderValue::from_static("authorization"));
    }
    for (name, value) in &GUARDS {
        headers.insert(name, value.clone());
    }
}

/// Whether a request's header may reach a host. What we replace is let through here.
fn reaches_host(name: &HeaderName, by_caller: bool) -> bool {
    match name.as_str() {
        "accept" | "accept-encoding" | "accept-language" | "content-encoding" | "content-length"
        | "content-type" | "host" | "if-modified-since" | "if-none-match" | "if-range" | "range"
        | "user-agent" | "via" => true,
        "atproto-accept-labelers" | "atproto-proxy" | "authorization" | "x-bsky-topics" => by_caller,
        other => by_caller && other.starts_with("x-atproto-"),
    }
}

/// Whether an answer's header may reach a client.
fn reaches_client(name: &HeaderName, by_caller: bool) -> bool {
    match name.as_str() {
        "accept-ranges"
        | "age"
        | "atproto-content-labelers"
        | "atproto-repo-rev"
        | "cache-control"
        | "content-disposition"
        | "content-encoding"
        | "content-language"
        | "content-length"
        | "content-range"
        | "content-type"
        | "date"
        | "etag"
        | "expires"
        | "last-modified"
        | "ratelimit-limit"
        | "ratelimit-policy"
        | "ratelimit-remaining"
        | "ratelimit-reset"
        | "retry-after"
        | "vary" => true,
        "www-authenticate" => by_caller,
        _ => false,
    }
}

/// Removes what the `Connection` header says is for this connection only (RFC 9110 §7.6.1).
fn drop_named_by_connection(headers: &mut HeaderMap) {
    let Some(first) = headers.get(CONNECTION) else { return };
    if [&b"keep-alive"[..], b"close"].iter().any(|usual| first.as_bytes().eq_ignore_ascii_case(usual))
        && headers.get_all(CONNECTION).iter().count() == 1
    {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// Keeps the headers whose name fits. Costs nothing but the look when all do.
fn retain(headers: &mut HeaderMap, fits: impl Fn(&HeaderName) -> bool) {
    let unfit: Vec<HeaderName> = headers.keys().filter(|name| !fits(name)).cloned().collect();
    for name in unfit {
        headers.remove(name);
    }
}

/// `Via` with one more station.
fn append(before: &HeaderValue, ours: &HeaderValue) -> HeaderValue {
    let joined = [before.as_bytes(), ours.as_bytes()].join(&b", "[..]);
    HeaderValue::from_bytes(&joined).unwrap_or_else(|_| ours.clone())
}

/// `attachment` with the name that the host gave, where that is nothing but a plain token.
fn plain_file_name(disposition: &HeaderValue) -> Option<HeaderValue> {
    let name =
        disposition.to_str().ok()?.split(';').find_map(|part| part.trim().strip_prefix("filename="))?;
    let name = name.trim_matches('"');
    let plain = !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    plain.then(|| HeaderValue::try_from(format!("attachment; filename=\"{name}\"")).ok()).flatten()
}

/// Whether a request has come through us before.
pub(super) fn has_passed(headers: &HeaderMap, via: &HeaderValue) -> bool {
    headers
        .get_all(VIA)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|station| station.trim_ascii().eq_ignore_ascii_case(via.as_bytes()))
}

const AGENT: HeaderValue = HeaderValue::from_static(concat!("Genkan/", env!("CARGO_PKG_VERSION")));
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Kinds of content that a browser shows without running any of it.
const HARMLESS: [&[u8]; 3] = [b"application/json", b"application/vnd.ipld.car", b"text/plain"];

/// Set on every answer of a host: it comes from our origin, where the sign-in pages are.
static GUARDS: [(HeaderName, HeaderValue); 6] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("cross-origin")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED)),
];

/// What scripts on other origins may read of an answer.
pub(crate) const EXPOSED: &str = "dpop-nonce, www-authenticate, atproto-repo-rev, atproto-content-labelers, \
    retry-after, ratelimit-limit, ratelimit-remaining, ratelimit-reset, ratelimit-policy, content-range, \
    content-length, content-encoding, etag";

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn sent(pairs: &[(&'static str, &'static str)], by_caller: bool) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let [host, client, via] = ["pds.example", "203.0.113.9", "1.1 genkan"].map(HeaderValue::from_static);
        onward(&mut headers, &Onward { by_caller, host: &host, client: &client, via: &via });
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    const OURS: [&str; 5] = [
        "accept-encoding: identity",
        "host: pds.example",
        concat!("user-agent: Genkan/", env!("CARGO_PKG_VERSION")),
        "via: 1.1 genkan",
        "x-forwarded-for: 203.0.113.9",
    ];

    #[test]
    fn a_target_read_carries_nothing_of_the_caller() {
        let lines = sent(
            &[
                ("authorization", "Bearer x"),
                ("dpop", "x"),
                ("cookie", "x"),
                ("proxy-authorization", "x"),
                ("x-forwarded-for", "6.6.6.6"),
                ("forwarded", "for=6.6.6.6"),
                ("habitat-auth-method", "oauth"),
                ("atproto-proxy", "did:web:x#y"),
                ("atproto-accept-labelers", "x"),
                ("x-bsky-topics", "x"),
                ("x-atproto-thing", "x"),
                ("origin", "https://x"),
                ("referer", "x"),
                ("sec-fetch-mode", "cors"),
                ("x-ratelimit-bypass", "x"),
                ("x-http-method-override", "DELETE"),
                ("expect", "100-continue"),
                ("priority", "u=1"),
                ("te", "trailers"),
                ("upgrade", "websocket"),
                ("host", "genkan.example"),
                ("user-agent", "curl"),
                ("transfer-encoding", "chunked"),
                ("keep-alive", "1"),
                ("connection", "te"),
            ],
            false,
        );
        assert_eq!(lines, OURS);
    }

    #[test]
    fn a_caller_keeps_the_token_and_what_the_host_reads() {
        let lines = sent(
            &[
                ("authorization", "Bearer x"),
                ("atproto-proxy", "did:web:x#y"),
                ("atproto-accept-labelers", "a"),
                ("atproto-accept-labelers", "b"),
                ("x-bsky-topics", "x"),
                ("x-atproto-thing", "x"),
                ("accept-encoding", "gzip"),
                ("content-length", "2"),
                ("content-type", "application/json"),
                ("cookie", "x"),
                ("via", "1.1 other"),
                ("accept", "*/*"),
                ("x-secret", "x"),
                ("range", "bytes=1-2"),
            ],
            true,
        );
        assert_eq!(
            lines,
            [
                "accept-encoding: gzip",
                "accept: */*",
                "atproto-accept-labelers: a",
                "atproto-accept-labelers: b",
                "atproto-proxy: did:web:x#y",
                "authorization: Bearer x",
                "content-length: 2",
                "content-type: application/json",
                OURS[1],
                "range: bytes=1-2",
                OURS[2],
                "via: 1.1 other, 1.1 genkan",
                "x-atproto-thing: x",
                "x-bsky-topics: x",
                OURS[4],
            ]
        );
    }

    #[test]
    fn what_connection_names_stays_behind() {
        let lines = sent(&[("connection", "keep-alive, Accept, x-forwarded-for"), ("accept", "*/*")], true);
        assert_eq!(lines, OURS);
        assert!(
            sent(&[("connection", "close"), ("accept", "*/*")], true).contains(&"accept: */*".to_owned())
        );
    }

    #[test]
    fn an_answer_sets_nothing_on_our_origin() {
        let mut headers = map(&[
            ("content-type", "application/json"),
            ("set-cookie", "a=b"),
            ("dpop-nonce", "x"),
            ("location", "/"),
            ("www-authenticate", "Bearer"),
            ("access-control-allow-origin", "https://evil.example"),
            ("access-control-allow-credentials", "true"),
            ("strict-transport-security", "max-age=1"),
            ("alt-svc", "h3"),
            ("clear-site-data", "*"),
            ("refresh", "0"),
            ("link", "x"),
            ("server", "x"),
            ("x-powered-by", "Express"),
            ("content-security-policy", "default-src *"),
            ("sourcemap", "x"),
            ("report-to", "x"),
            ("nel", "x"),
            ("service-worker-allowed", "/"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("etag", "\"x\""),
            ("cache-control", "public"),
            ("vary", "origin"),
        ]);
        let mut to_reader = headers.clone();
        back(&mut headers, true, false);
        back(&mut to_reader, false, false);
        let names = |headers: &HeaderMap| {
            let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).map(str::to_owned).collect();
            names.sort();
            names.join(" ")
        };
        let both = "access-control-allow-origin access-control-expose-headers cache-control content-security-policy \
            content-type cross-origin-resource-policy etag referrer-policy vary";
        assert_eq!(names(&headers), format!("{both} www-authenticate x-content-type-options"));
        assert_eq!(names(&to_reader), format!("{both} x-content-type-options"));
        assert_eq!(headers[CACHE_CONTROL], "private, no-store");
        assert_eq!(to_reader[CACHE_CONTROL], "public");
        assert_eq!(headers[header::CONTENT_SECURITY_POLICY], "default-src 'none'; sandbox");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), ["origin", "authorization"]);
    }

    #[test]
    fn what_a_browser_might_run_is_an_attachment() {
        let disposition = |pairs: &[(&'static str, &'static str)], is_blob| {
            let mut headers = map(pairs);
            back(&mut headers, false, is_blob);
            headers.get(CONTENT_DISPOSITION).map(|value| value.to_str().unwrap().to_owned())
        };
        let attachment = Some("attachment".to_owned());
        assert_eq!(disposition(&[("content-type", "text/html")], false), attachment);
        assert_eq!(disposition(&[], false), attachment);
        assert_eq!(disposition(&[("content-type", "application/json; charset=utf-8")], false), None);
        assert_eq!(disposition(&[("content-type", "application/vnd.ipld.car")], false), None);
        assert_eq!(disposition(&[("content-type", "text/plain")], true), attachment);
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

    #[test]
    fn our_own_name_in_via_is_a_loop() {
        let via = HeaderValue::from_static("1.1 genkan");
        assert!(has_passed(&map(&[("via", "1.0 x, 1.1 Genkan")]), &via));
        assert!(!has_passed(&map(&[("via", "1.0 x, 1.1 genkan2")]), &via));
    }
}
