//! Every row of bad XRPC input has its status and its name.

use bytes::Bytes;
use genkan_testing::{Answer, Plan, TestNetwork};
use http::Method;
use http_body_util::Full;
use serde_json::json;

use crate::store::on_each_database;

on_each_database!(
    bodies_are_checked,
    verbs_and_paths_are_checked,
    crooked_paths_never_reach_a_host,
    rate_limits_say_when_to_come_back,
    passwords_and_codes_are_guessed_a_few_times_only,
    guesses_from_everywhere_are_bounded_and_lock_no_owner_out,
    all_refusals_have_the_same_form,
);

const CREATE_SESSION: &str = "/xrpc/com.atproto.server.createSession";

async fn post(net: &TestNetwork, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut request = net.visitor().request(Method::POST, CREATE_SESSION);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    net.visitor().send(request.body(Full::new(body.into())).unwrap()).await
}

async fn bodies_are_checked(plan: Plan) {
    let net = plan.await;
    let json = [("content-type", "application/json")];
    let deep = format!("{}1{}", "[".repeat(70), "]".repeat(70));
    let good = json!({ "identifier": "nobody.genkan.test", "password": "whatever" }).to_string();
    let cases: Vec<(&str, Bytes)> = vec![
        ("empty", Bytes::new()),
        ("not JSON", "hello".into()),
        ("half", "{\"identifier\":".into()),
        ("bad UTF-8", Bytes::from_static(b"{\"identifier\":\"\xff\",\"password\":\"x\"}")),
        ("a lone surrogate", "{\"identifier\":\"\\ud800\",\"password\":\"x\"}".into()),
        ("trailing bytes", format!("{good} more").into()),
        ("two values", format!("{good}{good}").into()),
        ("too deep", format!("{{\"identifier\":\"a\",\"password\":\"b\",\"x\":{deep}}}").into()),
        ("an array", "[]".into()),
        ("null", "null".into()),
        ("a number for text", "{\"identifier\":7,\"password\":\"x\"}".into()),
        ("a member missing", "{\"identifier\":\"alice\"}".into()),
        ("a NUL", "{\"identifier\":\"a\\u0000b\",\"password\":\"x\"}".into()),
    ];
    for (case, body) in cases {
        assert_eq!(post(&net, &json, body).await.summary(), "400 InvalidRequest", "{case}");
    }
    for headers in
        [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/x-www-form-urlencoded")]]
    {
        assert_eq!(post(&net, headers, good.clone()).await.summary(), "400 InvalidRequest", "{headers:?}");
    }
    let with_charset = [("content-type", "application/json; charset=utf-8")];
    assert_eq!(post(&net, &with_charset, good.clone()).await.summary(), "401 AuthenticationRequired");
    let coded = [("content-type", "application/json"), ("content-encoding", "br")];
    assert_eq!(post(&net, &coded, good.clone()).await.summary(), "415 UnsupportedMediaType");
    let broken = [("content-type", "application/json"), ("content-encoding", "gzip")];
    assert_eq!(post(&net, &broken, good).await.summary(), "400 InvalidRequest");
    let large = json!({ "identifier": "a", "password": "b", "x": "y".repeat(151_000) }).to_string();
    assert_eq!(post(&net, &json, large).await.summary(), "413 PayloadTooLarge");
    // The announced length is enough: the body never comes.
    let head = format!(
        "POST {CREATE_SESSION} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 10000000\r\n\r\n"
    );
    let answer = net.visitor().raw(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("PayloadTooLarge"), "{answer}");
    assert_eq!(gzip_bomb(&net).await, "413 PayloadTooLarge");
}

async fn gzip_bomb(net: &TestNetwork) -> String {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    write!(encoder, "{{\"identifier\":\"a\",\"password\":\"b\",\"x\":\"{}\"}}", "y".repeat(4 << 20)).unwrap();
    let packed = encoder.finish().unwrap();
    assert!(packed.len() < 100_000);
    post(net, &[("content-type", "application/json"), ("content-encoding", "gzip")], packed).await.summary()
}

async fn verbs_and_paths_are_checked(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let ask = async |method: Method, path: &str| {
        let client = net.client_of(&alice);
        client.send(client.request(method, path).body(Full::new(Bytes::new())).unwrap()).await
    };
    for (method, path, allowed) in [
        (Method::GET, CREATE_SESSION, "POST"),
        (Method::PUT, CREATE_SESSION, "POST"),
        (Method::POST, "/xrpc/com.atproto.server.getSession", "GET"),
        (Method::DELETE, "/xrpc/com.atproto.server.getSession", "GET"),
        (Method::GET, "/xrpc/com.atproto.repo.createRecord", "POST"),
        (Method::POST, "/xrpc/com.atproto.repo.getRecord?repo=alice.genkan.test", "GET"),
        (Method::PATCH, "/xrpc/app.bsky.feed.getTimeline", ""),
    ] {
        let answer = ask(method.clone(), path).await;
        assert_eq!(answer.summary(), "400 InvalidRequest", "{method} {path}");
        assert!(
            answer.header("allow").contains(allowed) && !answer.header("allow").is_empty(),
            "{method} {path}"
        );
    }
    for path in [
        "/xrpc/",
        "/xrpc/nonsense",
        "/xrpc/com.atproto",
        "/xrpc/com..atproto.x",
        "/xrpc/com.atproto.server.getSession/",
        "/xrpc//com.atproto.server.getSession",
        "/xrpc/com.atproto.server.getSession/more",
        "/xrpc/com.atproto.server.get%53ession",
        "/xrpc/com%2eatproto.server.getSession",
        "/xrpc/./com.atproto.server.getSession",
        "/xrpc/com.atproto.server.getSession%00",
    ] {
        let answer = ask(Method::GET, path).await;
        assert_eq!(answer.summary(), "400 InvalidRequest", "{path}");
    }
    for path in
        ["/nothing", "/xrpc", "/xrpcs/com.atproto.server.getSession", "//xrpc/com.atproto.server.getSession"]
    {
        let answer = ask(Method::GET, path).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.transcript());
    }
    let unknown = net.visitor().query("com.example.unknown.method", &[]).await;
    assert_eq!(unknown.summary(), "401 AuthMissing");
    // An administrator's method does not tell other callers which accounts exist, either.
    for (name, did) in [("nobody", "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"), ("alice", alice.did.as_str())] {
        let input = json!({ "did": did, "password": "a new password" });
        let answer = net.visitor().procedure("com.atproto.admin.updateAccountPassword", &input).await;
        assert_eq!(answer.summary(), "401 AuthMissing", "{name}");
    }
    assert_eq!(net.client_of(&alice).query("com.example.unknown.method", &[]).await.status, 200);
}

async fn crooked_paths_never_reach_a_host(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    net.host(0).forget();
    for path in [
        "/xrpc/../xrpc/com.atproto.admin.deleteAccount",
        "/xrpc/app.bsky.feed.getTimeline/../com.atproto.admin.getAccountInfo",
        "/xrpc/app.bsky.feed.getTimeline%2f..%2fcom.atproto.admin.getAccountInfo",
        "/xrpc/app.bsky.feed.getTimeline%3f",
        "/xrpc/app.bsky.feed.getTimeline;x=1",
        "/xrpc/app.bsky.feed.getTimeline\\..\\x",
        "/xrpc/app.bsky.feed.getTimeline%0d%0aX:1",
        "/xrpc/app.bsky.feed.get_Timeline",
        "/xrpc/app.bsky.feed.getTimeline.",
        "/xrpc/.app.bsky.feed.getTimeline",
        "/xrpc/COM.ATPROTO.ADMIN.getAccountInfo",
        "/xrpc/com.atproto.ADMIN.getAccountInfo",
        "/xrpc/com.atproto.server.CreateSession",
        "/oauth/token",
        "http://other.example/xrpc/app.bsky.feed.getTimeline/x",
        "*",
    ] {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            alice.access
        );
        let answer = net.visitor().raw(head.as_bytes()).await;
        let status: u16 = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        assert!((400..502).contains(&status) && status != 500, "{path}: {answer}");
    }
    let journal = net.host(0).journal();
    let reached: Vec<_> =
        journal.iter().filter(|seen| seen.name != "_health").map(|seen| &seen.path).collect();
    assert!(reached.is_empty(), "{reached:?}");
}

async fn rate_limits_say_when_to_come_back(plan: Plan) {
    // Windows are multiples of their length since 1970. A test that crosses from one into the next
    // starts to count again, so the window is one that no run of the tests crosses.
    let net =
        plan.set("GENKAN_RATE_LIMITS_ENABLED", "true").set("GENKAN_RATE_CREATE_SESSION", "3/3650d").await;
    let alice = net.sign_up("alice").await;
    // An account has one count, whichever of its names is typed.
    for name in [&alice.handle, &alice.email, alice.did.as_str()] {
        assert_eq!(net.sign_in(name, "not her password").await.status, 401);
    }
    let answer = net.sign_in(&alice.handle, &alice.password).await;
    assert_eq!(answer.summary(), "429 RateLimitExceeded");
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=3650 * 86_400).contains(&wait), "{wait}");
    assert_eq!(answer.header("ratelimit-remaining"), "0");
    // Sessions that exist go on.
    net.client_of(&alice).query("com.atproto.server.getSession", &[]).await.ok();
    net.refresh(&alice.refresh).await.ok();
}

/// The methods that take a password or a code without a session count their guesses too.
async fn passwords_and_codes_are_guessed_a_few_times_only(plan: Plan) {
    let net = plan
        .set("GENKAN_RATE_LIMITS_ENABLED", "true")
        .set("GENKAN_RATE_CREATE_SESSION", "3/3650d")
        .set("GENKAN_RATE_USE_CODE", "6/3650d")
        .await;
    let alice = net.sign_up("alice").await;
    let delete = json!({ "did": alice.did, "password": "a guess", "token": "ABCDE-FGHIJ" });
    for _ in 0..3 {
        let answer = net.visitor().procedure("com.atproto.server.deleteAccount", &delete).await;
        assert_eq!(answer.summary(), "401 AuthenticationRequired");
    }
    assert_eq!(net.sign_in(&alice.handle, &alice.password).await.summary(), "429 RateLimitExceeded");
    let reset = json!({ "token": "ABCDE-FGHIJ", "password": "the password of a thief" });
    let mut told = Vec::new();
    // The hosts share this client's address, so it has an allowance of its own as a host's client.
    for _ in 0..7 {
        told.push(net.visitor().procedure("com.atproto.server.resetPassword", &reset).await.summary());
    }
    assert_eq!(told[..6], ["400 InvalidToken"; 6]);
    assert_eq!(told[6], "429 RateLimitExceeded");
}

/// The test stands for a proxy, so that it can be many clients.
async fn guesses_from_everywhere_are_bounded_and_lock_no_owner_out(plan: Plan) {
    let net = plan
        .set("GENKAN_RATE_LIMITS_ENABLED", "true")
        .set("GENKAN_TRUSTED_PROXIES", "127.0.0.0/8")
        .set("GENKAN_RATE_SIGN_IN_ADDRESS", "6/3650d")
        .set("GENKAN_RATE_SIGN_IN_ACCOUNT", "8/3650d")
        .await;
    let sign_in = async |from: &str, name: &str, password: &str| {
        let input = json!({ "identifier": name, "password": password });
        let client = net.visitor().with("x-forwarded-for", from);
        client.procedure("com.atproto.server.createSession", &input).await.status
    };
    let alice = net.sign_up("alice").await;
    let bob = net.sign_up("bobby").await;
    // One address and many accounts.
    let mut told = Vec::new();
    for number in 0..9 {
        told.push(sign_in("203.0.113.1", &format!("victim-{number}.genkan.test"), "a guess").await);
    }
    assert_eq!(told, [401, 401, 401, 401, 401, 401, 429, 429, 429]);
    // Bob signed in from a desk before. Now many addresses guess his password.
    let desk = "198.51.100.7";
    assert_eq!(sign_in(desk, &bob.handle, &bob.password).await, 200);
    let mut checked = 0;
    for number in 1..20 {
        let name = [&bob.handle, &bob.email, bob.did.as_str()][number % 3];
        checked += usize::from(sign_in(&format!("203.0.113.1{number}"), name, "a guess").await == 401);
    }
    assert_eq!(checked, 7, "guesses that were compared with the password");
    assert_eq!(sign_in("203.0.113.99", &bob.handle, &bob.password).await, 429);
    assert_eq!(sign_in(desk, &bob.handle, &bob.password).await, 200, "the owner is not locked out");
    assert_eq!(sign_in("203.0.113.99", &alice.handle, &alice.password).await, 200, "nor is anybody else");
    // A repeated sign-up is no way around the limits.
    let form = genkan_testing::User::form("bobby");
    for number in 20..25 {
        let client = net.visitor().with("x-forwarded-for", &format!("203.0.113.{number}"));
        let told = client.procedure("com.atproto.server.createAccount", &form).await;
        assert_eq!(told.summary(), "400 HandleNotAvailable", "with the right password");
    }
}

async fn all_refusals_have_the_same_form(plan: Plan) {
    let net = plan.await;
    for answer in [
        net.visitor().get("/xrpc/nonsense").await,
        net.visitor().query("com.atproto.server.getSession", &[]).await,
        net.visitor().query("app.bsky.feed.getTimeline", &[]).await,
        net.visitor().query("com.atproto.sync.subscribeRepos", &[]).await,
        net.visitor().query("com.atproto.sync.getRepo", &[("did", "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")]).await,
        net.sign_in("nobody", "nothing").await,
    ] {
        let body = answer.json();
        let members: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(members, ["error", "message"], "{}", answer.transcript());
        assert!(answer.header("content-type").starts_with("application/json"));
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{}", answer.transcript());
        assert_eq!(answer.header("x-genkan-error"), "gateway", "{}", answer.transcript());
    }
}
