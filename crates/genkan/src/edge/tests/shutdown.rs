//! The end of the edge: who may finish, and who is cut off.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use genkan_testing::Gate;

use super::http2::{http2, http2_request};
use super::network::{ALICES, ASK, Network, PATIENCE, eventually};
use super::raw_host::{answers_at, answers_ok, stays_silent};

/// R8: requests under way may end; new connections are refused; then the edge is gone.
#[tokio::test]
async fn stopping_lets_running_requests_end() {
    let gate = Gate::closed();
    let network = Network::with(|_| {}, answers_at(&gate), answers_ok).await;
    let address = network.edge.address();
    let mut busy = network.connect().await;
    busy.send(format!("{ASK} HTTP/1.1\r\nhost: a\r\n{ALICES}\r\n")).await;
    let mut idle = network.connect().await;
    idle.send(format!("{ASK} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer bob\r\n\r\n")).await;
    idle.answer().await;
    let mut stream = http2(&network).await;
    let running = stream.send_request(http2_request("GET", "/xrpc/app.bsky.feed.getTimeline"));
    eventually("both requests are at the host", || network.one.heard().len() == 2).await;
    let stopping = tokio::spawn(network.edge.stop(PATIENCE));
    assert_eq!(idle.rest().await, "", "an idle connection is closed");
    eventually("the door is closed", || std::net::TcpStream::connect(address).is_err()).await;
    gate.open();
    let answer = busy.rest().await;
    assert!(answer.ends_with("ok"), "{answer}");
    assert_eq!(running.await.unwrap().status(), 200);
    assert!(stopping.await.unwrap(), "all left by themselves");
}

#[tokio::test]
async fn stopping_waits_for_a_limited_time() {
    let network = Network::with(|_| {}, stays_silent, answers_ok).await;
    let mut busy = network.connect().await;
    busy.send(format!("{ASK} HTTP/1.1\r\nhost: a\r\n{ALICES}\r\n")).await;
    eventually("the request is at the host", || network.one.heard().len() == 1).await;
    assert!(!network.edge.stop(Duration::from_millis(200)).await, "somebody was cut off");
    let mut rest = Vec::new();
    let _ = busy.stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}
