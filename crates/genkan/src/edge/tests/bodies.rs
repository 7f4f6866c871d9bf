//! Bodies: they pass unchanged, both ways, as fast as the slower side takes them.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::network::{Network, PATIENCE};
use super::raw_host::{HostConnection, answers_ok};
use crate::edge::Settings;

const UPLOAD: &str =
    "POST /xrpc/com.atproto.repo.uploadBlob HTTP/1.1\r\nhost: a\r\nauthorization: Bearer alice\r\n";

/// Answers each upload with its length and its sum, as they came over the wire.
async fn sums(mut connection: HostConnection) {
    while let Some(head) = connection.head().await {
        let (mut length, mut sum) = (0_u64, 0_u64);
        let expected =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<u64>().ok());
        let mut piece = vec![0; 64 << 10];
        let mut end = Vec::new();
        while expected.is_none_or(|expected| length < expected) && !end.ends_with(b"0\r\n\r\n") {
            let Ok(count @ 1..) = connection.stream.read(&mut piece).await else { return };
            length += count as u64;
            sum += piece[..count].iter().map(|byte| u64::from(*byte)).sum::<u64>();
            if expected.is_none() {
                end.extend_from_slice(&piece[..count]);
            }
        }
        let said = format!("{length} {sum} {}", head.contains("transfer-encoding: chunked"));
        let length = said.len();
        connection
            .say(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{said}"
            ))
            .await;
    }
}

#[tokio::test]
async fn an_upload_arrives_as_long_as_it_was_announced() {
    let network = Network::with(|_| {}, sums, answers_ok).await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|count| (count % 251) as u8).collect();
    let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
    let mut client = network.connect().await;
    client.send(format!("{UPLOAD}content-length: {}\r\n\r\n", body.len())).await;
    client.send(&body).await;
    assert!(client.answer().await.ends_with(&format!("\r\n\r\n{} {sum} false", body.len())));
    let mut client = network.connect().await;
    client.send(format!("{UPLOAD}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")).await;
    assert!(client.answer().await.ends_with(" true"), "chunked stays chunked");
    let mut client = network.connect().await;
    client.send(format!("{UPLOAD}content-length: 0\r\n\r\n")).await;
    assert!(client.answer().await.ends_with("\r\n\r\n0 0 false"), "an empty blob is a blob");
}

#[tokio::test]
async fn too_much_is_refused_as_soon_as_it_shows() {
    let small = |settings: &mut Settings| settings.forward.blob = 1000;
    let network = Network::with(small, sums, answers_ok).await;
    let mut client = network.connect().await;
    client.send(format!("{UPLOAD}content-length: 1001\r\n\r\n")).await;
    assert!(client.rest().await.contains("\"PayloadTooLarge\""), "by its length");
    let mut client = network.connect().await;
    client.send(format!("{UPLOAD}transfer-encoding: chunked\r\n\r\n400\r\n")).await;
    client.send([b'x'; 0x400]).await;
    let answer = client.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("\"PayloadTooLarge\""),
        "by its count: {answer}"
    );
    let mut client = network.connect().await;
    client
        .send("GET /xrpc/app.bsky.feed.getTimeline HTTP/1.1\r\nhost: a\r\nauthorization: Bearer alice\r\n")
        .await;
    client.send("content-length: 1\r\n\r\nx").await;
    assert!(client.answer().await.starts_with("HTTP/1.1 400 "), "a query has no body");
}

#[tokio::test]
async fn a_client_that_stops_sending_gets_an_error() {
    let quick = |settings: &mut Settings| settings.forward.idle = Duration::from_millis(200);
    let network = Network::with(quick, sums, answers_ok).await;
    let mut client = network.connect().await;
    client.send(format!("{UPLOAD}content-length: 100\r\n\r\nhello")).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    let grace = |settings: &mut Settings| settings.forward.slow_grace = Duration::from_millis(100);
    let network = Network::with(grace, sums, answers_ok).await;
    let mut client = network.connect().await;
    client.send(format!("{UPLOAD}content-length: 100000\r\n\r\n")).await;
    let (mut reading, mut writing) = client.stream.split();
    let trickle = async {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut answer = vec![0; 12];
    tokio::select! {
        () = trickle => panic!("it was cut without a word"),
        read = reading.read_exact(&mut answer) => { read.unwrap(); }
        () = tokio::time::sleep(PATIENCE) => panic!("it was never cut"),
    }
    assert_eq!(answer, b"HTTP/1.1 408", "less than a kilobyte a second");
}

#[tokio::test]
async fn a_host_that_stops_taking_an_upload_is_504() {
    let full = |mut connection: HostConnection| async move {
        connection.head().await;
        std::future::pending::<()>().await;
    };
    let quick = |settings: &mut Settings| settings.forward.idle = Duration::from_millis(200);
    let network = Network::with(quick, full, answers_ok).await;
    let mut client = network.connect().await;
    client.send(format!("{UPLOAD}content-length: {}\r\n\r\n", 64 << 20)).await;
    let (mut reading, mut writing) = client.stream.split();
    let piece = vec![b'x'; 64 << 10];
    let pouring = async { while writing.write_all(&piece).await.is_ok() {} };
    let mut answer = vec![0; 12];
    // Its writes fail as soon as the answer is there.
    let told = futures_util::future::join(pouring, reading.read_exact(&mut answer));
    let ((), read) = tokio::time::timeout(PATIENCE, told).await.expect("an answer comes");
    assert_eq!(read.expect("not cut without a word"), 12);
    assert_eq!(answer, b"HTTP/1.1 504");
}

/// F8: the host learns at once that nobody uploads any more.
#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let (begins, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let (told, mut end) = tokio::sync::mpsc::unbounded_channel();
    let watches = move |mut connection: HostConnection| {
        let (begins, told) = (begins.clone(), told.clone());
        async move {
            connection.head().await;
            let _ = begins.send(());
            let mut piece = [0; 1024];
            while let Ok(1..) = connection.stream.read(&mut piece).await {}
            let _ = told.send(());
        }
    };
    let network = Network::with(|_| {}, watches, answers_ok).await;
    let mut client = network.connect().await;
    client.send(format!("{UPLOAD}content-length: 1000000\r\n\r\nhello")).await;
    tokio::time::timeout(PATIENCE, begun.recv()).await.expect("the host has the request");
    drop(client);
    tokio::time::timeout(PATIENCE, end.recv()).await.expect("the host is told of an upload");
    let mut client = network.connect().await;
    client
        .send(
            "GET /xrpc/app.bsky.feed.getTimeline HTTP/1.1\r\nhost: a\r\nauthorization: Bearer alice\r\n\r\n",
        )
        .await;
    tokio::time::timeout(PATIENCE, begun.recv()).await.expect("the host has the request");
    drop(client);
    tokio::time::timeout(PATIENCE, end.recv()).await.expect("the host is told of a read");
}
