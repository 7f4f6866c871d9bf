//! Hosts that break, hang or lie (faults F1 to F7).

use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use super::fake_rooms::ALICE;
use super::network::{Gate, Guest, Network, answers, answers_ok, eventually, request};

const ASK: &str = "GET /xrpc/app.bsky.feed.getTimeline";
const ALICES: &str = "authorization: Bearer alice\r\n";
const BOBS: &str = "authorization: Bearer bob\r\n";

fn status_of(answer: &str) -> String {
    let name = answer.split_once("\"error\":\"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or("-");
    format!("{} {name}", answer.get(9..12).unwrap_or("none"))
}

#[tokio::test]
async fn garbage_is_502_and_nothing_of_it_gets_through() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let many = "x".repeat(10 << 20);
    let flood = "HTTP/1.1 103 Early Hints\r\nx: secret\r\n\r\n".repeat(20_000);
    for garbage in [
        "secret rubbish\r\n\r\n".to_owned(),
        "HTTP/1.1 banana\r\n\r\nsecret".to_owned(),
        format!("{head}content-length: 6\r\ncontent-length: 7\r\n\r\nsecret"),
        format!("{head}content-length: 6\r\ncontent-length: 6\r\n\r\nsecret"),
        format!("{head}content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\n\r\n"),
        format!("{head}content-length: -6\r\n\r\nsecret"),
        format!("{head}x-secret: {many}\r\ncontent-length: 6\r\n\r\nsecret"),
        flood,
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: secret\r\nconnection: upgrade\r\n\r\nsecret".to_owned(),
        "HTTP/1.1 302 Found\r\nlocation: https://secret.example/\r\ncontent-length: 0\r\n\r\n".to_owned(),
        String::new(),
    ] {
        let garbage: &'static str = garbage.leak();
        let speak = move |mut guest: Guest| async move {
            guest.request().await;
            guest.say(garbage).await;
        };
        let network = Network::with(|_| {}, speak, answers_ok).await;
        let answer = network.ask(ASK, ALICES).await;
        assert_eq!(status_of(&answer), "502 UpstreamFailure", "{garbage:.90}: {answer}");
        assert!(!answer.contains("secret"), "{answer}");
        assert_eq!(network.one.connections(), 1, "a new connection that failed is not tried again");
    }
}

#[tokio::test]
async fn a_cut_body_is_a_cut_answer() {
    for cut in [
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{\"half\":",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{\"half\":\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{\"half\":\r\nzz\r\n",
    ] {
        let speak = move |mut guest: Guest| async move {
            guest.request().await;
            guest.say(cut).await;
        };
        let network = Network::with(|_| {}, speak, answers_ok).await;
        let answer = network.ask(ASK, ALICES).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "no clean end: {answer}");
        assert!(answer.contains("transfer-encoding: chunked") || answer.contains("content-length: 20\r\n"));
        assert!(answer.contains("{\"half\":"), "what came is passed on: {answer}");
    }
}

#[tokio::test]
async fn a_host_that_says_nothing_is_504_and_its_connection_is_not_used_again() {
    let hush = |mut guest: Guest| async move {
        if guest.number == 1 {
            guest.request().await;
            std::future::pending::<()>().await;
        }
        answers_ok(guest).await;
    };
    let network =
        Network::with(|settings| settings.forward.answer_head = Duration::from_millis(200), hush, answers_ok)
            .await;
    assert_eq!(status_of(&network.ask(ASK, ALICES).await), "504 UpstreamTimeout");
    assert_eq!(status_of(&network.ask(ASK, ALICES).await), "200 -");
    assert_eq!(network.one.connections(), 2);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_cut() {
    let stops = |mut guest: Guest| async move {
        guest.request().await;
        for piece in ["HTTP/1.1 200", " OK\r\ncontent-", "type: text/plain\r\n"] {
            guest.say(piece).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        std::future::pending::<()>().await;
    };
    let says_head = move |mut guest: Guest| async move {
        guest.request().await;
        guest.say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\n").await;
        let quiet = Guest::request(&mut guest);
        let _ = tokio::time::timeout(Duration::from_millis(10), quiet).await;
        guest.say("abc").await;
        std::future::pending::<()>().await;
    };
    let quick = |settings: &mut crate::edge::Settings| {
        settings.forward.idle = Duration::from_millis(200);
        settings.forward.answer_head = Duration::from_millis(200);
    };
    let network = Network::with(quick, stops, says_head).await;
    assert_eq!(status_of(&network.ask(ASK, ALICES).await), "504 UpstreamTimeout", "bytes, but never a head");
    let answer = network.ask(ASK, BOBS).await;
    assert!(answer.contains("content-length: 10\r\n") && answer.ends_with("\r\n\r\nabc"), "{answer}");
}

#[tokio::test]
async fn a_spare_connection_that_the_host_has_closed_costs_nobody_a_read() {
    // Answers once on each connection; at the second request it reads the head and hangs up.
    let fickle = |mut guest: Guest| async move {
        guest.request().await;
        guest.say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok").await;
        guest.request().await;
    };
    let network = Network::with(|_| {}, fickle, answers_ok).await;
    assert_eq!(status_of(&network.ask(ASK, ALICES).await), "200 -");
    assert_eq!(status_of(&network.ask(ASK, ALICES).await), "200 -", "a read is sent again");
    assert_eq!(network.one.connections(), 2);
    assert_eq!(network.one.heard().len(), 3);
    let write = request(
        "POST /xrpc/com.atproto.repo.createRecord",
        "authorization: Bearer alice\r\ncontent-length: 2\r\n",
    );
    assert_eq!(
        status_of(&network.raw(format!("{write}{{}}")).await),
        "502 UpstreamFailure",
        "a write is not"
    );
    assert_eq!(network.one.heard().iter().filter(|heard| heard.starts_with("POST")).count(), 1);
}

#[tokio::test]
async fn a_connection_found_closed_is_replaced_for_writes_as_well() {
    let hangs_up = |mut guest: Guest| async move {
        guest.request().await;
        guest.say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok").await;
    };
    let network = Network::with(|_| {}, hangs_up, answers_ok).await;
    let write = request(
        "POST /xrpc/com.atproto.repo.createRecord",
        "authorization: Bearer alice\r\ncontent-length: 2\r\n",
    );
    for _ in 0..3 {
        assert_eq!(status_of(&network.raw(format!("{write}{{}}")).await), "200 -");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(network.one.connections(), 3);
}

#[tokio::test]
async fn connections_are_used_again_only_when_their_answer_has_ended() {
    let network = Network::start().await;
    for _ in 0..5 {
        network.ask(ASK, ALICES).await;
    }
    assert_eq!(network.one.connections(), 1);
    let close =
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
    let surplus =
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\nx";
    let network = Network::with(|_| {}, answers(close), answers(surplus)).await;
    for _ in 0..3 {
        assert!(network.ask(ASK, ALICES).await.ends_with("\r\n\r\nok"));
        assert!(network.ask(ASK, BOBS).await.ends_with("\r\n\r\nok"));
    }
    assert_eq!((network.one.connections(), network.two.connections()), (3, 3));
}

/// The rest of that answer would be the next one's beginning.
#[tokio::test]
async fn a_connection_with_half_an_answer_is_not_used_again() {
    let halves = |mut guest: Guest| async move {
        if guest.number <= 2 {
            guest.request().await;
            guest.say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\nfirst").await;
            guest.request().await;
            guest.say("other").await;
        }
        answers_ok(guest).await;
    };
    let network =
        Network::with(|settings| settings.forward.idle = Duration::from_millis(200), halves, answers_ok)
            .await;
    let mut leaves = network.connect().await;
    leaves.send(request(ASK, ALICES)).await;
    let mut read = Vec::new();
    while !read.ends_with(b"first") {
        read.push(leaves.stream.read_u8().await.unwrap());
    }
    drop(leaves);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let answer = network.ask(ASK, ALICES).await;
    assert!(answer.ends_with("first"), "the host kept this one waiting until it was cut: {answer}");
    assert_eq!(status_of(&network.ask(ASK, ALICES).await), "200 -");
    assert_eq!((network.one.connections(), network.one.heard().len()), (3, 3));
}

#[tokio::test]
async fn a_dead_host_is_left_alone_and_the_others_notice_nothing() {
    let mut network = Network::start().await;
    network.one.close().await;
    for _ in 0..5 {
        assert_eq!(status_of(&network.ask(ASK, ALICES).await), "502 UpstreamFailure");
    }
    let answer = network.ask(ASK, ALICES).await;
    assert!(answer.contains("failed repeatedly"), "{answer}");
    assert_eq!(status_of(&network.ask(ASK, BOBS).await), "200 -");
}

#[tokio::test]
async fn a_hosts_errors_pass_as_they_are() {
    let teapot = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\nratelimit-limit: 3\r\nset-cookie: a=b\r\n\
        content-type: application/json\r\ncontent-length: 9\r\n\r\n{\"a\" : 1}";
    let down = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<hi>";
    let network = Network::with(|_| {}, answers(teapot), answers(down)).await;
    let answer = network.ask(&format!("GET /xrpc/com.atproto.sync.getRepo?did={ALICE}"), "").await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.ends_with("{\"a\" : 1}"), "{answer}");
    assert!(answer.contains("retry-after: 7\r\n") && answer.contains("ratelimit-limit: 3\r\n"));
    assert!(!answer.contains("cookie") && !answer.contains("x-genkan-error"));
    for _ in 0..5 {
        let answer = network.ask(ASK, BOBS).await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("content-disposition: attachment\r\n")
        );
    }
    assert_eq!(
        status_of(&network.ask(ASK, BOBS).await),
        "502 UpstreamFailure",
        "five in a row open the breaker"
    );
}

#[tokio::test]
async fn bad_gateways_and_timeouts_of_a_host_count_for_its_breaker_and_its_own_errors_do_not() {
    let gateway = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
    let timeout = "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\n\r\n";
    let network =
        Network::with(|settings| settings.breaker.failures = 3, answers(gateway), answers(timeout)).await;
    for fields in [ALICES, BOBS] {
        for _ in 0..3 {
            assert!(!network.ask(ASK, fields).await.contains("failed repeatedly"));
        }
        assert!(network.ask(ASK, fields).await.contains("failed repeatedly"), "three were enough");
    }
    let broken = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
    let busy = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n";
    let network = Network::with(|_| {}, answers(broken), answers(busy)).await;
    for _ in 0..12 {
        assert!(network.ask(ASK, ALICES).await.starts_with("HTTP/1.1 500 "));
        assert!(network.ask(ASK, BOBS).await.starts_with("HTTP/1.1 429 "));
    }
}

#[tokio::test]
async fn a_host_that_breaks_off_or_says_nothing_is_left_alone_as_well() {
    let hush = |mut guest: Guest| async move {
        guest.request().await;
        std::future::pending::<()>().await;
    };
    let hangs_up = |mut guest: Guest| async move {
        guest.request().await;
    };
    let quick = |settings: &mut crate::edge::Settings| {
        settings.breaker.failures = 2;
        settings.forward.answer_head = Duration::from_millis(100);
    };
    let network = Network::with(quick, hush, hangs_up).await;
    for (fields, told) in [(ALICES, "504 UpstreamTimeout"), (BOBS, "502 UpstreamFailure")] {
        for _ in 0..2 {
            let answer = network.ask(ASK, fields).await;
            assert!(status_of(&answer) == told && !answer.contains("failed repeatedly"), "{answer}");
        }
        assert!(network.ask(ASK, fields).await.contains("failed repeatedly"), "{told}");
    }
}

#[tokio::test]
async fn an_answer_between_two_failures_parts_them() {
    let by_turns = |mut guest: Guest| async move {
        for status in ["503 Service Unavailable", "200 OK"].iter().cycle() {
            if guest.request().await.is_none() {
                return;
            }
            guest.say(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).await;
        }
    };
    let network = Network::with(|settings| settings.breaker.failures = 2, by_turns, answers_ok).await;
    for status in [503, 200, 503, 200, 503, 200] {
        let answer = network.ask(ASK, ALICES).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn a_host_is_tried_again_after_the_operators_pause() {
    let refuses = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let pause = |settings: &mut crate::edge::Settings| {
        settings.breaker.failures = 1;
        settings.breaker.pause = Duration::from_millis(200);
    };
    let network = Network::with(pause, answers(refuses), answers_ok).await;
    assert!(network.ask(ASK, ALICES).await.starts_with("HTTP/1.1 503 "));
    assert!(network.ask(ASK, ALICES).await.contains("failed repeatedly"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(network.ask(ASK, ALICES).await.starts_with("HTTP/1.1 503 "), "asked again");
}

#[tokio::test]
async fn a_host_gets_only_so_many_at_once() {
    let gate = Gate::closed();
    let waits = gate.clone();
    let slow = move |mut guest: Guest| {
        let waits = waits.clone();
        async move {
            guest.request().await;
            waits.pass().await;
            guest.say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok").await;
        }
    };
    let network = Network::with(|settings| settings.forward.at_once = 2, slow, answers_ok).await;
    let (a, b, c) = tokio::join!(network.ask(ASK, ALICES), network.ask(ASK, ALICES), async {
        eventually("two are at the host", || network.one.heard().len() == 2).await;
        let refused = network.ask(ASK, ALICES).await;
        gate.open();
        refused
    });
    assert_eq!([status_of(&a), status_of(&b), status_of(&c)], ["200 -", "200 -", "503 NotEnoughResources"]);
    assert_eq!(status_of(&network.ask(ASK, ALICES).await), "200 -", "the permits came back");
}
