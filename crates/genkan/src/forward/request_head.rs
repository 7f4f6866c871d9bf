//! Writing the head of a request, and which of the client's headers cross in it: a list of what may; all else stays behind.

use std::fmt;

use http::header::{self, CONNECTION, HeaderMap, HeaderName, HeaderValue, VIA};
use http::request::Parts;
use zeroize::Zeroizing;

/// What a request gets from us on its way to a host.
#[derive(Debug)]
pub(super) struct Onward<'a> {
    /// The request speaks for a caller, so what belongs to that goes along.
    pub(super) by_caller: bool,
    /// Goes instead of the caller's own token.
    pub(super) signed: Option<&'a Signed>,
    pub(super) host: &'a HeaderValue,
    /// The client's address, for those who are to know it: our own hosts.
    pub(super) client: Option<&'a HeaderValue>,
    /// Our name in `Via`.
    pub(super) via: &'a HeaderValue,
}

/// A token and a proof of ours.
pub(crate) enum Signed {
    /// For a host of the fleet.
    Host(crate::oauth::Onward),
    /// For the PDS of a linked account.
    Link(LinkSigned),
}

/// Another server's token, and a proof for it.
pub(crate) struct LinkSigned {
    pub(crate) token: Zeroizing<String>,
    pub(crate) proof: String,
}

impl Signed {
    fn token(&self) -> &str {
        match self {
            Self::Host(signed) => signed.token(),
            Self::Link(signed) => &signed.token,
        }
    }

    fn proof(&self) -> &str {
        match self {
            Self::Host(signed) => signed.proof(),
            Self::Link(signed) => &signed.proof,
        }
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealed]")
    }
}

/// How long a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// There is none, or nothing more of it.
    None,
    Known(u64),
    Chunked {
        is_first: bool,
    },
}

/// Writes the head of a request: what of the client's may reach a host, and ours.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    request: &Parts,
    target: &str,
    length: Length,
    ours: &Onward<'_>,
) {
    let headers = &request.headers;
    for part in [request.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    field(out, "host", ours.host.as_bytes());
    field(out, "user-agent", AGENT.as_bytes());
    if let Some(client) = ours.client {
        field(out, "x-forwarded-for", client.as_bytes());
    }
    let before: Vec<&[u8]> = headers.get_all(VIA).iter().map(HeaderValue::as_bytes).collect();
    let via = before.into_iter().chain([ours.via.as_bytes()]).collect::<Vec<_>>().join(&b", "[..]);
    field(out, "via", &via);
    if let Some(signed) = ours.signed {
        for part in ["authorization: DPoP ", signed.token(), "\r\ndpop: ", signed.proof(), "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    let named = named_by_connection(headers);
    let mut accepts_encoding = false;
    let has_body = ours.by_caller && length != Length::None;
    for (name, value) in headers {
        let is_replaced = ours.signed.is_some() && name == header::AUTHORIZATION;
        if reaches_host(name.as_str(), ours.by_caller, has_body, ours.client.is_some())
            && !is_replaced
            && !named.contains(name)
        {
            accepts_encoding |= name == header::ACCEPT_ENCODING;
            field(out, name.as_str(), value.as_bytes());
        }
    }
    if !accepts_encoding {
        field(out, "accept-encoding", b"identity");
    }
    match length {
        Length::Known(length) => field(out, "content-length", HeaderValue::from(length).as_bytes()),
        Length::Chunked { .. } => field(out, "transfer-encoding", b"chunked"),
        // Without a body, and without a word on it, some hosts wait for one.
        Length::None if request.method == http::Method::POST => field(out, "content-length", b"0"),
        Length::None => {}
    }
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether a request's header may reach a host. What we write ourselves is not among them.
fn reaches_host(name: &str, by_caller: bool, has_body: bool, is_own_host: bool) -> bool {
    match name {
        "accept" | "accept-encoding" | "accept-language" | "if-modified-since" | "if-none-match"
        | "if-range" | "range" => true,
        "content-encoding" | "content-type" => has_body,
        "atproto-accept-labelers" | "atproto-proxy" | "authorization" | "x-bsky-topics" => by_caller,
        other => by_caller && is_own_host && other.starts_with("x-atproto-"),
    }
}

/// What the `Connection` header says is for this connection only (RFC 9110 §7.6.1).
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter();
    let words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    words
        .filter(|word| !USUAL.iter().any(|usual| word.eq_ignore_ascii_case(usual)))
        .filter_map(|word| HeaderName::from_bytes(word).ok())
        .collect()
}

/// What nearly all of them say, and names no field that could cross.
const USUAL: [&[u8]; 2] = [b"keep-alive", b"close"];

/// Whether a request has come through us before.
pub(super) fn has_passed(headers: &HeaderMap, via: &HeaderValue) -> bool {
    headers
        .get_all(VIA)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|station| station.trim_ascii().eq_ignore_ascii_case(via.as_bytes()))
}

const AGENT: HeaderValue = HeaderValue::from_static(concat!("Genkan/", env!("CARGO_PKG_VERSION")));

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(pairs: &[(&'static str, &'static str)], by_caller: bool) -> Vec<String> {
        sent_signed(pairs, by_caller, None)
    }

    fn sent_signed(
        pairs: &[(&'static str, &'static str)],
        by_caller: bool,
        signed: Option<&Signed>,
    ) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let [host, client, via] = ["pds.example", "203.0.113.9", "1.1 genkan"].map(HeaderValue::from_static);
        let mut request = http::Request::new(());
        *request.headers_mut() = headers;
        *request.uri_mut() = "https://genkan.example/xrpc/a.b.c?d=%2F".parse().unwrap();
        let ours = Onward { by_caller, signed, host: &host, client: Some(&client), via: &via };
        let mut head = Vec::new();
        write_head(&mut head, &request.into_parts().0, "/xrpc/a.b.c?d=%2F", Length::None, &ours);
        let head = String::from_utf8(head).unwrap();
        let fields = head.strip_prefix("GET /xrpc/a.b.c?d=%2F HTTP/1.1\r\n").unwrap();
        let fields = fields.strip_suffix("\r\n\r\n").unwrap();
        let mut lines: Vec<_> = fields.split("\r\n").map(str::to_owned).collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_body_is_announced_by_us_alone() {
        let announced = |method: &str, length| {
            let request = http::Request::builder().method(method).header("content-length", "7");
            let value = HeaderValue::from_static("x");
            let ours = Onward { by_caller: true, signed: None, host: &value, client: None, via: &value };
            let mut head = Vec::new();
            write_head(&mut head, &request.body(()).unwrap().into_parts().0, "/", length, &ours);
            let head = String::from_utf8(head).unwrap();
            let of_body = |line: &&str| line.starts_with("content-length") || line.starts_with("transfer");
            head.lines().filter(of_body).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(announced("POST", Length::Known(7)), "content-length: 7");
        assert_eq!(announced("POST", Length::Chunked { is_first: true }), "transfer-encoding: chunked");
        assert_eq!(announced("POST", Length::None), "content-length: 0");
        assert_eq!(announced("GET", Length::None), "");
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
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-proto", "http"),
                ("x-real-ip", "6.6.6.6"),
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
                ("content-type", "text/html"),
                ("content-encoding", "gzip"),
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
    fn what_a_body_is_goes_only_with_a_callers_body() {
        let said = |by_caller, length| {
            let request = http::Request::builder().method("POST");
            let request = request.header("content-type", "a/b").header("content-encoding", "gzip");
            let value = HeaderValue::from_static("x");
            let ours = Onward { by_caller, signed: None, host: &value, client: None, via: &value };
            let mut head = Vec::new();
            write_head(&mut head, &request.body(()).unwrap().into_parts().0, "/", length, &ours);
            let head = String::from_utf8(head).unwrap();
            (head.contains("content-type: a/b\r\n"), head.contains("content-encoding: gzip\r\n"))
        };
        assert_eq!(said(true, Length::Known(7)), (true, true));
        assert_eq!(said(true, Length::Chunked { is_first: true }), (true, true));
        assert_eq!(said(true, Length::None), (false, false));
        assert_eq!(said(false, Length::Known(7)), (false, false));
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
                ("content-type", "application/json"),
                ("cookie", "x"),
                ("via", "1.1 other"),
                ("accept", "*/*"),
                ("x-secret", "x"),
                ("x-forwarded-host", "evil.example"),
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
    fn our_own_token_and_proof_replace_the_callers() {
        let signed = Signed::Host(crate::oauth::Onward::for_tests("token", "proof"));
        let said = [("authorization", "DPoP x"), ("dpop", "x"), ("atproto-proxy", "did:web:x#y")];
        let mut expected = OURS.map(str::to_owned).to_vec();
        let ours = ["atproto-proxy: did:web:x#y", "authorization: DPoP token", "dpop: proof"];
        expected.extend(ours.map(str::to_owned));
        expected.sort();
        assert_eq!(sent_signed(&said, true, Some(&signed)), expected);
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
    fn our_own_name_in_via_is_a_loop() {
        let via_of = |value| HeaderMap::from_iter([(VIA, HeaderValue::from_static(value))]);
        let via = HeaderValue::from_static("1.1 genkan");
        assert!(has_passed(&via_of("1.0 x, 1.1 Genkan"), &via));
        assert!(!has_passed(&via_of("1.0 x, 1.1 genkan2"), &via));
    }
}
