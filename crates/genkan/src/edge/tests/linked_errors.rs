//! What goes wrong with calls of a linked account: the contract's table of errors,
//! and PDSes that misbehave.

use std::time::Duration;

use genkan_testing::Gate;

use super::external_reads::ZOE;
use super::linked::{POST, ZOES, post, zoe_at, zoe_within};
use super::network::{ExternalSetup, Network, eventually, retry_after, summary};
use super::raw_host::{HostConnection, RawHost, answers, answers_ok, answers_once, stays_silent};
use crate::forward::LinkError;

const LIST: &str = "GET /xrpc/com.atproto.sync.listRepos";

/// Rows 1 to 5, 7 and 10.
#[tokio::test]
async fn what_is_wrong_with_a_call_is_said_by_status_name_and_challenge() {
    let there = RawHost::start(answers_ok).await;
    let network = zoe_at(&there).await;
    let timeline = "GET /xrpc/app.bsky.feed.getTimeline";
    let only = |scope: &str| format!("authorization: DPoP zoe{scope}\r\ndpop: good\r\n");
    for (line, fields, expected, challenge) in [
        (LIST, String::new(), "401 AuthMissing", "Bearer\r\n"),
        (timeline, String::new(), "401 AuthMissing", "Bearer\r\n"),
        (
            LIST,
            "authorization: Bearer garbled\r\n".to_owned(),
            "401 InvalidToken",
            "Bearer error=\"invalid_token\"",
        ),
        (timeline, "authorization: Bearer garbled\r\n".to_owned(), "400 InvalidToken", ""),
        (POST, "authorization: Bearer\r\n".to_owned(), "401 InvalidToken", "Bearer error=\"invalid_token\""),
        (
            POST,
            "authorization: Bearer a b\r\n".to_owned(),
            "401 InvalidToken",
            "Bearer error=\"invalid_token\"",
        ),
        (POST, "authorization: Basic x\r\n".to_owned(), "401 InvalidToken", "Bearer error=\"invalid_token\""),
        (POST, "authorization: x\r\n".to_owned(), "401 InvalidToken", "Bearer error=\"invalid_token\""),
        (POST, "authorization: DPoP\r\n".to_owned(), "401 invalid_token", "DPoP algs="),
        (LIST, "authorization: dpop a b\r\n".to_owned(), "401 invalid_token", "DPoP algs="),
        (timeline, "authorization: DPoP\r\n".to_owned(), "401 invalid_token", "DPoP algs="),
        (timeline, "authorization: Bearer\r\n".to_owned(), "400 InvalidToken", ""),
        (timeline, "authorization: Basic x\r\n".to_owned(), "400 InvalidToken", ""),
        (LIST, "authorization: Bearer forged\r\n".to_owned(), "400 InvalidToken", ""),
        (LIST, "authorization: Bearer expired\r\n".to_owned(), "400 ExpiredToken", ""),
        (
            LIST,
            "authorization: Bearer bearer-expired\r\n".to_owned(),
            "401 InvalidToken",
            "Bearer error=\"invalid_token\"",
        ),
        (LIST, "authorization: Bearer bearer-unchecked\r\n".to_owned(), "503 NotEnoughResources", ""),
        (LIST, "authorization: DPoP zoe\r\n".to_owned(), "401 invalid_dpop_proof", "DPoP algs="),
        (LIST, "authorization: DPoP nobody\r\ndpop: good\r\n".to_owned(), "401 invalid_token", "DPoP algs="),
        (
            LIST,
            format!("{ZOES}habitat-auth-method: cookie\r\n"),
            "401 AuthenticationRequired",
            "DPoP, Bearer",
        ),
        (
            LIST,
            "authorization: Bearer bearer-zoe\r\nhabitat-auth-method: x\r\n".to_owned(),
            "401 AuthenticationRequired",
            "DPoP",
        ),
        (LIST, format!("{ZOES}habitat-auth-method: oAuth\r\n"), "200 -", ""),
        (
            LIST,
            format!("{ZOES}habitat-auth-method: oauth\r\nhabitat-auth-method: y\r\n"),
            "401 AuthenticationRequired",
            "DPoP",
        ),
        (POST, only("atproto+repo:a.b.c?action=delete"), "403 InsufficientScope", "DPoP algs="),
        (
            "POST /xrpc/com.atproto.repo.importRepo",
            only("atproto+transition:generic"),
            "403 InsufficientScope",
            "DPoP",
        ),
        (
            "GET /xrpc/com.atproto.server.getServiceAuth?aud=x",
            only("atproto"),
            "403 InsufficientScope",
            "DPoP",
        ),
        (LIST, only("atproto"), "200 -", ""),
        ("GET /xrpc/com.atproto.repo.createRecord", ZOES.to_owned(), "400 InvalidRequest", ""),
        ("POST /xrpc/com.atproto.sync.listRepos", ZOES.to_owned(), "400 InvalidRequest", ""),
        ("GET /xrpc/com.atproto.sync.subscribeRepos", ZOES.to_owned(), "501 MethodNotImplemented", ""),
        (timeline, ZOES.to_owned(), "501 MethodNotImplemented", ""),
        ("GET /xrpc/com.atproto.server.checkAccountStatus", ZOES.to_owned(), "501 MethodNotImplemented", ""),
        ("GET /xrpc/com.atproto.identity.resolveDid?did=x", ZOES.to_owned(), "501 MethodNotImplemented", ""),
    ] {
        let answer = network.ask(line, &fields).await;
        assert_eq!(summary(&answer), expected, "{line} {fields}: {answer}");
        let challenged = answer.contains(&format!("www-authenticate: {challenge}"));
        assert!(challenge.is_empty() || challenged, "{line} {fields}: {answer}");
        assert!(!expected.starts_with("403") || answer.contains("error=\"insufficient_scope\""), "{answer}");
        let is_ours = answer.contains("x-genkan-error: gateway\r\n");
        assert_eq!(is_ours, !expected.starts_with("200"), "{answer}");
    }
    for fields in ["", ZOES] {
        let answer = network.ask(timeline, fields).await;
        for way in ["the account's own PDS", "https://public.api.bsky.app"] {
            assert!(answer.contains(way), "two ways out: {answer}");
        }
    }
    assert_eq!(there.heard().len(), 2, "only what was answered well went there");
    assert_eq!(network.one.connections() + network.two.connections(), 0);
}

/// The token belongs to an app that the operator registered for Bearer tokens, and to a home
/// account.
#[tokio::test]
async fn a_bearer_grant_of_a_home_account_is_signed_for_its_host() {
    let network = Network::start().await;
    let timeline = "GET /xrpc/app.bsky.feed.getTimeline";
    assert_eq!(summary(&network.ask(timeline, "authorization: Bearer bearer-alice\r\n").await), "200 -");
    assert!(
        network.one.heard()[0].contains("authorization: DPoP ours-for-did:plc:aaaaaaaaaaaaaaaaaaaaaaaa\r\n")
    );
}

/// Rows 17 to 20.
#[tokio::test]
async fn trouble_with_the_session_is_told_apart() {
    let there = RawHost::start(answers_ok).await;
    let network = zoe_at(&there).await;
    for (error, expected, more) in [
        (LinkError::Gone, "401 invalid_token", "error=\"invalid_token\""),
        (
            LinkError::Unavailable { retry_after: Duration::from_secs(40) },
            "502 UpstreamAuthUnavailable",
            "retry-after: 40\r\n",
        ),
        (LinkError::Storage, "503 NotEnoughResources", "retry-after: 1\r\n"),
        (LinkError::Broken, "500 InternalServerError", "x-genkan-error: gateway\r\n"),
    ] {
        network.external().link_error = Some(error);
        let answer = network.ask(LIST, ZOES).await;
        assert_eq!(summary(&answer), expected);
        assert!(answer.contains(more), "{answer}");
    }
    assert_eq!(there.connections(), 0);
}

#[tokio::test]
async fn trouble_while_a_token_is_renewed_is_told_apart_as_well() {
    let never = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: DPoP error=\"invalid_token\"\r\ncontent-length: 2\r\n\r\n{}";
    // The session's server fails only after the first attempt, so the renewal and not the first
    // lookup meets the failure.
    let gate = Gate::closed();
    let waits = gate.clone();
    let there = RawHost::start(move |mut connection: HostConnection| {
        let waits = waits.clone();
        async move {
            connection.request().await;
            waits.pass().await;
            connection.say(never).await;
        }
    })
    .await;
    let network = zoe_at(&there).await;
    let (answer, ()) = tokio::join!(network.ask(LIST, ZOES), async {
        eventually("the request is at the PDS", || there.heard().len() == 1).await;
        network.external().link_error = Some(LinkError::Unavailable { retry_after: Duration::from_secs(7) });
        gate.open();
    });
    assert_eq!(summary(&answer), "502 UpstreamAuthUnavailable");
    assert_eq!(network.external().link_refused, 0, "the session stays");
}

/// Row 8, for the announced length and for the bytes that arrive.
#[tokio::test]
async fn a_body_has_the_limit_of_its_method() {
    let there = RawHost::start(answers_ok).await;
    let network = zoe_within(&there, |settings| {
        settings.forward.input = 1000;
        settings.forward.blob = 2000;
        settings.forward.import = 3000;
    })
    .await;
    let small = "x".repeat(1500);
    let larger = "x".repeat(2500);
    for (name, body, expected) in [
        ("repo.createRecord", &small, "413 PayloadTooLarge"),
        ("repo.uploadBlob", &small, "200 -"),
        ("repo.uploadBlob", &larger, "413 PayloadTooLarge"),
        ("repo.importRepo", &larger, "200 -"),
    ] {
        let answer = post(&network, &format!("POST /xrpc/com.atproto.{name}"), ZOES, body).await;
        assert_eq!(summary(&answer), expected, "{name}");
    }
    // A chunked body announces no length, so it is cut off when it exceeds the limit.
    let chunked = format!(
        "{POST} HTTP/1.1\r\nhost: genkan.example\r\nconnection: close\r\n{ZOES}transfer-encoding: chunked\r\n\r\n5dc\r\n{small}\r\n0\r\n\r\n"
    );
    assert_eq!(summary(&network.raw(chunked).await), "413 PayloadTooLarge");
    let with_body = network
        .raw(format!(
            "{LIST} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{ZOES}content-length: 2\r\n\r\n{{}}"
        ))
        .await;
    assert_eq!(summary(&with_body), "400 InvalidRequest");
}

#[tokio::test]
async fn no_redirect_is_followed_with_a_token() {
    let canary = RawHost::start(answers_ok).await;
    for status in ["301 X", "302 X", "303 X", "307 X", "308 X", "300 X"] {
        let location = &canary.origin;
        let whole = format!("HTTP/1.1 {status}\r\nlocation: {location}/x\r\ncontent-length: 0\r\n\r\n");
        let there = RawHost::start(answers(whole.leak())).await;
        let network = Network::with_external(ExternalSetup::listing(&[&there, &canary]), |_| {}).await;
        network.external().link = Some((there.origin.parse().unwrap(), 1));
        for answer in [network.ask(LIST, ZOES).await, post(&network, POST, ZOES, "{}").await] {
            assert_eq!(summary(&answer), "502 UpstreamFailure", "{status}");
            assert!(!answer.contains("location"), "{answer}");
        }
        assert_eq!(there.heard().len(), 2);
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn c20_whatever_a_pds_says_passes_byte_by_byte_without_its_challenge() {
    let body = "\u{1f}\u{8b}{\"error\" :  \"AccountTakedown\"}\u{0}";
    for status in
        ["304 X", "400 X", "401 X", "403 X", "404 X", "409 X", "413 X", "429 X", "500 X", "502 X", "503 X"]
    {
        let body = if status.starts_with("304") { "" } else { body };
        let whole = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\nwww-authenticate: DPoP error=\"other\"\r\n\
             set-cookie: a=b\r\ncache-control: public\r\ndpop-nonce: theirs\r\natproto-repo-rev: 3k\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let there = RawHost::start(answers(whole.leak())).await;
        let network = zoe_at(&there).await;
        let answer = post(&network, POST, ZOES, "{}").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {} ", &status[..3])), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
        for gone in ["www-authenticate: ", "set-cookie", "theirs", "public\r\n", "x-genkan-error"] {
            assert!(!answer.contains(gone), "{gone}: {answer}");
        }
        assert!(
            answer.contains("atproto-repo-rev: 3k\r\n")
                && answer.contains("cache-control: private, no-store\r\n")
        );
        assert!(answer.contains("content-security-policy: default-src 'none'; sandbox\r\n"));
        assert_eq!(there.heard().len(), 1, "delivered once");
    }
}

#[tokio::test]
async fn c17_a_pds_that_answers_a_page_cuts_off_or_says_nothing_is_survived() {
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nset-cookie: a=b\r\nrefresh: 0;url=/\r\ncontent-length: 8\r\n\r\n<script>";
    let there = RawHost::start(answers(page)).await;
    let answer = zoe_at(&there).await.ask(LIST, ZOES).await;
    assert!(
        answer.contains("content-disposition: attachment\r\n")
            && answer.contains("x-content-type-options: nosniff\r\n")
    );
    assert!(!answer.contains("cookie") && !answer.contains("refresh"), "{answer}");

    let ten_megabytes = "x".repeat(10 << 20);
    for garbage in [
        format!("HTTP/1.1 200 OK\r\nx: {ten_megabytes}\r\n\r\n"),
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
        String::new(),
    ] {
        let there = RawHost::start(answers_once(&garbage)).await;
        let network = zoe_at(&there).await;
        assert_eq!(summary(&post(&network, POST, ZOES, "{}").await), "502 UpstreamFailure", "{garbage:.60}");
        assert_eq!(there.heard().len(), 1, "a write is never sent again");
    }
    // The head was sent on already, so only a cut can tell the client that the body is not
    // complete.
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{\"half\":";
    let there = RawHost::start(answers_once(half)).await;
    let answer = zoe_at(&there).await.ask(LIST, ZOES).await;
    assert!(answer.contains("content-length: 20\r\n") && answer.ends_with("{\"half\":"), "{answer}");
    let hush = RawHost::start(stays_silent).await;
    let network =
        zoe_within(&hush, |settings| settings.forward.answer_head = Duration::from_millis(200)).await;
    assert_eq!(summary(&network.ask(LIST, ZOES).await), "504 UpstreamTimeout");
}

#[tokio::test]
async fn a_pds_that_turned_private_gets_no_token() {
    let canary = RawHost::start(answers_ok).await;
    let network = Network::with_external(ExternalSetup::listing(&[]), |_| {}).await;
    network.external().link = Some((canary.origin.parse().unwrap(), 1));
    assert_eq!(summary(&network.ask(LIST, ZOES).await), "502 PdsNotAllowed");
    // A document that names Genkan itself would make a loop.
    network.external().link = Some(("https://genkan.example.com".parse().unwrap(), 1));
    assert_eq!(summary(&network.ask(LIST, ZOES).await), "502 UpstreamFailure");
    assert_eq!(canary.connections(), 0);
}

/// Row 9: the PDS's own refusal reaches the client, and no call is sent there while it lasts.
#[tokio::test]
async fn a_pds_that_has_had_enough_of_us_is_left_alone() {
    let enough = "HTTP/1.1 429 Too Many Requests\r\nratelimit-limit: 3000\r\nratelimit-remaining: 0\r\nratelimit-reset: 90\r\n\
        ratelimit-policy: 3000;w=300\r\ncontent-length: 2\r\n\r\n{}";
    let there = RawHost::start(answers(enough)).await;
    let network = zoe_at(&there).await;
    let first = post(&network, POST, ZOES, "{}").await;
    assert!(first.contains("ratelimit-reset: 90\r\n") && !first.contains("x-genkan-error"), "{first}");
    let second = post(&network, POST, ZOES, "{}").await;
    assert_eq!(summary(&second), "429 RateLimitExceeded");
    assert!((30..=90).contains(&retry_after(&second)), "{second}");
    assert!(
        second.contains("ratelimit-remaining: 0\r\n") && second.contains("ratelimit-policy:"),
        "{second}"
    );
    assert_eq!(there.heard().len(), 1);
}

/// Errors of an external PDS reach the client unchanged and never open a breaker, with a session
/// and without one.
#[tokio::test]
async fn a_pds_that_answers_errors_is_not_cut_off() {
    for status in ["502", "503", "504"] {
        let whole = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{{\"error\":\"Own\"}}"
        );
        let there = RawHost::start(answers(whole.leak())).await;
        let network = zoe_at(&there).await;
        network.lives(ZOE, ZOE, &there.origin);
        for number in 0..7 {
            let read = network.ask(&format!("GET /xrpc/com.atproto.sync.getRepo?did={ZOE}"), "").await;
            assert_eq!(summary(&read), format!("{status} Own"), "read {number}: {read}");
            let call = network.ask(LIST, ZOES).await;
            assert_eq!(summary(&call), format!("{status} Own"), "call {number}: {call}");
        }
        assert_eq!(there.heard().len(), 14);
    }
}

/// A PDS may choose its types, and not what a browser makes of them at our origin.
#[tokio::test]
async fn two_types_of_one_answer_are_an_attachment() {
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-type: text/html\r\ncontent-length: 8\r\n\r\n<script>";
    let there = RawHost::start(answers(page)).await;
    let answer = zoe_at(&there).await.ask(LIST, ZOES).await;
    assert!(answer.contains("content-disposition: attachment\r\n"), "{answer}");
}
