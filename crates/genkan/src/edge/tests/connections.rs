//! Clients' connections: their time limits, their number, and HTTP/2.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::BodyExt as _;

use genkan_testing::Gate;

use super::http2::{http2, http2_request};
use super::network::{ALICES, ASK, Network, eventually, request};
use super::raw_host::{answers_at, answers_ok};
use crate::edge::Settings;

#[tokio::test]
async fn a_head_has_its_time() {
    let quick = |settings: &mut Settings| settings.head_timeout = Duration::from_millis(200);
    let network = Network::with(quick, answers_ok, answers_ok).await;
    assert!(network.raw("GET / HTTP/1.1\r\nhost: a\r\nx: ").await.starts_with("HTTP/1.1 408 "));
    assert_eq!(network.raw("PRI * HT").await, "", "half a preface");
    let mut client = network.connect().await;
    client.send(format!("{ASK} HTTP/1.1\r\nhost: a\r\n{ALICES}\r\n")).await;
    client.answer().await;
    // A head that began after that answer has run out of time meanwhile.
    assert!(network.raw("GET / HTTP/1.1\r\nhost: a\r\nx: ").await.starts_with("HTTP/1.1 408 "));
    client.send(format!("{ASK} HTTP/1.1\r\nhost: a\r\n{ALICES}\r\n")).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200 "), "between requests there is more time");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let gate = Gate::closed();
    let quick = |settings: &mut Settings| settings.idle_timeout = Duration::from_millis(200);
    let network = Network::with(quick, answers_at(&gate), answers_ok).await;
    let mut idle = network.connect().await;
    idle.send(format!("{ASK} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer bob\r\n\r\n")).await;
    assert!(idle.answer().await.starts_with("HTTP/1.1 200 "));
    let mut busy = network.connect().await;
    busy.send(format!("{ASK} HTTP/1.1\r\nhost: a\r\n{ALICES}\r\n")).await;
    assert_eq!(idle.rest().await, "");
    assert_eq!(network.raw("").await, "", "one that never says anything");
    gate.open();
    assert!(busy.answer().await.ends_with("ok"));
}

#[tokio::test]
async fn one_address_gets_only_so_many_connections() {
    let few = |settings: &mut Settings| settings.connections_per_address = 2;
    let network = Network::with(few, answers_ok, answers_ok).await;
    let (mut first, mut second) = (network.connect().await, network.connect().await);
    for client in [&mut first, &mut second] {
        client.send(format!("{ASK} HTTP/1.1\r\nhost: a\r\n{ALICES}\r\n")).await;
        assert!(client.answer().await.starts_with("HTTP/1.1 200 "));
    }
    let mut third = network.connect().await;
    assert_eq!(third.rest().await, "", "closed at once");
    drop(first);
    eventually("the edge notices that the first has left", || network.edge.counters()[0].open() == 1).await;
    assert!(network.ask(ASK, ALICES).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(network.edge.counters()[0].turned_away(), 1);
}

#[tokio::test]
async fn requests_may_follow_each_other_without_waiting() {
    let network = Network::start().await;
    let one = format!("{ASK} HTTP/1.1\r\nhost: a\r\n{ALICES}\r\n");
    let last = request(ASK, ALICES);
    let answers = network.raw(format!("{one}{one}{last}")).await;
    assert_eq!(answers.matches("{\"ok\":true}").count(), 3, "{answers}");
    assert_eq!(network.one.connections(), 1);
}

#[tokio::test]
async fn http2_requests_take_the_same_routes() -> Result<(), Infallible> {
    let network = Network::start().await;
    let mut sender = http2(&network).await;
    let asked: Vec<_> = (0..20)
        .map(|count| {
            sender
                .send_request(http2_request("GET", &format!("/xrpc/app.bsky.feed.getTimeline?page={count}")))
        })
        .collect();
    for answer in asked {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "{\"ok\":true}");
    }
    let heard = network.one.heard();
    assert_eq!(heard.len(), 20);
    assert!(
        heard[0].starts_with("GET /xrpc/app.bsky.feed.getTimeline?page=")
            && heard[0].contains(" HTTP/1.1\r\n")
    );
    assert!(!heard[0].contains("genkan.example"));
    for (method, path, status) in [
        ("TRACE", "/", 405),
        ("get", "/", 405),
        ("GET", "/xrpc/app.bsky.feed.getTimeline/", 400),
        ("GET", "/xrpc/com.atproto.sync.subscribeRepos", 501),
        ("GET", "/robots.txt", 200),
    ] {
        assert_eq!(
            sender.send_request(http2_request(method, path)).await.unwrap().status(),
            status,
            "{method} {path}"
        );
    }
    Ok(())
}
