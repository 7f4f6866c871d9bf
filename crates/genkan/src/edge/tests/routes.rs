//! Where requests go, and how those are answered that go nowhere.

use super::fake_rooms::{ALICE, BOB, NOBODY};
use super::network::{ALICES, ALONE, ASK, Network, request};
use super::raw_host::{answers, answers_ok};

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

/// Status and error name.
fn error(answer: &str) -> String {
    let name = answer.split_once("\"error\":\"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or("-");
    format!("{} {name}", status(answer))
}

#[tokio::test]
async fn a_callers_request_goes_to_the_callers_home_as_it_is() {
    let network = Network::start().await;
    let answer = network
        .ask(
            "GET /xrpc/app.bsky.feed.getTimeline?limit=3&x=%2F",
            "authorization: Bearer bob\r\ncookie: a=b\r\n",
        )
        .await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(answer.ends_with("{\"ok\":true}"));
    assert!(answer.contains("cache-control: private, no-store\r\n"));
    let [heard] = network.two.heard().try_into().unwrap();
    assert!(heard.starts_with("GET /xrpc/app.bsky.feed.getTimeline?limit=3&x=%2F HTTP/1.1\r\n"), "{heard}");
    assert!(heard.contains("authorization: Bearer bob\r\n"));
    assert!(heard.contains("x-forwarded-for: 127.0.0.1\r\n"));
    assert!(heard.contains("via: 1.1 genkan-test\r\n"));
    assert!(!heard.contains("cookie") && !heard.contains("genkan.example"));
    assert!(network.one.heard().is_empty());
}

#[tokio::test]
async fn a_read_of_an_account_goes_to_its_home_without_credentials() {
    let network = Network::start().await;
    for token in [
        "",
        "authorization: Bearer bob\r\n",
        "authorization: Bearer expired\r\n",
        "authorization: DPoP x\r\n",
    ] {
        for path in [
            "com.atproto.repo.getRecord?repo=alice.example".to_owned(),
            format!("com.atproto.sync.getRepo?did={ALICE}"),
            format!("COM.atproto.SYNC.getblocks?did={ALICE}&cids=a&cids=b"),
        ] {
            let answer = network.ask(&format!("GET /xrpc/{path}"), token).await;
            assert_eq!(status(&answer), "200", "{path}: {answer}");
        }
    }
    let heard = network.one.heard();
    assert_eq!(heard.len(), 12);
    assert!(heard.iter().all(|heard| !heard.contains("authorization")), "{heard:?}");
    assert!(
        heard[2].starts_with(&format!("GET /xrpc/COM.atproto.SYNC.getblocks?did={ALICE}&cids=a&cids=b "))
    );
}

#[tokio::test]
async fn reading_of_oneself_keeps_the_token() {
    let network = Network::start().await;
    network
        .ask(&format!("GET /xrpc/com.atproto.sync.getRepo?did={ALICE}"), "authorization: Bearer alice\r\n")
        .await;
    network
        .ask("GET /xrpc/com.atproto.repo.getRecord?repo=alice.example", "authorization: Bearer alice\r\n")
        .await;
    let [own, record] = network.one.heard().try_into().unwrap();
    assert!(own.contains("authorization: Bearer alice\r\n"));
    assert!(!record.contains("authorization"), "only sync.* reads keep it");
}

#[tokio::test]
async fn only_the_owners_token_is_forwarded_at_that_read() {
    let network = Network::start().await;
    // Of another account with the same home, of another home, and of the account itself before it
    // came here.
    for token in ["someone-gone", "bob", "alice-before-her-move"] {
        let read = format!("GET /xrpc/com.atproto.sync.getRepo?did={ALICE}");
        let answer = network.ask(&read, &format!("authorization: Bearer {token}\r\n")).await;
        assert_eq!(status(&answer), "200", "{token}");
        let heard = network.one.heard().pop().unwrap();
        assert!(!heard.contains("authorization"), "{token}: {heard}");
    }
    assert_eq!((network.one.heard().len(), network.two.heard().len()), (3, 0));
}

#[tokio::test]
async fn a_request_without_a_route_says_why() {
    let network = Network::start().await;
    let timeline = "GET /xrpc/app.bsky.feed.getTimeline";
    let nobody = format!("GET /xrpc/com.atproto.sync.getRepo?did={NOBODY}");
    for (line, fields, expected) in [
        (timeline, "", "401 AuthMissing"),
        (timeline, "authorization: Bearer forged\r\n", "400 InvalidToken"),
        (timeline, "authorization: Bearer expired\r\n", "400 ExpiredToken"),
        // The client refreshes its token on this error, and then has one for the right host.
        (timeline, "authorization: Bearer alice-before-her-move\r\n", "400 ExpiredToken"),
        (timeline, "authorization: Bearer someone-gone\r\n", "400 ExpiredToken"),
        // The database is away. The token may be valid, so the client must not sign its user out.
        (timeline, "authorization: Bearer unchecked\r\n", "503 NotEnoughResources"),
        (timeline, "authorization: alice\r\n", "400 InvalidToken"),
        (timeline, "authorization: Bearer a b\r\n", "400 InvalidToken"),
        (timeline, "authorization: Basic YTpi\r\n", "400 InvalidToken"),
        (timeline, "authorization: DPoP\r\n", "401 invalid_token"),
        (timeline, "authorization: DPoP a b\r\n", "401 invalid_token"),
        (timeline, "authorization: DPoP alice\r\n", "401 invalid_dpop_proof"),
        (timeline, "authorization: DPoP forged\r\ndpop: good\r\n", "401 invalid_token"),
        (timeline, "authorization: DPoP alice\r\ndpop: stale\r\n", "401 use_dpop_nonce"),
        (timeline, "authorization: DPoP alice\r\ndpop: good\r\ndpop: good\r\n", "401 invalid_dpop_proof"),
        (timeline, "authorization: DPoP alice-before-her-move\r\ndpop: good\r\n", "401 invalid_token"),
        (timeline, "authorization: DPoP unchecked\r\ndpop: good\r\n", "503 NotEnoughResources"),
        (timeline, "authorization: Bearer alices-grant\r\ndpop: good\r\n", "400 InvalidToken"),
        // The host could read the other one of two tokens.
        (timeline, "authorization: Bearer alice\r\nauthorization: Bearer bob\r\n", "400 InvalidRequest"),
        // A request that has passed this server before.
        (timeline, "authorization: Bearer alice\r\nvia: 1.1 genkan-test\r\n", "502 UpstreamFailure"),
        ("PUT /xrpc/app.bsky.feed.getTimeline", "", "400 InvalidRequest"),
        ("POST /xrpc/com.atproto.repo.getRecord?repo=alice.example", "", "400 InvalidRequest"),
        ("GET /xrpc/com.atproto.repo.getRecord", "", "400 InvalidRequest"),
        ("GET /xrpc/com.atproto.sync.getRepo?did=alice.example", "", "400 InvalidRequest"),
        (&nobody, "", "502 DidResolutionFailed"),
        ("GET /xrpc/com.atproto.repo.getRecord?repo=bob.example", "", "400 RepoNotFound"),
        ("GET /xrpc/com.atproto.sync.subscribeRepos", "", "501 MethodNotImplemented"),
        (timeline, "authorization: Bearer alice\r\nupgrade: websocket\r\n", "501 MethodNotImplemented"),
        (
            "GET /xrpc/com.atproto.admin.searchAccounts",
            "authorization: Bearer alice\r\n",
            "501 MethodNotImplemented",
        ),
        ("POST /xrpc/com.atproto.server.reserveSigningKey", "", "501 MethodNotImplemented"),
        ("GET /xrpc/app.bsky.feed.getTimeline/", "authorization: Bearer alice\r\n", "400 InvalidRequest"),
        ("GET /xrpc/app.bsky.feed%2egetTimeline", "authorization: Bearer alice\r\n", "400 InvalidRequest"),
        (
            "GET /xrpc/../xrpc/app.bsky.feed.getTimeline",
            "authorization: Bearer alice\r\n",
            "400 InvalidRequest",
        ),
    ] {
        let answer = network.ask(line, fields).await;
        assert_eq!(error(&answer), expected, "{line} {fields}: {answer}");
        assert!(answer.contains("x-genkan-error: gateway\r\n"), "{answer}");
        assert!(answer.contains("access-control-allow-origin: *\r\n"), "{answer}");
        let scheme = if expected == "401 AuthMissing" { "Bearer\r\n" } else { "DPoP algs=" };
        assert!(!expected.starts_with("401") || answer.contains(&format!("www-authenticate: {scheme}")));
        assert!(!expected.starts_with("503") || answer.contains("retry-after: "));
    }
    assert!(network.one.heard().is_empty() && network.two.heard().is_empty());
}

#[tokio::test]
async fn genkan_answers_its_own_methods() {
    let network = Network::start().await;
    for (line, expected) in [
        ("GET /", "local GET / "),
        ("GET /xrpc/_health", "local GET /xrpc/_health "),
        ("POST /xrpc/com.atproto.server.createSession", "local POST /xrpc/com.atproto.server.createSession "),
        ("GET //xrpc/app.bsky.feed.getTimeline", "local GET //xrpc/app.bsky.feed.getTimeline "),
        // An absolute target names a host, which counts for nothing here.
        ("GET http://elsewhere.example/robots.txt", "local GET /robots.txt "),
        ("OPTIONS /", "local OPTIONS / "),
    ] {
        let answer = network.ask(line, "x-forwarded-for: 6.6.6.6\r\n").await;
        assert!(answer.contains(expected), "{answer}");
        assert!(answer.ends_with("from 127.0.0.1 with 0"), "nobody vouches for the peer: {answer}");
    }
    let mut client = network.connect().await;
    client.send("POST /xrpc/com.atproto.server.createSession HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await;
    assert!(client.answer().await.ends_with("with 5"));
}

#[tokio::test]
async fn an_absolute_target_does_not_choose_the_host() {
    let network = Network::start().await;
    let line = "GET http://127.0.0.1:1/xrpc/app.bsky.feed.getTimeline?a=b";
    let answer = network.ask(line, "authorization: Bearer alice\r\n").await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(network.one.heard()[0].starts_with("GET /xrpc/app.bsky.feed.getTimeline?a=b HTTP/1.1\r\n"));
}

#[tokio::test]
async fn only_trusted_peers_name_the_client_behind_them() {
    let proxies = ["127.0.0.0/8".parse().unwrap()];
    let network = Network::behind(&proxies, |_| {}, answers_ok, answers_ok).await;
    // Only the last address was written by the trusted peer. The first came from the client.
    let fields = "authorization: Bearer alice\r\nx-forwarded-for: 6.6.6.6, 203.0.113.9\r\n";
    network.ask("GET /xrpc/app.bsky.feed.getTimeline", fields).await;
    assert!(network.one.heard()[0].contains("x-forwarded-for: 203.0.113.9\r\n"));
    assert!(network.ask("GET /", fields).await.contains("from 203.0.113.9 with"));
}

#[tokio::test]
async fn preflights_are_answered_here() {
    let network = Network::start().await;
    let asked = "origin: https://app.example\r\naccess-control-request-method: POST\r\n\
        access-control-request-headers: authorization, X-Atproto-New, bad name\r\n\
        access-control-request-headers: dpop\r\n";
    let answer = network.ask("OPTIONS /xrpc/com.atproto.repo.createRecord", asked).await;
    assert_eq!(status(&answer), "204");
    for line in [
        "access-control-allow-headers: authorization, x-atproto-new, dpop",
        "access-control-allow-origin: *",
        "access-control-allow-methods: GET, HEAD, POST, OPTIONS",
        "access-control-max-age: 86400",
        "vary: access-control-request-headers",
    ] {
        assert!(answer.contains(&format!("{line}\r\n")), "{line}: {answer}");
    }
    assert!(!answer.contains("allow-credentials") && !answer.contains("expose-headers"));
    assert!(network.one.heard().is_empty());
}

#[tokio::test]
async fn a_host_that_no_longer_knows_the_caller_makes_the_client_refresh() {
    let gone = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: 44\r\n\r\n\
        {\"error\":\"AccountNotFound\",\"message\":\"gone\"}";
    // Any other 403 is the host's own answer.
    let other = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: 40\r\n\r\n\
        {\"error\":\"ScopeMissing\",\"message\":\"no\"}\n";
    let network = Network::with(|_| {}, answers(gone), answers(other)).await;
    let asked = |token| network.ask("GET /xrpc/app.bsky.feed.getTimeline", token);
    assert_eq!(error(&asked("authorization: Bearer alice\r\n").await), "400 ExpiredToken");
    let answer = asked("authorization: Bearer bob\r\n").await;
    assert_eq!(error(&answer), "403 ScopeMissing");
    assert!(answer.ends_with("{\"error\":\"ScopeMissing\",\"message\":\"no\"}\n"), "byte for byte");
    let read = network.ask(&format!("GET /xrpc/com.atproto.sync.getRepo?did={ALICE}"), "").await;
    assert_eq!(error(&read), "403 AccountNotFound", "a read without a token has nothing to refresh");
    let read = network.ask(&format!("GET /xrpc/com.atproto.sync.getRepo?did={BOB}"), "").await;
    assert_eq!(error(&read), "403 ScopeMissing");
}

#[tokio::test]
async fn framing_that_leaves_doubt_ends_the_connection() {
    let network = Network::start().await;
    let line = "GET /xrpc/app.bsky.feed.getTimeline HTTP/1.1\r\nauthorization: Bearer alice\r\n";
    let long = "a".repeat(40_000);
    for (bytes, expected) in [
        (format!("{line}\r\n"), "400"),
        (format!("{line}host: a\r\nhost: a\r\n\r\n"), "400"),
        (format!("{line}host: a\nx: y\r\n\r\n"), "400"),
        (format!("{line}host: a\r\nx: y\r\n z\r\n\r\n"), "400"),
        (format!("{line}host: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), "400"),
        (format!("{line}host: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), "400"),
        (format!("{line}host: a\r\nx: {long}\r\n\r\n"), "431"),
        (format!("{line}host: a\r\n{}\r\n", "x: y\r\n".repeat(101)), "431"),
        (format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), "414"),
        ("get / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "405"),
        ("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "405"),
        ("CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "405"),
        (format!("rubbish{}", "\r\n".repeat(3)), "405"),
        ("GET / HTTP/9.9\r\nhost: a\r\n\r\n".to_owned(), "400"),
    ] {
        let answer = network.raw(&bytes).await;
        assert_eq!(status(&answer), expected, "{bytes:.200?}: {answer}");
    }
    assert!(network.one.heard().is_empty());
    let fits = format!("host: a\r\n{}\r\n", "x: y\r\n".repeat(98));
    let mut client = network.connect().await;
    client.send(format!("{line}{fits}")).await;
    assert_eq!(status(&client.answer().await), "200", "a hundred fields are well");
    let smuggled = request("POST /xrpc/com.atproto.server.createSession", "content-length: 5\r\n");
    let answer = network.raw(format!("{smuggled}hello{line}host: a\r\n\r\n")).await;
    assert_eq!(
        answer.matches("HTTP/1.1").count(),
        1,
        "nothing after `connection: close` is a request: {answer}"
    );
}

/// A host resolves the service that `atproto-proxy` names, so Genkan sends it to no private name.
#[tokio::test]
async fn a_service_that_a_host_may_not_be_sent_to_is_refused() {
    let network = Network::start().await;
    let sent = async |line: &str, value: &str| {
        network.ask(line, &format!("{ALICES}atproto-proxy: {value}\r\n")).await
    };
    for value in [
        "did:web:localhost#x",
        "did:web:localhost%3A2583#x",
        "did:web:10.0.0.1#x",
        "did:web:a.internal#x",
        "did:web:a.example.com%3A8443#x",
        "did:web:a.example.com",
        "did:plc:short#x",
        "x",
    ] {
        let answer = sent(ASK, value).await;
        assert_eq!(error(&answer), "400 InvalidRequest", "{value}");
        assert_eq!(error(&sent("GET /xrpc/com.atproto.sync.listHosts", value).await), "400 InvalidRequest");
    }
    let twice = format!("{ALICES}{0}{0}", "atproto-proxy: did:web:a.example.com#x\r\n");
    assert_eq!(error(&network.ask(ASK, &twice).await), "400 InvalidRequest");
    assert!(network.one.heard().is_empty(), "no host was asked");
    // A host ignores the header for methods that it answers itself.
    for line in [ALONE, "GET /xrpc/com.atproto.server.checkAccountStatus"] {
        assert_eq!(status(&sent(line, "did:web:localhost#x").await), "200", "{line}");
    }
    assert!(network.one.heard().iter().all(|heard| !heard.contains("localhost")), "nor does it get it");
    for value in ["did:web:view.example.com#x", "did:plc:ar7c4by46qjdydhdevvrndac#atproto_labeler"] {
        assert_eq!(status(&sent(ASK, value).await), "200", "{value}");
        assert!(network.one.heard().last().unwrap().contains(&format!("atproto-proxy: {value}\r\n")));
    }
}
