//! Hosts that break, hang or lie (faults F1 to F7).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::sync::{Notify, mpsc};

use genkan_testing::Gate;

use super::fake_rooms::ALICE;
use super::network::{
    ALICES, ALONE, ASK, BOBS, Network, PATIENCE, eventually, request, retry_after, summary,
};
use super::raw_host::{HostConnection, answers, answers_at, answers_ok, answers_once, stays_silent};
use crate::base::monotonic_now;

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
        let network = Network::with(|_| {}, answers_once(&garbage), answers_ok).await;
        let answer = network.ask(ASK, ALICES).await;
        assert_eq!(summary(&answer), "502 UpstreamFailure", "{garbage:.90}: {answer}");
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
        let network = Network::with(|_| {}, answers_once(cut), answers_ok).await;
        let answer = network.ask(ASK, ALICES).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "no clean end: {answer}");
        assert!(answer.contains("transfer-encoding: chunked") || answer.contains("content-length: 20\r\n"));
        assert!(answer.contains("{\"half\":"), "what came is passed on: {answer}");
    }
}

#[tokio::test]
async fn a_host_that_says_nothing_is_504_and_its_connection_is_not_used_again() {
    let hush = |mut connection: HostConnection| async move {
        if connection.number == 1 {
            connection.request().await;
            std::future::pending::<()>().await;
        }
        answers_ok(connection).await;
    };
    let network =
        Network::with(|settings| settings.forward.answer_head = Duration::from_millis(200), hush, answers_ok)
            .await;
    assert_eq!(summary(&network.ask(ASK, ALICES).await), "504 UpstreamTimeout");
    assert_eq!(summary(&network.ask(ASK, ALICES).await), "200 -");
    assert_eq!(network.one.connections(), 2);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_cut() {
    let stops = |mut connection: HostConnection| async move {
        connection.request().await;
        // Each piece resets a limit between bytes. Only a limit for the head as a whole ends this.
        for piece in ["HTTP/1.1 200", " OK\r\ncontent-", "type: text/plain\r\n"] {
            connection.say(piece).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        std::future::pending::<()>().await;
    };
    let says_head = move |mut connection: HostConnection| async move {
        connection.request().await;
        connection.say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\n").await;
        let quiet = HostConnection::request(&mut connection);
        let _ = tokio::time::timeout(Duration::from_millis(10), quiet).await;
        connection.say("abc").await;
        std::future::pending::<()>().await;
    };
    let quick = |settings: &mut crate::edge::Settings| {
        settings.forward.idle = Duration::from_millis(200);
        settings.forward.answer_head = Duration::from_millis(200);
    };
    let network = Network::with(quick, stops, says_head).await;
    assert_eq!(summary(&network.ask(ASK, ALICES).await), "504 UpstreamTimeout", "bytes, but never a head");
    let answer = network.ask(ASK, BOBS).await;
    assert!(answer.contains("content-length: 10\r\n") && answer.ends_with("\r\n\r\nabc"), "{answer}");
}

#[tokio::test]
async fn a_spare_connection_that_the_host_has_closed_costs_no_read() {
    // Answers once on each connection. At the second request it reads the head and closes the
    // connection.
    let fickle = |mut connection: HostConnection| async move {
        connection.request().await;
        connection.say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok").await;
        connection.request().await;
    };
    let network = Network::with(|_| {}, fickle, answers_ok).await;
    assert_eq!(summary(&network.ask(ASK, ALICES).await), "200 -");
    assert_eq!(summary(&network.ask(ASK, ALICES).await), "200 -", "a read is sent again");
    assert_eq!(network.one.connections(), 2);
    assert_eq!(network.one.heard().len(), 3);
    let write = request(
        "POST /xrpc/com.atproto.repo.createRecord",
        "authorization: Bearer alice\r\ncontent-length: 2\r\n",
    );
    assert_eq!(summary(&network.raw(format!("{write}{{}}")).await), "502 UpstreamFailure", "a write is not");
    assert_eq!(network.one.heard().iter().filter(|heard| heard.starts_with("POST")).count(), 1);
}

#[tokio::test]
async fn a_connection_found_closed_is_replaced_for_writes_as_well() {
    let (close, (closed, mut is_closed)) = (Arc::new(Notify::new()), mpsc::unbounded_channel());
    let ends = Arc::clone(&close);
    let hangs_up = move |mut connection: HostConnection| {
        let (ends, closed) = (Arc::clone(&ends), closed.clone());
        async move {
            connection.request().await;
            connection
                .say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok")
                .await;
            ends.notified().await;
            drop(connection);
            closed.send(()).unwrap();
        }
    };
    let network = Network::with(|_| {}, hangs_up, answers_ok).await;
    let write = request(
        "POST /xrpc/com.atproto.repo.createRecord",
        "authorization: Bearer alice\r\ncontent-length: 2\r\n",
    );
    for _ in 0..3 {
        assert_eq!(summary(&network.raw(format!("{write}{{}}")).await), "200 -");
        // The answer was whole, so the connection is idle when it ends.
        close.notify_one();
        is_closed.recv().await.unwrap();
        // The edge has one worker. It sees the end of the connection before this request, which
        // comes later.
        assert_eq!(summary(&network.ask(ASK, BOBS).await), "200 -");
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
    // The host announces that it closes, so the connection must not be pooled.
    let close =
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
    // Bytes after the end of an answer would be read as the next answer, for another client.
    let surplus =
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\nx";
    let network = Network::with(|_| {}, answers(close), answers(surplus)).await;
    for _ in 0..3 {
        assert!(network.ask(ASK, ALICES).await.ends_with("\r\n\r\nok"));
        assert!(network.ask(ASK, BOBS).await.ends_with("\r\n\r\nok"));
    }
    assert_eq!((network.one.connections(), network.two.connections()), (3, 3));
}

/// The rest of the half answer would be read as the beginning of the next one.
#[tokio::test]
async fn a_connection_with_half_an_answer_is_not_used_again() {
    let given_up = Arc::new(AtomicUsize::new(0));
    let ends = Arc::clone(&given_up);
    let halves = move |mut connection: HostConnection| {
        let ends = Arc::clone(&ends);
        async move {
            if connection.number <= 2 {
                connection.request().await;
                let half = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\nfirst";
                connection.say(half).await;
                if connection.request().await.is_none() {
                    ends.fetch_add(1, Ordering::SeqCst);
                }
                connection.say("other").await;
            }
            answers_ok(connection).await;
        }
    };
    let network =
        Network::with(|settings| settings.forward.idle = Duration::from_millis(200), halves, answers_ok)
            .await;
    // The client leaves in the middle of the answer, which the edge then gives up.
    let mut leaves = network.connect().await;
    leaves.send(request(ASK, ALICES)).await;
    let mut read = Vec::new();
    while !read.ends_with(b"first") {
        read.push(leaves.stream.read_u8().await.unwrap());
    }
    drop(leaves);
    eventually("the edge gives the half answer up", || given_up.load(Ordering::SeqCst) == 1).await;
    let answer = network.ask(ASK, ALICES).await;
    assert!(answer.ends_with("first"), "the host kept this one waiting until it was cut: {answer}");
    assert_eq!(summary(&network.ask(ASK, ALICES).await), "200 -");
    assert_eq!((network.one.connections(), network.one.heard().len()), (3, 3));
}

#[tokio::test]
async fn a_dead_host_is_left_alone_and_the_others_notice_nothing() {
    let mut network = Network::start().await;
    network.one.close().await;
    for _ in 0..5 {
        assert_eq!(summary(&network.ask(ASK, ALICES).await), "502 UpstreamFailure");
    }
    // The host is back, but the breaker is still open.
    network.one.reopen().await;
    let answer = network.ask(ASK, ALICES).await;
    assert!(answer.contains("failed repeatedly"), "{answer}");
    assert_eq!(network.one.connections(), 0, "the host is not asked");
    assert_eq!(summary(&network.ask(ASK, BOBS).await), "200 -");
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
    let answer = network.ask(ASK, BOBS).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("content-disposition: attachment\r\n"));
}

/// F6: a host passes on the statuses of services behind it, so none of them says that the host is
/// down.
#[tokio::test]
async fn no_status_opens_the_breaker() {
    let by_turns = |mut connection: HostConnection| async move {
        for status in STATUSES.iter().cycle() {
            let Some(request) = connection.request().await else { return };
            let status = if request.starts_with("POST") { "200 OK" } else { status };
            connection.say(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).await;
        }
    };
    let network = Network::with(|settings| settings.breaker.failures = 1, by_turns, answers_ok).await;
    for line in [ASK, ALONE] {
        for _ in 0..4 * STATUSES.len() {
            let answer = network.ask(line, ALICES).await;
            assert!(!answer.contains("failed repeatedly") && answer.starts_with("HTTP/1.1 5"), "{answer}");
        }
    }
    let fields = format!("{ALICES}content-length: 0\r\n");
    let answer = network.ask("POST /xrpc/com.atproto.repo.createRecord", &fields).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

const STATUSES: [&str; 4] =
    ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "500 Internal Server Error"];

async fn hangs_up(mut connection: HostConnection) {
    connection.request().await;
}

#[tokio::test]
async fn a_host_that_breaks_off_or_says_nothing_is_left_alone_as_well() {
    let quick = |settings: &mut crate::edge::Settings| {
        settings.breaker.failures = 2;
        settings.forward.answer_head = Duration::from_millis(100);
    };
    let network = Network::with(quick, stays_silent, hangs_up).await;
    for (fields, told) in [(ALICES, "504 UpstreamTimeout"), (BOBS, "502 UpstreamFailure")] {
        for _ in 0..2 {
            let answer = network.ask(ALONE, fields).await;
            assert!(summary(&answer) == told && !answer.contains("failed repeatedly"), "{answer}");
        }
        assert!(network.ask(ALONE, fields).await.contains("failed repeatedly"), "{told}");
    }
    assert_eq!((network.one.connections(), network.two.connections()), (2, 2), "the hosts are not asked");
}

/// A host waits for the service that a call names, and a service that breaks off makes some hosts
/// break off too. Anyone can run such a service.
#[tokio::test]
async fn silence_and_a_cut_of_a_service_behind_a_host_close_it_to_no_one() {
    let quick = |settings: &mut crate::edge::Settings| {
        settings.breaker.failures = 1;
        settings.forward.answer_head = Duration::from_millis(50);
    };
    // Both answer writes; what they pass on is lost.
    let silent = |mut connection: HostConnection| async move {
        while let Some(request) = connection.request().await {
            if !request.starts_with("POST") {
                std::future::pending::<()>().await;
            }
            connection.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    };
    let cut = |mut connection: HostConnection| async move {
        while let Some(request) = connection.request().await {
            if !request.starts_with("POST") {
                return;
            }
            connection.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    };
    let network = Network::with(quick, silent, cut).await;
    for (fields, told) in [(ALICES, "504 UpstreamTimeout"), (BOBS, "502 UpstreamFailure")] {
        let proxied = format!("{fields}atproto-proxy: did:web:slow.example.com#x\r\n");
        for _ in 0..4 {
            for (line, fields) in [(ASK, fields), (ASK, &proxied), (ALONE, &proxied)] {
                let answer = network.ask(line, fields).await;
                assert!(summary(&answer) == told && !answer.contains("failed repeatedly"), "{answer}");
            }
        }
        let fields = format!("{fields}content-length: 0\r\n");
        let answer = network.ask("POST /xrpc/com.atproto.repo.createRecord", &fields).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[tokio::test]
async fn a_host_that_answers_most_requests_is_asked_on() {
    let fails_at_times = |mut connection: HostConnection| async move {
        while let Some(request) = connection.request().await {
            if request.contains("cursor=fail") {
                return;
            }
            connection.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    };
    let network = Network::with(|settings| settings.breaker.failures = 2, fails_at_times, answers_ok).await;
    for _ in 0..8 {
        assert!(network.ask(ALONE, ALICES).await.starts_with("HTTP/1.1 200 "));
    }
    let fails = format!("{ALONE}?cursor=fail");
    for _ in 0..7 {
        let answer = network.ask(&fails, ALICES).await;
        assert!(summary(&answer) == "502 UpstreamFailure" && !answer.contains("repeatedly"), "{answer}");
    }
    network.ask(&fails, ALICES).await;
    assert!(network.ask(ALONE, ALICES).await.contains("failed repeatedly"), "half of all");
}

#[tokio::test]
async fn a_host_is_tried_again_after_the_operators_pause() {
    const PAUSE: Duration = Duration::from_millis(500);
    let pause = |settings: &mut crate::edge::Settings| {
        settings.breaker.failures = 1;
        settings.breaker.pause = PAUSE;
    };
    let network = Network::with(pause, hangs_up, answers_ok).await;
    let began = monotonic_now();
    assert_eq!(summary(&network.ask(ALONE, ALICES).await), "502 UpstreamFailure");
    // Whatever the machine is busy with: no request goes there within the pause, and one does after
    // it.
    loop {
        let answer = network.ask(ALONE, ALICES).await;
        let took = began.elapsed();
        if !answer.contains("failed repeatedly") && network.one.heard().len() == 2 {
            // The breaker counts whole milliseconds.
            assert!(took + Duration::from_millis(1) >= PAUSE, "asked again after {took:?}");
            break;
        }
        assert!(answer.contains("failed repeatedly"), "{answer}");
        assert!(took < PATIENCE, "not asked again");
    }
}

#[tokio::test]
async fn a_host_gets_only_so_many_at_once() {
    let gate = Gate::closed();
    // Clients behind a proxy, so that each has a share of its own.
    let network = Network::behind(
        &["127.0.0.1/32".parse().unwrap()],
        |settings| settings.forward.at_once = 2,
        answers_at(&gate),
        answers_ok,
    )
    .await;
    let line = format!("GET /xrpc/com.atproto.sync.getLatestCommit?did={ALICE}");
    let from = async |address: &str| network.ask(&line, &format!("x-forwarded-for: {address}\r\n")).await;
    let (a, b, c) = tokio::join!(network.ask(ALONE, ALICES), from("192.0.2.1"), async {
        eventually("two are at the host", || network.one.heard().len() == 2).await;
        let refused = from("192.0.2.3").await;
        gate.open();
        refused
    });
    assert_eq!([summary(&a), summary(&b), summary(&c)], ["200 -", "200 -", "503 NotEnoughResources"]);
    assert_eq!(summary(&from("192.0.2.3").await), "200 -", "the permits came back");
}

/// Six addresses hold all places that are for people without an account.
#[tokio::test]
async fn an_account_reads_though_strangers_hold_all_their_places() {
    let gate = Gate::closed();
    let held = gate.clone();
    let waits = move |mut connection: HostConnection| {
        let held = held.clone();
        async move {
            while let Some(request) = connection.request().await {
                if request.contains("limit=1") {
                    held.pass().await;
                }
                connection.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    };
    let proxies = ["127.0.0.1/32".parse().unwrap()];
    let network =
        Network::behind(&proxies, |settings| settings.forward.at_once = 32, waits, answers_ok).await;
    let read = format!("GET /xrpc/com.atproto.repo.listRecords?repo={ALICE}");
    let mut clients = Vec::new();
    for index in 0..24 {
        let fields = format!("x-forwarded-for: 192.0.2.{}\r\n", index / 4);
        let mut client = network.connect().await;
        client.send(request(&format!("{read}&limit=1"), &fields)).await;
        clients.push(client);
    }
    eventually("strangers hold their places", || network.one.heard().len() == 24).await;
    let fields = "x-forwarded-for: 192.0.2.99\r\n";
    assert_eq!(summary(&network.ask(&read, fields).await), "503 NotEnoughResources");
    // A read goes without the token, and counts for the account whose token it is.
    let fields = format!("authorization: Bearer alice\r\n{fields}");
    assert_eq!(summary(&network.ask(&read, &fields).await), "200 -");
    assert!(!network.one.heard().last().unwrap().contains("alice\r\n"));
    gate.open();
    for mut client in clients {
        assert!(client.rest().await.starts_with("HTTP/1.1 200 "));
    }
}

/// One account or address fills no host, whatever it does: here it waits for slow answers.
#[tokio::test]
async fn a_client_gets_an_eighth_of_a_hosts_places() {
    let gate = Gate::closed();
    let held = gate.clone();
    let waits = move |mut connection: HostConnection| {
        let held = held.clone();
        async move {
            while let Some(request) = connection.request().await {
                if request.contains("limit=1") {
                    held.pass().await;
                }
                connection.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    };
    let proxies = ["127.0.0.1/32".parse().unwrap()];
    let network =
        Network::behind(&proxies, |settings| settings.forward.at_once = 32, waits, answers_ok).await;
    let slow = format!("{ALONE}?limit=1");
    let read = format!("GET /xrpc/com.atproto.sync.listBlobs?did={ALICE}");
    let mut held = Vec::new();
    for index in 0..4 {
        // An account holds its places from whatever address it calls.
        let fields = format!("{ALICES}x-forwarded-for: 192.0.2.{index}\r\n");
        let mut client = network.connect().await;
        client.send(request(&slow, &fields)).await;
        held.push(client);
        // And a stranger by its address: an IPv6 client by its whole /64.
        let fields = format!("x-forwarded-for: 2001:db8::{index}\r\n");
        let mut client = network.connect().await;
        client.send(request(&format!("{read}&limit=1"), &fields)).await;
        held.push(client);
    }
    eventually("both have their share", || network.one.heard().len() == 8).await;
    let refused = network.ask(ALONE, ALICES).await;
    assert_eq!(summary(&refused), "429 RateLimitExceeded");
    assert!(refused.contains("this account or address has too many concurrent requests"), "{refused}");
    assert_eq!(retry_after(&refused), 1);
    let from = async |address: &str| network.ask(&read, &format!("x-forwarded-for: {address}\r\n")).await;
    assert_eq!(summary(&from("2001:db8::99").await), "429 RateLimitExceeded");
    // Neither bothers anyone else: not even an account behind the same address.
    assert_eq!(summary(&from("2001:db8:0:1::1").await), "200 -");
    let fields = "authorization: DPoP alice\r\ndpop: good\r\nx-forwarded-for: 2001:db8::1\r\n";
    assert_eq!(summary(&network.ask(ALONE, fields).await), "429 RateLimitExceeded", "the same account");
    gate.open();
    for mut client in held {
        assert!(client.rest().await.starts_with("HTTP/1.1 200 "));
    }
    eventually("the places come back", || network.one.heard().len() >= 9).await;
    assert_eq!(summary(&network.ask(ALONE, ALICES).await), "200 -");
    assert_eq!(summary(&from("2001:db8::99").await), "200 -");
}
