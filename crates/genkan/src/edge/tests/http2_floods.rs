//! HTTP/2 put to bad use (T19): each ends that connection, and no other notices.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::network::{ALICES, ALONE, ASK, BOBS, Network, PATIENCE, eventually, summary};
use super::raw_host::{HostConnection, answers_ok};
use crate::edge::IntakeLimit;

/// Frame types and flags of RFC 9113 §6.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection spoken by hand.
struct Raw {
    stream: TcpStream,
}

impl Raw {
    async fn connect(network: &Network) -> Self {
        let mut stream = TcpStream::connect(network.edge.address()).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        Self { stream }
    }

    /// `false`: the edge has closed the connection.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// What the one request came to: the type of the frame that ended it, or nothing where the
    /// connection ended.
    async fn answer(&mut self) -> Option<u8> {
        let reading = async {
            let mut head = [0; 9];
            while self.stream.read_exact(&mut head).await.is_ok() {
                let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                self.stream.read_exact(&mut payload).await.unwrap();
                if [HEADERS, RST_STREAM, GOAWAY].contains(&head[3]) {
                    return Some(head[3]);
                }
            }
            None
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("an answer comes")
    }

    /// The type and the stream of the next frame, unless the connection ends.
    async fn next(&mut self) -> Option<(u8, u32)> {
        let reading = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("a frame comes")
    }

    /// All frames that still come until the edge closes: each one's type, and its payload.
    async fn rest(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        let reading = async {
            let mut head = [0; 9];
            while self.stream.read_exact(&mut head).await.is_ok() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; length as usize];
                if self.stream.read_exact(&mut payload).await.is_err() {
                    break;
                }
                frames.push((head[3], payload));
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the connection ends");
        frames
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field in HPACK without the tables: a literal name and value.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        assert!(text.len() < 127, "one byte of length is enough here");
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// Alice's read of her timeline.
fn head() -> Vec<u8> {
    [
        field(":method", "GET"),
        field(":scheme", "http"),
        field(":authority", "genkan.example"),
        field(":path", "/xrpc/app.bsky.feed.getTimeline"),
        field("authorization", "Bearer alice"),
    ]
    .concat()
}

/// A request that Genkan answers itself.
fn robots() -> Vec<u8> {
    let path = field(":path", "/robots.txt");
    [field(":method", "GET"), field(":scheme", "http"), field(":authority", "genkan.example"), path].concat()
}

async fn never_answers(mut connection: HostConnection) {
    connection.request().await;
    std::future::pending::<()>().await;
}

/// The one that took itself out is gone; others are served as ever.
async fn assert_others_are_well(network: &Network) {
    assert!(network.ask(ASK, BOBS).await.starts_with("HTTP/1.1 200 "));
    let mut one = Raw::connect(network).await;
    assert!(one.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &robots())).await);
    assert_eq!(one.answer().await, Some(HEADERS));
}

fn was_told_to_go(frames: &[(u8, Vec<u8>)]) -> bool {
    frames.iter().any(|(kind, _)| *kind == GOAWAY)
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_the_connection() {
    let network = Network::with(|_| {}, never_answers, answers_ok).await;
    let mut raw = Raw::connect(&network).await;
    let mut burst = Vec::new();
    for stream in (1..4000).step_by(2) {
        burst.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &head()));
        burst.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    raw.send(&burst).await;
    assert!(was_told_to_go(&raw.rest().await));
    assert!(network.one.heard().len() < 300, "{} came through", network.one.heard().len());
    assert_others_are_well(&network).await;
}

#[tokio::test]
async fn requests_that_are_taken_back_one_by_one_end_the_connection() {
    let network = Network::with(|_| {}, never_answers, answers_ok).await;
    let mut raw = Raw::connect(&network).await;
    let mut taken_back = 0;
    for stream in (1..2000).step_by(2) {
        let ask = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head());
        if !raw.send(&ask).await {
            break;
        }
        // Long enough for the request to be under way.
        tokio::time::sleep(Duration::from_millis(2)).await;
        if !raw.send(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await {
            break;
        }
        taken_back += 1;
    }
    assert!(taken_back < 300, "{taken_back} requests were taken back");
    assert_others_are_well(&network).await;
}

#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    let network = Network::start().await;
    let mut raw = Raw::connect(&network).await;
    raw.send(&frame(HEADERS, END_STREAM, 1, &head())).await;
    let more = frame(CONTINUATION, 0, 1, &field("x-more", &"a".repeat(100)).repeat(100));
    let mut sent = 0;
    while sent < 10_000 && raw.send(&more).await {
        sent += 1;
    }
    assert!(sent < 10_000, "100 MB of head were taken");
    assert!(network.one.heard().is_empty());
    assert_others_are_well(&network).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let network = Network::start().await;
    let mut raw = Raw::connect(&network).await;
    let large = field("x-more", &"a".repeat(100)).repeat(130);
    raw.send(&frame(HEADERS, END_STREAM, 1, &head())).await;
    for _ in 0..2 {
        raw.send(&frame(CONTINUATION, 0, 1, &large)).await;
    }
    raw.send(&frame(CONTINUATION, END_HEADERS, 1, &large)).await;
    raw.answer().await;
    assert!(network.one.heard().is_empty(), "it went to the host");
    assert_others_are_well(&network).await;
}

/// One entry of the table named thousands of times: few bytes on the wire, megabytes as a list.
#[tokio::test]
async fn a_head_that_unpacks_to_megabytes_is_refused() {
    let network = Network::start().await;
    let mut raw = Raw::connect(&network).await;
    let mut bomb = head();
    // A literal that is kept (RFC 7541 §6.2.1), then index 62, where it is kept, again and again.
    let mut kept = field("x-bomb", &"a".repeat(120));
    kept[0] = 0x40;
    bomb.extend(kept);
    bomb.extend([0x80 | 0x3e; 10_000]);
    raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)).await;
    raw.answer().await;
    assert!(network.one.heard().is_empty(), "it went to the host");
    assert_others_are_well(&network).await;
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_and_the_rest_goes_on() {
    let network =
        Network::with(|settings| settings.streams_per_connection = 10, never_answers, answers_ok).await;
    let mut raw = Raw::connect(&network).await;
    for stream in (1..200).step_by(2) {
        raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &head())).await;
    }
    // Each stream that is not refused goes to the host; both numbers are known when all have been
    // decided on.
    for _ in 10..100 {
        assert_eq!(raw.answer().await, Some(RST_STREAM));
    }
    eventually("ten are at the host", || network.one.heard().len() == 10).await;
    assert_others_are_well(&network).await;
}

/// Reads that a client gives no window hold places at a host. Each is reset, and the connection goes
/// on.
#[tokio::test]
async fn answers_that_their_client_does_not_take_are_reset() {
    let network = Network::with(
        |settings| {
            settings.intake = IntakeLimit { period: Duration::from_millis(600), rate: 64 << 10 };
            settings.forward.at_once = 80;
        },
        answers_much,
        answers_ok,
    )
    .await;
    // A window of nothing, and two that let the first bytes through.
    for window in [0_u32, 1, 2_000] {
        let mut raw = Raw::connect(&network).await;
        raw.send(&frame(SETTINGS, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat())).await;
        // As many as the account may have at the host.
        let mut expected: Vec<u32> = (1..20).step_by(2).collect();
        for stream in &expected {
            raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, *stream, &head())).await;
        }
        // An answer that Genkan makes itself holds no place, and does not wait for ever either.
        raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 21, &robots())).await;
        if window == 0 {
            expected.push(21);
        }
        let mut reset = Vec::new();
        while reset.len() < expected.len() {
            let (kind, stream) = raw.next().await.expect("the connection stays");
            if kind == RST_STREAM {
                reset.push(stream);
            }
        }
        reset.sort_unstable();
        assert_eq!(reset, expected, "window {window}");
        assert_eq!(summary(&network.ask(ALONE, ALICES).await), "200 -", "the places are free");
    }
    assert_others_are_well(&network).await;
}

/// The window of the whole connection counts as well as that of a stream.
#[tokio::test]
async fn a_connection_without_a_window_loses_its_streams() {
    let network = Network::with(
        |settings| settings.intake = IntakeLimit { period: Duration::from_millis(600), rate: 64 << 10 },
        answers_much,
        answers_ok,
    )
    .await;
    let mut raw = Raw::connect(&network).await;
    // Each stream may send much, but all together no more than the 65,535 bytes of the beginning.
    raw.send(&frame(SETTINGS, 0, 0, &[&[0, 4][..], &(1_u32 << 30).to_be_bytes()].concat())).await;
    for stream in [1, 3] {
        raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &head())).await;
    }
    let mut reset = 0;
    while reset < 2 {
        let (kind, _) = raw.next().await.expect("the connection stays");
        reset += usize::from(kind == RST_STREAM);
    }
    assert_others_are_well(&network).await;
}

/// Sends a body of a megabyte.
async fn answers_much(mut connection: HostConnection) {
    while let Some(request) = connection.request().await {
        let length = if request.contains("listRepos") { 0 } else { 1 << 20 };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n");
        connection.say(head).await;
        connection.say("x".repeat(length)).await;
    }
}

/// Frames that ask for an answer each, from one that reads none: what waits for it is bounded.
#[tokio::test]
async fn settings_and_pings_without_end_do_not_pile_up() {
    let network = Network::with(
        |settings| settings.stalled_reader = Duration::from_millis(500),
        answers_ok,
        answers_ok,
    )
    .await;
    for flood in [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[7; 8])] {
        let mut raw = Raw::connect(&network).await;
        let flood = flood.repeat(1000);
        let flooding = async {
            let mut sent = 0;
            while sent < 50_000 && raw.send(&flood).await {
                sent += 1;
            }
            sent
        };
        // Either the edge closes the connection, or it takes no more: both keep its memory flat.
        let sent = tokio::time::timeout(Duration::from_secs(5), flooding).await.unwrap_or_default();
        assert!(sent < 50_000, "all of 50 million frames were taken from one that reads nothing");
        assert!(network.ask(ASK, ALICES).await.starts_with("HTTP/1.1 200 "));
    }
    assert_others_are_well(&network).await;
}
