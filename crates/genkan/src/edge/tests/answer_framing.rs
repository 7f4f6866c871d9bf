//! Answers as hosts may frame them, and what a client is told of each.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fake_rooms::ALICE;
use super::network::{ALICES, ASK, BOBS, Network, request};
use super::raw_host::{HostConnection, answers, answers_ok};

#[tokio::test]
async fn chunks_arrive_as_a_body_and_leave_a_connection_to_use() {
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n\
        3;x=y\r\nabc\r\n4\r\ndefg\r\n0\r\nx-trailer: secret\r\n\r\n";
    let until_close = |mut connection: HostConnection| async move {
        connection.request().await;
        connection.say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nhello").await;
    };
    let network = Network::with(|_| {}, answers(chunked), until_close).await;
    for _ in 0..3 {
        let answer = network.ask(ASK, ALICES).await;
        assert!(
            answer.contains("transfer-encoding: chunked\r\n") && answer.ends_with("0\r\n\r\n"),
            "{answer}"
        );
        assert!(answer.contains("abc") && answer.contains("defg") && !answer.contains("secret"), "{answer}");
    }
    assert_eq!(network.one.connections(), 1, "the trailer was read, so the next answer may follow");
    for count in 1..3 {
        let answer = network.ask(ASK, BOBS).await;
        assert!(answer.contains("hello") && answer.ends_with("0\r\n\r\n"), "{answer}");
        assert_eq!(network.two.connections(), count);
    }
}

#[tokio::test]
async fn an_interim_answer_is_not_the_answer() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\
        content-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
    let network = Network::with(|_| {}, answers(early), answers_ok).await;
    for _ in 0..2 {
        let answer = network.ask(ASK, ALICES).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"), "{answer}");
    }
    assert_eq!(network.one.connections(), 1);
}

#[tokio::test]
async fn answers_without_bodies_have_none() {
    let empty = "HTTP/1.1 204 No Content\r\n\r\n";
    let same = "HTTP/1.1 304 Not Modified\r\netag: x\r\ncontent-length: 9\r\n\r\n";
    let network = Network::with(|_| {}, answers(empty), answers(same)).await;
    for _ in 0..2 {
        let answer = network.ask(ASK, ALICES).await;
        assert!(answer.starts_with("HTTP/1.1 204 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        let answer = network.ask(ASK, BOBS).await;
        assert!(answer.starts_with("HTTP/1.1 304 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains("etag: x\r\n"));
    }
    let head_only = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 9\r\n\r\n";
    let network = Network::with(|_| {}, answers(head_only), answers_ok).await;
    for _ in 0..2 {
        let head = format!("HEAD /xrpc/com.atproto.sync.getRepo?did={ALICE}");
        let answer = network.ask(&head, "").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("content-length: 9\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
    assert_eq!(network.one.connections(), 1, "it did not wait for nine bytes");
}

/// A host that will not have an upload says so before it has read it.
#[tokio::test]
async fn an_answer_before_the_end_of_an_upload_arrives() {
    let refuses = |mut connection: HostConnection| async move {
        let mut piece = [0; 1024];
        let _ = connection.stream.read(&mut piece).await;
        let refusal =
            "HTTP/1.1 413 Payload Too Large\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        connection.say(refusal).await;
        // It reads on, as hosts do that do not want to reset the connection.
        while let Ok(1..) = connection.stream.read(&mut piece).await {}
    };
    let network = Network::with(|_| {}, refuses, answers_ok).await;
    for count in 1..3 {
        let mut client = network.connect().await;
        let head =
            "POST /xrpc/com.atproto.repo.uploadBlob HTTP/1.1\r\nhost: a\r\ncontent-length: 50000000\r\n";
        client.send(format!("{head}{ALICES}\r\n")).await;
        client.send([b'x'; 4096]).await;
        let answer = client.answer().await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("\r\n\r\n{}"), "{answer}");
        assert_eq!(network.one.connections(), count, "with an upload half sent, it is not used again");
    }
}

#[tokio::test]
async fn a_read_without_credentials_has_its_limit() {
    let pours = |mut connection: HostConnection| async move {
        connection.request().await;
        connection
            .say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        while connection
            .stream
            .write_all(format!("1000\r\n{}\r\n", "x".repeat(0x1000)).as_bytes())
            .await
            .is_ok()
        {}
    };
    let small = |settings: &mut crate::edge::Settings| settings.forward.answer = 1_000;
    let network = Network::with(small, pours, answers_ok).await;
    let read = request(&format!("GET /xrpc/com.atproto.sync.getRepo?did={ALICE}"), "");
    let answer = network.raw(&read).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.ends_with("0\r\n\r\n"), "no clean end: {answer}");
    assert!(answer.len() < 10_000, "{}", answer.len());
}

#[tokio::test]
async fn a_redirect_of_a_host_is_not_followed() {
    let away =
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: https://secret.example/\r\ncontent-length: 0\r\n\r\n";
    let network = Network::with(|_| {}, answers(away), answers_ok).await;
    for line in [
        format!("GET /xrpc/com.atproto.sync.getRepo?did={ALICE}"),
        format!("GET /xrpc/com.atproto.repo.getRecord?repo={ALICE}"),
    ] {
        let answer = network.ask(&line, "").await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("UpstreamFailure"), "{answer}");
        assert!(!answer.contains("secret"), "{answer}");
    }
}
