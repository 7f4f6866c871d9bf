//! The head of a forwarded request: the client's headers that may cross, and Genkan's own.

use std::fmt;

use http::Method;
use http::header::{self, CONNECTION, HeaderMap, HeaderName, HeaderValue, VIA};
use http::request::Parts;
use http1::{FieldWriter, RequestHead};
use zeroize::Zeroizing;

use super::answer::{AnswerFilter, Token};
use crate::forward::error::Error;
use crate::forward::proxied_service::ATPROTO_PROXY;

/// A client's request, as it is forwarded.
pub(in crate::forward) struct ForwardedHead<'a> {
    pub(in crate::forward) request: &'a Parts,
    /// Path and query.
    pub(in crate::forward) target: &'a str,
    pub(in crate::forward) credentials: Credentials<'a>,
    /// Whether a body follows, so that the headers that describe it are sent too.
    pub(in crate::forward) has_body: bool,
    /// Whether the client's `atproto-proxy` goes on.
    pub(in crate::forward) passes_service: bool,
    /// The client's address, for hosts of the fleet. Other servers do not get it.
    pub(in crate::forward) client: Option<&'a HeaderValue>,
    /// Genkan's name in `Via`.
    pub(in crate::forward) via: &'a HeaderValue,
    /// Whether Genkan may follow the answer's redirect.
    pub(in crate::forward) follows_redirects: bool,
}

/// The credentials that a forwarded request carries.
#[derive(Clone, Copy)]
pub(in crate::forward) enum Credentials<'a> {
    None,
    /// The caller's own token, as received.
    Callers,
    /// Genkan's token, with a fresh proof for each try: no server accepts a proof twice.
    Genkans(&'a dyn Fn() -> Result<Signed, Error>),
}

impl Credentials<'_> {
    const fn by_caller(&self) -> bool {
        !matches!(self, Self::None)
    }

    const fn token(&self) -> Token {
        match self {
            Self::None => Token::None,
            Self::Callers => Token::Callers,
            Self::Genkans(_) => Token::Genkans,
        }
    }
}

impl RequestHead for ForwardedHead<'_> {
    type Fields = AnswerFilter;
    type Error = Error;

    fn method(&self) -> &Method {
        &self.request.method
    }

    fn target(&self) -> &str {
        self.target
    }

    fn write_fields(&self, fields: &mut FieldWriter<'_>) -> Result<(), Error> {
        let headers = &self.request.headers;
        fields.field("user-agent", AGENT.as_bytes());
        if let Some(client) = self.client {
            // One address and not a list: what the client itself wrote in the field is not passed
            // on.
            fields.field("x-forwarded-for", client.as_bytes());
        }
        // Genkan's own entry goes last, after those of the servers before it (RFC 9110 §7.6.3).
        if headers.contains_key(VIA) {
            let before = headers.get_all(VIA).iter().map(HeaderValue::as_bytes);
            let via = before.chain([self.via.as_bytes()]).collect::<Vec<_>>().join(&b", "[..]);
            fields.field("via", &via);
        } else {
            fields.field("via", self.via.as_bytes());
        }
        let mut is_replaced = false;
        if let Credentials::Genkans(sign) = self.credentials {
            // Signed at the last moment: each try needs a proof with the newest nonce.
            let signed = sign()?;
            fields.field_of_parts("authorization", &[b"DPoP ", signed.token().as_bytes()]);
            fields.field("dpop", signed.proof().as_bytes());
            is_replaced = true;
        }
        let by_caller = self.credentials.by_caller();
        // A client could otherwise name a field here that only this connection may have.
        let named = named_by_connection(headers);
        let mut accepts_encoding = false;
        // Without credentials only reads are forwarded, and they have no body.
        let has_body = by_caller && self.has_body;
        for (name, value) in headers {
            if reaches_host(name.as_str(), by_caller, has_body, self.client.is_some())
                // The client's token is for Genkan. At another server it would be of no use, or a
                // leak.
                && !(is_replaced && name == header::AUTHORIZATION)
                && !named.contains(name)
                && (self.passes_service || name != ATPROTO_PROXY)
            {
                accepts_encoding |= name == header::ACCEPT_ENCODING;
                fields.field(name.as_str(), value.as_bytes());
            }
        }
        // Without the field a server may choose any encoding, although the client asked for none.
        if !accepts_encoding {
            fields.field("accept-encoding", b"identity");
        }
        Ok(())
    }

    fn answer_fields(&self) -> AnswerFilter {
        AnswerFilter::new(self.credentials.token(), self.follows_redirects)
    }
}

/// A token and a proof, signed by Genkan.
pub(crate) enum Signed {
    /// For a host of the fleet.
    Host(crate::oauth::Onward),
    /// For the PDS of a linked account.
    Link(LinkCredential),
}

/// The token of a linked account's own server, and a proof for it.
pub(crate) struct LinkCredential {
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

/// Whether a client's header may reach a PDS. The fields that Genkan writes itself are not in the
/// list.
fn reaches_host(name: &str, by_caller: bool, has_body: bool, is_own_host: bool) -> bool {
    match name {
        "accept" | "accept-encoding" | "accept-language" | "if-modified-since" | "if-none-match"
        | "if-range" | "range" => true,
        "content-encoding" | "content-type" => has_body,
        "atproto-accept-labelers" | "atproto-proxy" | "authorization" | "x-bsky-topics" => by_caller,
        // Extensions of atproto that Genkan does not know. External PDSes do not get them.
        other => by_caller && is_own_host && other.starts_with("x-atproto-"),
    }
}

/// The fields that `Connection` names: they are for this connection only (RFC 9110 §7.6.1).
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter();
    let words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    words
        .filter(|word| !USUAL.iter().any(|usual| word.eq_ignore_ascii_case(usual)))
        .filter_map(|word| HeaderName::from_bytes(word).ok())
        .collect()
}

/// The usual options of `Connection`, which name no field that could cross.
const USUAL: [&[u8]; 2] = [b"keep-alive", b"close"];

/// Whether a request has passed this server before.
pub(in crate::forward) fn has_passed(headers: &HeaderMap, via: &HeaderValue) -> bool {
    headers
        .get_all(VIA)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|station| station.trim_ascii().eq_ignore_ascii_case(via.as_bytes()))
}

const AGENT: HeaderValue = HeaderValue::from_static(concat!("Genkan/", env!("CARGO_PKG_VERSION")));

#[cfg(test)]
mod tests {
    use http1::{BodyLength, write_request_head};

    use super::*;

    fn sent(pairs: &[(&'static str, &'static str)], by_caller: bool) -> Vec<String> {
        sent_with(pairs, if by_caller { Credentials::Callers } else { Credentials::None })
    }

    fn sent_with(pairs: &[(&'static str, &'static str)], credentials: Credentials<'_>) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let [host, client, via] = ["pds.example", "203.0.113.9", "1.1 genkan"].map(HeaderValue::from_static);
        let mut request = http::Request::new(());
        *request.headers_mut() = headers;
        *request.uri_mut() = "https://genkan.example/xrpc/a.b.c?d=%2F".parse().unwrap();
        let head = ForwardedHead {
            request: &request.into_parts().0,
            target: "/xrpc/a.b.c?d=%2F",
            credentials,
            has_body: false,
            passes_service: true,
            client: Some(&client),
            via: &via,
            follows_redirects: false,
        };
        let mut out = Vec::new();
        write_request_head(&mut out, &head, &host, BodyLength::None).unwrap();
        let head = String::from_utf8(out).unwrap();
        let fields = head.strip_prefix("GET /xrpc/a.b.c?d=%2F HTTP/1.1\r\n").unwrap();
        let fields = fields.strip_suffix("\r\n\r\n").unwrap();
        let mut lines: Vec<_> = fields.split("\r\n").map(str::to_owned).collect();
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

    /// The head that is sent for a request with these headers.
    fn head_of(
        method: &str,
        pairs: &[(&'static str, &'static str)],
        credentials: Credentials<'_>,
        length: BodyLength,
    ) -> String {
        let mut request = http::Request::builder().method(method);
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        let value = HeaderValue::from_static("x");
        let head = ForwardedHead {
            request: &request.body(()).unwrap().into_parts().0,
            target: "/",
            credentials,
            has_body: length != BodyLength::None,
            passes_service: true,
            client: None,
            via: &value,
            follows_redirects: false,
        };
        let mut out = Vec::new();
        write_request_head(&mut out, &head, &value, length).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_clients_length_of_its_body_is_not_forwarded() {
        let announced = |method, pair, length| {
            let head = head_of(method, &[pair], Credentials::Callers, length);
            let of_body = |line: &&str| line.starts_with("content-length") || line.starts_with("transfer");
            head.lines().filter(of_body).collect::<Vec<_>>().join(" ")
        };
        for pair in [("content-length", "9"), ("transfer-encoding", "chunked")] {
            assert_eq!(announced("POST", pair, BodyLength::Known(7)), "content-length: 7");
            assert_eq!(announced("POST", pair, BodyLength::Chunked), "transfer-encoding: chunked");
            assert_eq!(announced("POST", pair, BodyLength::None), "content-length: 0");
            assert_eq!(announced("GET", pair, BodyLength::None), "");
        }
    }

    #[test]
    fn headers_about_a_body_are_forwarded_only_with_a_callers_body() {
        let said = |credentials, length| {
            let pairs = [("content-type", "a/b"), ("content-encoding", "gzip")];
            let head = head_of("POST", &pairs, credentials, length);
            (head.contains("content-type: a/b\r\n"), head.contains("content-encoding: gzip\r\n"))
        };
        assert_eq!(said(Credentials::Callers, BodyLength::Known(7)), (true, true));
        assert_eq!(said(Credentials::Callers, BodyLength::Chunked), (true, true));
        assert_eq!(said(Credentials::Callers, BodyLength::None), (false, false));
        assert_eq!(said(Credentials::None, BodyLength::Known(7)), (false, false));
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
        let sign = || Ok(Signed::Host(crate::oauth::Onward::for_tests("token", "proof")));
        let said = [("authorization", "DPoP x"), ("dpop", "x"), ("atproto-proxy", "did:web:x#y")];
        let mut expected = OURS.map(str::to_owned).to_vec();
        let ours = ["atproto-proxy: did:web:x#y", "authorization: DPoP token", "dpop: proof"];
        expected.extend(ours.map(str::to_owned));
        expected.sort();
        assert_eq!(sent_with(&said, Credentials::Genkans(&sign)), expected);
    }

    #[test]
    fn headers_that_connection_names_are_not_forwarded() {
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
