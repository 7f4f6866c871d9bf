//! Clients that read an answer slowly, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::fake_rooms::ALICE;
use super::http2::{http2, http2_request};
use super::network::{ALICES, ASK, Network, PATIENCE, eventually};
use super::raw_host::{Behaviour, HostConnection, answers_ok};
use crate::base::monotonic_now;
use crate::edge::{IntakeLimit, Settings};

/// A slow reader slows the host down, instead of filling our memory.
#[tokio::test]
async fn a_slow_reader_pushes_back_on_the_host() {
    const SIZE: usize = 256 << 20;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let pours = move |mut connection: HostConnection| {
        let count = Arc::clone(&count);
        async move {
            connection.head().await;
            connection
                .say(format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {SIZE}\r\n\r\n"))
                .await;
            let piece = vec![b'x'; 64 << 10];
            for _ in 0..SIZE / piece.len() {
                if connection.stream.write_all(&piece).await.is_err() {
                    return;
                }
                count.fetch_add(piece.len(), Ordering::Relaxed);
            }
        }
    };
    let network = Network::with(|_| {}, pours, answers_ok).await;
    let mut client = network.connect().await;
    client.send(format!("GET /xrpc/com.atproto.sync.getRepo?did={ALICE} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    // Until the host gets rid of nothing more: its pieces wait for the reader.
    let (mut ahead, deadline) = (0, monotonic_now() + PATIENCE);
    loop {
        assert!(monotonic_now() < deadline, "the host still gets rid of bytes: {ahead}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = sent.load(Ordering::Relaxed);
        if now > 0 && now == ahead {
            break;
        }
        ahead = now;
        assert!(ahead < SIZE, "everything was taken from the host");
    }
    assert!(ahead < 32 << 20, "only what sockets and windows hold: {ahead}");
    let mut read = 0;
    let mut piece = vec![0; 256 << 10];
    while read < SIZE {
        read += client.stream.read(&mut piece).await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_that_never_reads_loses_its_connection() {
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let pours = move |mut connection: HostConnection| {
        let over = Arc::clone(&over);
        async move {
            connection.head().await;
            connection.say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n").await;
            let piece = vec![b'x'; 64 << 10];
            while connection.stream.write_all(&piece).await.is_ok() {}
            over.store(true, Ordering::Relaxed);
        }
    };
    let quick = |settings: &mut Settings| settings.stalled_reader = Duration::from_millis(300);
    let network = Network::with(quick, pours, answers_ok).await;
    let mut client = network.connect().await;
    client.send(format!("GET /xrpc/com.atproto.sync.getRepo?did={ALICE} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    eventually("the edge gives the host up", || is_over.load(Ordering::Relaxed)).await;
    let mut read = 0;
    let mut piece = vec![0; 256 << 10];
    while let Ok(count @ 1..) = client.stream.read(&mut piece).await {
        read += count;
        assert!(read < 100 << 20, "the connection goes on and on");
    }
}

const PERIOD: Duration = Duration::from_millis(600);

/// Makes the average over [`PERIOD`] the only limit on what a client takes.
fn averages(settings: &mut Settings) {
    settings.intake = IntakeLimit { period: PERIOD, rate: 64 << 10 };
}

/// Sends an endless body to each client that reads, and counts the connections that were given up.
fn pours(given_up: &Arc<AtomicUsize>) -> impl Fn(HostConnection) -> Behaviour + use<> {
    let given_up = Arc::clone(given_up);
    move |mut connection| {
        let given_up = Arc::clone(&given_up);
        Box::pin(async move {
            connection.request().await;
            connection.say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n").await;
            let piece = vec![b'x'; 64 << 10];
            while connection.stream.write_all(&piece).await.is_ok() {}
            given_up.fetch_add(1, Ordering::Relaxed);
        })
    }
}

/// A byte now and then keeps no answer alive: the average counts.
#[tokio::test]
async fn a_reader_that_takes_a_little_now_and_then_loses_its_connection() {
    let given_up = Arc::default();
    let network = Network::with(averages, pours(&given_up), answers_ok).await;
    let mut client = network.connect().await;
    client.send(format!("GET /xrpc/com.atproto.sync.getRepo?did={ALICE} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    let trickle = async {
        // Far more often than any limit between two bytes, and far less than the average allows.
        let mut few = [0; 256];
        while client.stream.read(&mut few).await.is_ok_and(|count| count > 0) {
            tokio::time::sleep(PERIOD / 20).await;
        }
    };
    let over = eventually("the edge gives the host up", || given_up.load(Ordering::Relaxed) == 1);
    tokio::select! { () = over => {}, () = trickle => {} }
    eventually("the place is free", || given_up.load(Ordering::Relaxed) == 1).await;
}

/// A host that sends slowly makes no client slow.
#[tokio::test]
async fn a_client_of_a_slow_host_keeps_its_answer() {
    const PIECES: usize = 40;
    let trickles = |mut connection: HostConnection| async move {
        while connection.request().await.is_some() {
            connection.say(format!("HTTP/1.1 200 OK\r\ncontent-length: {PIECES}\r\n\r\n")).await;
            for _ in 0..PIECES {
                connection.say("x").await;
                tokio::time::sleep(PERIOD / 10).await;
            }
        }
    };
    let network = Network::with(averages, trickles, answers_ok).await;
    let answer = network.ask(ASK, ALICES).await;
    assert!(answer.ends_with(&"x".repeat(PIECES)), "{answer}");
    let mut sender = http2(&network).await;
    let answer = sender.send_request(http2_request("GET", "/xrpc/app.bsky.feed.getTimeline")).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "x".repeat(PIECES));
}
