//! The local door as clients meet it, above all with bad input.

use std::io::Write as _;
use std::net::IpAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use tower::ServiceExt as _;

use super::*;
use crate::accounts::testing::{add, new_account};
use crate::http::testing::TestServer;
use crate::serving;
use crate::wire::{ClientAddr, TrustedPeers};

#[derive(Deserialize)]
struct Input {
    handle: genkan_protocol::syntax::Handle,
    #[expect(dead_code, reason = "there to be of the wrong type")]
    count: Option<u32>,
}

#[derive(Deserialize)]
struct Asked {
    did: genkan_protocol::syntax::Did,
    #[serde(default)]
    tags: Vec<String>,
}

/// A server that also has a few methods of these tests behind its layers.
struct LayeredMethods {
    server: TestServer,
    router: Router,
}

impl LayeredMethods {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let server = TestServer::start(settings).await;
        let state = serving::http_state(&server.app, TrustedPeers::new(&[]));
        let methods = Router::new()
            .route(
                "/xrpc/test.put",
                procedure(|XrpcInput(input): XrpcInput<Input>| async move { input.handle.to_string() }),
            )
            .route(
                "/xrpc/test.get",
                query(|XrpcQuery(asked): XrpcQuery<Asked>| async move {
                    format!("{} {:?}", asked.did, asked.tags)
                }),
            )
            .route(
                "/xrpc/test.panic",
                query(|State(()): State<()>| async { panic!("secret of the bug") as String }),
            );
        let router = with_layers(own_routes(&state).merge(methods.with_state(())), &state);
        Self { server, router }
    }

    async fn ask(&self, request: Request<Body>) -> (u16, HeaderMap, String) {
        read(self.router.clone().oneshot(request).await.unwrap()).await
    }

    async fn get(&self, path: &str) -> (u16, HeaderMap, String) {
        self.ask(Request::get(path).body(Body::empty()).unwrap()).await
    }
}

async fn read(response: Response) -> (u16, HeaderMap, String) {
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), head.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

/// Returns the status, and the name of an error. Every error must have the form of XRPC.
fn verdict(status: u16, headers: &HeaderMap, body: &str) -> String {
    if status < 400 {
        return format!("{status}");
    }
    assert_eq!(headers["content-type"], "application/json", "{body}");
    assert_eq!(headers["access-control-allow-origin"], "*");
    let answer: serde_json::Value = serde_json::from_str(body).unwrap();
    // `error` and `message`, and nothing about the inside of Genkan.
    assert_eq!(answer.as_object().unwrap().len(), 2, "{body}");
    assert!(!answer["message"].as_str().unwrap().is_empty());
    format!("{status} {}", answer["error"].as_str().unwrap())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Name, headers, body, verdict.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Vec<u8>, &'a str);

const JSON: (&str, &str) = ("content-type", "application/json");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

#[tokio::test]
async fn a_bad_body_has_its_exact_answer() {
    let methods = LayeredMethods::start(&[]).await;
    let good = br#"{"handle":"ann.test"}"#;
    let deep = |levels: usize| {
        format!(r#"{{"handle":"ann.test","more":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1))
            .into_bytes()
    };
    // Spaces are allowed between tokens, so only the length is wrong.
    let long = |bytes: usize| [good.as_slice(), &vec![b' '; bytes - good.len()]].concat();
    let invalid = "400 InvalidRequest";
    let cases: &[Case] = &[
        ("good", &[JSON], good.to_vec(), "200"),
        ("good with a charset", &[("content-type", "Application/JSON; charset=utf-8")], good.to_vec(), "200"),
        ("empty", &[JSON], vec![], invalid),
        ("not JSON", &[JSON], b"handle=ann.test".to_vec(), invalid),
        ("cut JSON", &[JSON], br#"{"handle":"ann.test""#.to_vec(), invalid),
        ("bad UTF-8", &[JSON], b"{\"handle\":\"ann.test\",\"x\":\"\xff\"}".to_vec(), invalid),
        ("lone surrogate", &[JSON], br#"{"handle":"ann.test","x":"\ud800"}"#.to_vec(), invalid),
        ("lone surrogate in a name", &[JSON], br#"{"handle":"ann.test","\udc00":1}"#.to_vec(), invalid),
        ("trailing bytes", &[JSON], br#"{"handle":"ann.test"}{}"#.to_vec(), invalid),
        ("byte order mark", &[JSON], b"\xef\xbb\xbf{\"handle\":\"ann.test\"}".to_vec(), invalid),
        // A parser that recurses must not exhaust the stack.
        ("64 deep", &[JSON], deep(64), "200"),
        ("65 deep", &[JSON], deep(65), invalid),
        ("very deep", &[JSON], b"[".repeat(100_000), invalid),
        // PostgreSQL cannot store this character.
        ("NUL", &[JSON], br#"{"handle":"ann.test","x":"a\u0000b"}"#.to_vec(), invalid),
        ("NUL in a name", &[JSON], br#"{"handle":"ann.test","\u0000":1}"#.to_vec(), invalid),
        ("NaN", &[JSON], br#"{"handle":"ann.test","count":NaN}"#.to_vec(), invalid),
        ("missing field", &[JSON], b"{}".to_vec(), invalid),
        ("wrong type", &[JSON], br#"{"handle":5}"#.to_vec(), invalid),
        ("null for a field", &[JSON], br#"{"handle":null}"#.to_vec(), invalid),
        ("negative", &[JSON], br#"{"handle":"ann.test","count":-1}"#.to_vec(), invalid),
        ("bad handle", &[JSON], br#"{"handle":"not a handle"}"#.to_vec(), invalid),
        ("an array", &[JSON], b"[]".to_vec(), invalid),
        ("no type", &[], good.to_vec(), invalid),
        ("another type", &[("content-type", "text/plain")], good.to_vec(), invalid),
        ("nearly the type", &[("content-type", "application/jsonx")], good.to_vec(), invalid),
        ("150 kB", &[JSON], long(150_000), "200"),
        ("one byte more", &[JSON], long(150_001), "413 PayloadTooLarge"),
        // Refused before any byte of the body is read.
        ("announced too long", &[JSON, ("content-length", "150001")], vec![], "413 PayloadTooLarge"),
        ("gzip", &[JSON, GZIP], gzip(good), "200"),
        ("gzip that grows to 1 MiB", &[JSON, GZIP], gzip(&long(1 << 20)), "200"),
        ("gzip that grows over it", &[JSON, GZIP], gzip(&long((1 << 20) + 1)), "413 PayloadTooLarge"),
        // Unpacking stops at the limit, so the memory stays bounded.
        ("a gzip bomb", &[JSON, GZIP], gzip(&vec![b' '; 64 << 20]), "413 PayloadTooLarge"),
        ("not gzip", &[JSON, GZIP], good.to_vec(), invalid),
        ("cut gzip", &[JSON, GZIP], gzip(good).split_last().unwrap().1.to_vec(), invalid),
        ("more behind gzip", &[JSON, GZIP], [gzip(good), gzip(good)].concat(), invalid),
        ("br", &[JSON, ("content-encoding", "br")], good.to_vec(), "415 UnsupportedMediaType"),
        (
            "gzip in gzip",
            &[JSON, ("content-encoding", "gzip, gzip")],
            good.to_vec(),
            "415 UnsupportedMediaType",
        ),
        ("two codings", &[JSON, GZIP, GZIP], gzip(&gzip(good)), "415 UnsupportedMediaType"),
        ("identity", &[JSON, ("content-encoding", "identity")], good.to_vec(), "200"),
    ];
    for (name, headers, body, expected) in cases {
        let mut request = Request::post("/xrpc/test.put");
        for (header, value) in *headers {
            request = request.header(*header, *value);
        }
        let (status, headers, answer) = methods.ask(request.body(Body::from(body.clone())).unwrap()).await;
        assert_eq!(verdict(status, &headers, &answer), *expected, "{name}: {answer}");
    }
}

#[tokio::test]
async fn a_body_without_announced_length_is_cut_at_the_limit() {
    let methods = LayeredMethods::start(&[]).await;
    let endless = futures_util::stream::repeat_with(|| {
        Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 1024]))
    });
    let request =
        Request::post("/xrpc/test.put").header(JSON.0, JSON.1).body(Body::from_stream(endless)).unwrap();
    let (status, headers, body) = methods.ask(request).await;
    assert_eq!(verdict(status, &headers, &body), "413 PayloadTooLarge");
    let broken = futures_util::stream::iter([Ok("{"), Err(std::io::Error::other("cut"))]);
    let request =
        Request::post("/xrpc/test.put").header(JSON.0, JSON.1).body(Body::from_stream(broken)).unwrap();
    let (status, headers, body) = methods.ask(request).await;
    assert_eq!(verdict(status, &headers, &body), "400 InvalidRequest");
}

#[tokio::test]
async fn bad_verbs_paths_and_parameters_have_their_exact_answers() {
    let methods = LayeredMethods::start(&[]).await;
    let token = ("authorization", "Bearer x");
    for (verb, path, header, expected, allow) in [
        ("GET", "/xrpc/test.get?did=did:web:a.test", None, "200", None),
        ("HEAD", "/xrpc/test.get?did=did:web:a.test", None, "200", None),
        ("GET", "/xrpc/test.get?did=did%3Aweb%3Aa.test&tags=a&tags=b", None, "200", None),
        ("GET", "/xrpc/test.put", None, "400 InvalidRequest", Some("POST")),
        ("PUT", "/xrpc/test.put", None, "400 InvalidRequest", Some("POST")),
        ("POST", "/xrpc/test.get", None, "400 InvalidRequest", Some("GET, HEAD")),
        ("DELETE", "/xrpc/_health", None, "400 InvalidRequest", Some("GET, HEAD")),
        ("GET", "/xrpc/test.get", None, "400 InvalidRequest", None),
        ("GET", "/xrpc/test.get?did=ann", None, "400 InvalidRequest", None),
        // A parameter with one value must not have two.
        ("GET", "/xrpc/test.get?did=did:web:a.test&did=did:web:b.test", None, "400 InvalidRequest", None),
        ("GET", "/xrpc/test.get?did=did:web:a.test&tags=%ff", None, "400 InvalidRequest", None),
        ("GET", "/xrpc/test.get?did=did:web:a.test&tags=%00", None, "400 InvalidRequest", None),
        ("GET", "/xrpc/test.get?did=did:web:a.test&tags=%4", None, "400 InvalidRequest", None),
        // Without a token the client is asked to sign in, since the method may exist at its host.
        ("GET", "/xrpc/com.example.unknown", None, "401 AuthMissing", None),
        ("GET", "/xrpc/com.example.unknown", Some(token), "501 MethodNotImplemented", None),
        ("GET", "/xrpc/", None, "400 InvalidRequest", None),
        ("GET", "/xrpc/nothing", None, "400 InvalidRequest", None),
        // Paths are not normalized: another server might normalize them differently.
        ("GET", "/xrpc/test.get/", None, "400 InvalidRequest", None),
        ("GET", "/xrpc//test.get", None, "400 InvalidRequest", None),
        ("GET", "/xrpc/../xrpc/test.get", None, "400 InvalidRequest", None),
        ("GET", "/xrpc/test%2eget", None, "400 InvalidRequest", None),
        ("GET", "/nothing", None, "404 NotFound", None),
        ("POST", "/robots.txt", None, "405 InvalidRequest", Some("GET, HEAD")),
    ] {
        let mut request = Request::builder().method(verb).uri(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let (status, headers, body) = methods.ask(request.body(Body::empty()).unwrap()).await;
        assert_eq!(verdict(status, &headers, &body), expected, "{verb} {path}: {body}");
        let told: Vec<_> = headers.get_all("allow").iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(told, allow.into_iter().collect::<Vec<_>>(), "{verb} {path}");
        assert_eq!(headers.contains_key("www-authenticate"), status == 401, "{verb} {path}");
    }
}

#[tokio::test]
async fn a_panic_is_a_500_of_its_own_request_and_tells_nothing() {
    let methods = LayeredMethods::start(&[]).await;
    let (status, headers, body) = methods.get("/xrpc/test.panic").await;
    assert_eq!(verdict(status, &headers, &body), "500 InternalServerError");
    assert!(!body.contains("secret"));
    assert!(methods.server.app.metrics.text().contains("genkan_panics_total 1\n"));
    assert_eq!(methods.get("/xrpc/_health").await.0, 200);
}

#[tokio::test]
async fn a_preflight_is_answered_before_anything_is_asked() {
    let methods = LayeredMethods::start(&[]).await;
    for path in ["/xrpc/test.put", "/xrpc/com.example.unknown", "/"] {
        let request = Request::options(path)
            .header("origin", "https://app.example")
            .header("access-control-request-headers", "authorization, x-new")
            .header("access-control-request-headers", "a b, dpop");
        let (status, headers, body) = methods.ask(request.body(Body::empty()).unwrap()).await;
        assert_eq!((status, body.as_str()), (204, ""));
        assert_eq!(headers["access-control-allow-headers"], "authorization, x-new, dpop");
        assert_eq!(headers["access-control-allow-origin"], "*");
        assert_eq!(headers["access-control-allow-methods"], "GET, HEAD, POST, OPTIONS");
        assert_eq!(headers["access-control-max-age"], "86400");
        assert_eq!(headers["vary"], "access-control-request-headers");
        assert!(!headers.contains_key("access-control-expose-headers"));
    }
}

#[tokio::test]
async fn the_global_limit_is_announced_and_refuses() {
    let methods = LayeredMethods::start(&[("GENKAN_RATE_GLOBAL", "2/5m")]).await;
    let ask = async |counted: bool| {
        let mut request = Request::get("/xrpc/_health").body(Body::empty()).unwrap();
        request.extensions_mut().insert(ClientAddr(IpAddr::from([192, 0, 2, 1])));
        if counted {
            // The edge has counted this request already, so it must not count twice.
            request.extensions_mut().insert(Counted);
        }
        methods.ask(request).await
    };
    let (status, headers, _) = ask(false).await;
    assert_eq!(status, 200);
    assert_eq!(headers["ratelimit-limit"], "2");
    assert_eq!(headers["ratelimit-remaining"], "1");
    assert_eq!(headers["ratelimit-policy"], "2;w=300");
    // The clock is 100 s into a window of 300 s.
    assert_eq!(headers["ratelimit-reset"], "1000000200");
    ask(false).await;
    let (status, headers, body) = ask(false).await;
    assert_eq!(verdict(status, &headers, &body), "429 RateLimitExceeded");
    assert_eq!(headers["retry-after"], "200");
    assert_eq!(headers.get_all("ratelimit-limit").iter().count(), 1);
    assert_eq!(ask(true).await.0, 200);
}

#[tokio::test]
async fn genkan_says_who_it_is() {
    let methods = LayeredMethods::start(&[("GENKAN_CONTACT_EMAIL", "op@example.com")]).await;
    let (status, headers, body) = methods.get("/xrpc/com.atproto.server.describeServer").await;
    assert_eq!(status, 200);
    assert!(headers.contains_key("x-request-id"));
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        answer,
        serde_json::json!({
            "did": "did:web:localhost%3A2583", "availableUserDomains": [".test"], "inviteCodeRequired": false,
            "phoneVerificationRequired": false, "links": {}, "contact": {"email": "op@example.com"},
            "blobUploadLimit": 104_857_600,
        })
    );
    let version = format!(r#"{{"version":"{}"}}"#, env!("CARGO_PKG_VERSION"));
    assert_eq!(methods.get("/xrpc/_health").await.2, version);
    assert!(methods.get("/").await.2.contains("http://localhost:2583"));
    assert!(methods.get("/robots.txt").await.2.contains("User-agent: *"));
}

#[tokio::test]
async fn a_certificate_is_for_names_of_ours_only() {
    let methods = LayeredMethods::start(&[]).await;
    add(&methods.server.app.db, &new_account("ann")).await.unwrap();
    for (domain, status) in [
        ("localhost", 200),
        ("ann.test", 200),
        ("ANN.test", 200),
        ("eve.test", 404),
        ("example.com", 404),
        ("", 404),
        ("a/../b", 404),
    ] {
        assert_eq!(methods.get(&format!("/tls-check?domain={domain}")).await.0, status, "{domain}");
    }
    assert_eq!(methods.get("/tls-check").await.0, 400);
}

#[tokio::test]
async fn the_operators_listener_tells_life_readiness_and_numbers() {
    let methods = LayeredMethods::start(&[]).await;
    methods.get("/xrpc/_health").await;
    methods.get("/xrpc/nothing").await;
    let readiness = Readiness::default();
    let dropped = std::sync::Arc::new(7.into());
    let ops = ops_router(readiness.clone(), &methods.server.app.metrics, &methods.server.app.clock, dropped);
    let ask = async |path: &str| {
        read(ops.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()).await
    };
    let starting = ask("/readyz").await;
    assert_eq!((starting.0, starting.2.as_str()), (503, "not ready: starting\n"));
    assert_eq!((ask("/livez").await.0, ask("/metrics").await.0), (200, 200));
    readiness.open(methods.server.app.db.clone(), methods.server.app.feed.clone());
    assert_eq!((ask("/livez").await.0, ask("/readyz").await.0), (200, 200));
    let text = ask("/metrics").await.2;
    for line in [
        "genkan_requests_total{door=\"local\",status=\"2xx\"} 1",
        "genkan_requests_total{door=\"local\",status=\"4xx\"} 1",
        "genkan_refusals_total{error=\"InvalidRequest\"} 1",
        "genkan_log_lines_dropped_total 7",
        "process_start_time_seconds 1000000000",
    ] {
        assert!(text.lines().any(|printed| printed == line), "no line {line:?} in\n{text}");
    }
    readiness.drain();
    assert_eq!((ask("/readyz").await.0, ask("/livez").await.0), (503, 200));

    let away = Readiness::default();
    away.open(methods.server.app.db.clone(), methods.server.app.feed.clone());
    methods.server.app.db.close().await;
    let ops =
        ops_router(away, &methods.server.app.metrics, &methods.server.app.clock, std::sync::Arc::default());
    let answer = read(ops.oneshot(Request::get("/readyz").body(Body::empty()).unwrap()).await.unwrap()).await;
    assert_eq!((answer.0, answer.2.as_str()), (503, "not ready: the database does not answer\n"));
}
