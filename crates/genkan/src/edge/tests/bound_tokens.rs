//! Requests with a token that is bound to a key: checked here, and signed anew for the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Barrier;

use super::network::Network;
use super::raw_host::{HostConnection, answers, answers_ok};

const TIMELINE: &str = "GET /xrpc/app.bsky.feed.getTimeline?limit=3";
const ALICE: &str = "authorization: DPoP alice\r\ndpop: good\r\n";

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndpop-nonce: theirs\r\n\
    content-length: 11\r\n\r\n{\"ok\":true}";
/// As a PDS says it.
const OTHER_NONCE: &str = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: DPoP error=\"use_dpop_nonce\"\r\n\
    dpop-nonce: theirs\r\ncontent-length: 2\r\n\r\n{}";

/// Wants this nonce in proofs.
async fn wants_nonce(mut connection: HostConnection) {
    while let Some(request) = connection.request().await {
        connection.say(if request.contains("!theirs\r\n") { OK } else { OTHER_NONCE }).await;
    }
}

#[tokio::test]
async fn the_host_gets_our_token_and_proof_and_nothing_of_the_clients() {
    let network = Network::start().await;
    let answer = network.ask(TIMELINE, ALICE).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("dpop-nonce: our-nonce\r\n"), "{answer}");
    let [heard] = network.one.heard().try_into().unwrap();
    assert!(heard.contains("authorization: DPoP ours-for-did:plc:aaaaaaaaaaaaaaaaaaaaaaaa\r\n"), "{heard}");
    assert!(heard.contains("dpop: GET!one!/xrpc/app.bsky.feed.getTimeline!\r\n"), "{heard}");
    assert_eq!(heard.matches("authorization:").count() + heard.matches("dpop:").count(), 2, "{heard}");
    let refused = network.ask(TIMELINE, "authorization: DPoP alice\r\ndpop: stale\r\n").await;
    assert!(refused.contains("www-authenticate: DPoP algs=") && refused.contains("error=\"use_dpop_nonce\""));
    assert!(refused.contains("dpop-nonce: our-nonce\r\n"), "{refused}");
}

#[tokio::test]
async fn a_host_with_nonces_of_its_own_is_asked_again_with_the_same_body() {
    let network = Network::with(|_| {}, wants_nonce, answers_ok).await;
    let post = "POST /xrpc/com.atproto.repo.uploadBlob";
    for fields in [
        "content-length: 5\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "\r\n",
    ] {
        network.one_forgets_nonce();
        let before = network.one.heard().len();
        let request =
            format!("{post} HTTP/1.1\r\nhost: genkan.example\r\nconnection: close\r\n{ALICE}{fields}");
        let answer = network.raw(request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("dpop-nonce: our-nonce") && !answer.contains("theirs"), "{answer}");
        let heard = network.one.heard();
        // What was left of the last body may be heard late.
        let since = || heard.iter().skip(before);
        let without = "dpop: POST!one!/xrpc/com.atproto.repo.uploadBlob!\r\n";
        assert!(since().any(|heard| heard.contains(without)), "{heard:?}");
        let again = since().find(|heard| heard.contains("!theirs\r\n"));
        let again = again.unwrap_or_else(|| panic!("{heard:?}"));
        assert!(!fields.starts_with("content") || again.ends_with("hello"), "{again}");
    }
}

#[tokio::test]
async fn a_body_too_large_to_keep_is_not_sent_twice() {
    let network = Network::with(|_| {}, wants_nonce_at_once, answers_ok).await;
    let size = 3 << 20;
    let head = format!(
        "POST /xrpc/com.atproto.repo.uploadBlob HTTP/1.1\r\nhost: genkan.example\r\n{ALICE}content-length: {size}\r\n\r\n"
    );
    let mut client = network.connect().await;
    client.send(head).await;
    client.send(vec![b'x'; size]).await;
    let answer = client.answer().await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("UpstreamNotReady"), "{answer}");
    assert!(answer.contains("retry-after: 0\r\n"), "{answer}");
}

/// One thread keeps eight mebibytes for second tries of all clients together, and has them back
/// afterwards.
#[tokio::test]
async fn bodies_are_kept_for_a_second_try_within_a_budget() {
    const AT_ONCE: usize = 9;
    let (all, first_tries) = (Arc::new(Barrier::new(AT_ONCE)), Arc::new(AtomicUsize::new(0)));
    let waits_for_all = move |mut connection: HostConnection| {
        let (all, first_tries) = (Arc::clone(&all), Arc::clone(&first_tries));
        async move {
            while let Some(request) = connection.request().await {
                let is_again = request.contains("!theirs\r\n");
                if !is_again && first_tries.fetch_add(1, Ordering::SeqCst) < AT_ONCE {
                    all.wait().await;
                }
                connection.say(if is_again { OK } else { OTHER_NONCE }).await;
            }
        }
    };
    let network = Network::with(|_| {}, waits_for_all, answers_ok).await;
    let size = 1 << 20;
    let upload = async || {
        let head = format!(
            "POST /xrpc/com.atproto.repo.uploadBlob HTTP/1.1\r\nhost: genkan.example\r\n{ALICE}content-length: {size}\r\n\r\n"
        );
        let mut client = network.connect().await;
        client.send(head).await;
        client.send(vec![b'x'; size]).await;
        client.answer().await.get(9..12).unwrap_or_default().to_owned()
    };
    let mut told = futures_util::future::join_all((0..AT_ONCE).map(|_| upload())).await;
    told.sort();
    assert_eq!(told, [vec!["200"; AT_ONCE - 1], vec!["503"]].concat());
    network.one_forgets_nonce();
    assert_eq!(upload().await, "200", "there is room again");
}

/// Reads all of the body first, and then says no.
async fn wants_nonce_at_once(mut connection: HostConnection) {
    while connection.request().await.is_some() {
        connection.say(OTHER_NONCE).await;
    }
}

#[tokio::test]
async fn a_host_that_does_not_take_our_signature_is_our_trouble() {
    for (said, expected) in [
        ("WWW-Authenticate: DPoP error=\"invalid_token\"", "502 Bad Gateway"),
        ("WWW-Authenticate: DPoP error=\"invalid_dpop_proof\"", "502 Bad Gateway"),
        ("WWW-Authenticate: DPoP error=\"use_dpop_nonce\"\r\ndpop-nonce: other", "502 Bad Gateway"),
        ("x-other: AccountTakedown", "401 Unauthorized"),
    ] {
        let whole = format!("HTTP/1.1 401 Unauthorized\r\n{said}\r\ncontent-length: 2\r\n\r\n{{}}");
        let network = Network::with(|_| {}, answers(whole.leak()), answers_ok).await;
        let answer = network.ask(TIMELINE, ALICE).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{said}: {answer}");
        assert!(!answer.contains("www-authenticate:"), "{answer}");
        assert_eq!(answer.contains("UpstreamAuthUnavailable"), expected.starts_with("502"), "{answer}");
    }
}

#[tokio::test]
async fn an_account_that_is_gone_makes_the_client_refresh() {
    let gone = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: 27\r\n\r\n\
        {\"error\":\"AccountNotFound\"}";
    let network = Network::with(|_| {}, answers(gone), answers_ok).await;
    let answer = network.ask(TIMELINE, ALICE).await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("error=\"invalid_token\""), "{answer}");
}

#[tokio::test]
async fn reading_of_oneself_keeps_the_grant_and_others_ignore_it() {
    let network = Network::start().await;
    let own = "GET /xrpc/com.atproto.sync.getRepo?did=did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
    assert!(network.ask(own, ALICE).await.starts_with("HTTP/1.1 200"));
    assert!(network.ask(own, "authorization: DPoP bob\r\ndpop: good\r\n").await.starts_with("HTTP/1.1 200"));
    assert!(
        network.ask(own, "authorization: DPoP forged\r\ndpop: good\r\n").await.starts_with("HTTP/1.1 200")
    );
    let heard = network.one.heard();
    let signed: Vec<bool> = heard.iter().map(|heard| heard.contains("authorization: DPoP ours")).collect();
    assert_eq!(signed, [true, false, false]);
    assert!(heard.iter().skip(1).all(|heard| !heard.contains("authorization")));
}
