//! Hosts that fail in every way a wire allows.

use std::time::{Duration, Instant};

use genkan_testing::network::{eventually, within};
use genkan_testing::{Plan, TestNetwork, Trouble, User, Wire};
use serde_json::json;

use crate::store::on_each_database;

on_each_database!(
    a_host_that_refuses_is_left_alone_and_tried_again,
    trouble_behind_a_host_closes_it_to_no_one,
    a_silent_host_is_given_up_and_others_go_on,
    a_slow_answer_streams_and_a_stalled_one_is_cut,
    garbage_is_never_relayed,
    a_cut_body_is_a_cut_body,
    an_idle_connection_that_closes_costs_one_retry_of_reads_only,
    a_client_that_leaves_ends_its_upload,
    a_post_whose_answer_is_lost_is_not_repeated,
);

const TIMELINE: &str = "app.bsky.feed.getTimeline";

/// Two people on two hosts: the first on the first.
async fn two_homes(net: &TestNetwork) -> (User, User) {
    let (mut first, mut second) = (None, None);
    // Placement is drawn at random, so people sign up until each host has one.
    for index in 0.. {
        let user = net.sign_up(&format!("user{index}")).await;
        if net.home_of(&user.did).did() == net.host(0).did() {
            first = Some(user);
        } else {
            second = Some(user);
        }
        if first.is_some() && second.is_some() {
            break;
        }
    }
    (first.unwrap(), second.unwrap())
}

async fn timeline(net: &TestNetwork, user: &User) -> String {
    net.client_of(user).query(TIMELINE, &[]).await.summary()
}

async fn a_host_that_refuses_is_left_alone_and_tried_again(plan: Plan) {
    let net = plan.hosts(2).await;
    let (alice, bob) = two_homes(&net).await;
    assert_eq!(timeline(&net, &alice).await, "200");
    net.host(0).set_wire(Wire::Refusing).await;
    // One more than the breaker needs to open.
    for _ in 0..6 {
        let start = Instant::now();
        assert_eq!(timeline(&net, &alice).await, "502 UpstreamFailure");
        // Far less than the time that a host gets to accept a connection.
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    }
    // The breaker is open: nothing is dialled, and the accounts of the other host notice nothing.
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(timeline(&net, &alice).await, "502 UpstreamFailure");
        assert_eq!(timeline(&net, &bob).await, "200");
    }
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    net.host(0).set_wire(Wire::Well).await;
    within(Duration::from_secs(20), "the host is tried again", async || {
        timeline(&net, &alice).await == "200"
    })
    .await;
}

/// The app view's trouble, or that of a service which a caller runs, is not the host's.
async fn trouble_behind_a_host_closes_it_to_no_one(plan: Plan) {
    let net = plan.set("GENKAN_ANSWER_TIMEOUT", "1s").await;
    let (alice, bob) = (net.sign_up("alice").await, net.sign_up("bob").await);
    let post = json!({ "repo": bob.did, "collection": "app.bsky.feed.post", "record": { "text": "hi" } });
    for (trouble, count, told) in [
        (Trouble::Status(502), 16, "502"),
        (Trouble::Status(503), 16, "503"),
        (Trouble::Status(504), 16, "504"),
        (Trouble::CutAfter, 16, "502 UpstreamFailure"),
        (Trouble::Silent, 6, "504 UpstreamTimeout"),
    ] {
        // A read may be sent twice, so there is more trouble than there are reads.
        net.host(0).trouble_times(TIMELINE, trouble, 1000);
        for _ in 0..count {
            let summary = timeline(&net, &alice).await;
            assert!(summary.starts_with(told), "{summary}");
        }
        net.host(0).mend();
        let answer = net.client_of(&bob).procedure("com.atproto.repo.createRecord", &post).await;
        assert_eq!(answer.summary(), "200", "after {told}");
    }
}

async fn a_silent_host_is_given_up_and_others_go_on(plan: Plan) {
    let net = plan.set("GENKAN_ANSWER_TIMEOUT", "3s").hosts(2).await;
    let (alice, bob) = two_homes(&net).await;
    net.host(0).trouble_times(TIMELINE, Trouble::Silent, 1);
    let start = Instant::now();
    let slow = async { (timeline(&net, &alice).await, start.elapsed()) };
    let other = async {
        // These run while the first request waits, which shows that one host's silence blocks no
        // other host.
        for _ in 0..20 {
            assert_eq!(timeline(&net, &bob).await, "200");
        }
        start.elapsed()
    };
    let ((slow, given_up), other) = tokio::join!(slow, other);
    assert_eq!(slow, "504 UpstreamTimeout");
    assert!(given_up < Duration::from_secs(15) && other < given_up, "{given_up:?}, {other:?}");
    // The stuck connection is not used again.
    assert_eq!(timeline(&net, &alice).await, "200");

    // On a silent wire the connection is accepted, but no request is ever answered.
    net.host(0).set_wire(Wire::Silent).await;
    assert_eq!(timeline(&net, &alice).await, "504 UpstreamTimeout");
    // Genkan answers this method itself, so it works without the host.
    assert_eq!(net.client_of(&alice).query("com.atproto.server.getSession", &[]).await.status, 200);
}

async fn a_slow_answer_streams_and_a_stalled_one_is_cut(plan: Plan) {
    let net = plan.set("GENKAN_STREAM_IDLE_TIMEOUT", "1s").await;
    let alice = net.sign_up("alice").await;
    net.host(0).trouble_times(TIMELINE, Trouble::Slow(Duration::from_millis(1500)), 1);
    assert_eq!(timeline(&net, &alice).await, "200");
    // The length promises more than is sent. Only the missing bytes show that the body is not
    // whole.
    let stalled = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1000\r\n\r\nhalf";
    net.host(0).set_wire(Wire::RawThenSilent(stalled.into())).await;
    let start = Instant::now();
    let client = net.client_of(&alice);
    let path = format!("/xrpc/{TIMELINE}");
    // `try_send` reads the whole body, so a cut during the body is an error here.
    let cut = client.try_send(client.request(http::Method::GET, &path).body(String::new()).unwrap()).await;
    assert!(cut.is_err(), "a stalled body ended as if it were whole");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

async fn garbage_is_never_relayed(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let long = "x".repeat(10 * 1024 * 1024);
    // Each case is something that a lenient parser might accept or pass on to the client.
    let cases = [
        ("not HTTP", "SSH-2.0-OpenSSH_9.2\r\n".to_owned()),
        ("an odd version", "HTTP/9.9 200 OK\r\n\r\n".to_owned()),
        ("no status", "HTTP/1.1 \r\n\r\n".to_owned()),
        ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc".to_owned()),
        (
            "both lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
                .to_owned(),
        ),
        ("a bad field", "HTTP/1.1 200 OK\r\nbad field: x\r\n\r\n".to_owned()),
        ("a flood of 1xx", "HTTP/1.1 100 Continue\r\n\r\n".repeat(5000)),
        ("ten megabytes of head", format!("HTTP/1.1 200 OK\r\nx: {long}\r\n\r\n")),
        ("nothing", String::new()),
        // A redirect that is followed or relayed could reach the cloud's metadata service.
        (
            "a redirect",
            "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
    ];
    for (case, bytes) in cases {
        net.host(0).set_wire(Wire::Raw(bytes.into())).await;
        let answer = net.client_of(&alice).query(TIMELINE, &[]).await;
        assert_eq!(answer.summary(), "502 UpstreamFailure", "{case}");
        assert_eq!(answer.header("location"), "", "{case}");
        // The breaker opens after five failures. A good answer resets it for the next case.
        net.host(0).set_wire(Wire::Well).await;
        within(Duration::from_secs(20), "the host is tried again", async || {
            timeline(&net, &alice).await == "200"
        })
        .await;
    }
    let chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\nnonsense";
    net.host(0).set_wire(Wire::Raw(chunk.into())).await;
    let client = net.client_of(&alice);
    let request =
        client.request(http::Method::GET, &format!("/xrpc/{TIMELINE}")).body(String::new()).unwrap();
    // The first chunk may already be on its way to the client. Then only a cut can tell.
    match client.try_send(request).await {
        Err(_) => {}
        Ok(answer) => assert_eq!(answer.summary(), "502 UpstreamFailure"),
    }
}

async fn a_cut_body_is_a_cut_body(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    net.host(0).set_repo_size(&alice.did, 5_000_000);
    net.host(0).trouble_times("com.atproto.sync.getRepo", Trouble::CutMidBody, 1);
    let path = format!("/xrpc/com.atproto.sync.getRepo?did={}", alice.did);
    let client = net.visitor();
    let request = || client.request(http::Method::GET, &path).body(String::new()).unwrap();
    assert!(client.try_send(request()).await.is_err(), "a cut body ended as if it were whole");
    assert_eq!(client.send(request()).await.body.len(), 5_000_000);

    // Without a length the end of the stream is all there is to tell.
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    net.host(0).set_wire(Wire::Raw(chunked.into())).await;
    assert!(client.try_send(request()).await.is_err(), "a cut chunked body ended as if it were whole");
}

async fn an_idle_connection_that_closes_costs_one_retry_of_reads_only(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    net.host(0).set_wire(Wire::ClosingReused).await;
    net.host(0).forget();
    for round in 0..6 {
        assert_eq!(timeline(&net, &alice).await, "200", "{round}");
    }
    // A request at which the host closes the connection is not in its journal.
    assert_eq!(net.host(0).asked(TIMELINE), 6);
    let mut outcomes = Vec::new();
    for _ in 0..6 {
        let answer = net.client_of(&alice).procedure("chat.bsky.convo.sendMessage", &json!({})).await;
        outcomes.push(answer.summary());
    }
    // A write may have been done before the connection closed. It is never sent a second time.
    assert!(outcomes.iter().all(|one| one == "200" || one == "502 UpstreamFailure"), "{outcomes:?}");
    let done = outcomes.iter().filter(|one| *one == "200").count();
    assert_eq!(net.host(0).asked("chat.bsky.convo.sendMessage"), done);
}

async fn a_client_that_leaves_ends_its_upload(plan: Plan) {
    use tokio::io::AsyncWriteExt as _;
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    assert_eq!(timeline(&net, &alice).await, "200");
    // Genkan keeps idle connections to the host, so the test compares with the number before.
    let before = net.host(0).open_connections();
    let mut stream = tokio::net::TcpStream::connect(net.visitor().authority()).await.unwrap();
    let head = format!(
        "POST /xrpc/com.atproto.repo.uploadBlob HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Content-Type: video/mp4\r\nContent-Length: 5000000\r\n\r\n",
        alice.access
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![7; 300_000]).await.unwrap();
    // Without this wait the client could leave before the upload has reached the host.
    eventually("the upload arrives", async || net.host(0).asked("com.atproto.repo.uploadBlob") == 1).await;
    drop(stream);
    within(Duration::from_secs(2), "the upload's connection is closed", async || {
        net.host(0).open_connections() <= before
    })
    .await;
    // A half upload must not become a record.
    assert!(net.host(0).account(&alice.did).unwrap().records.is_empty());
}

async fn a_post_whose_answer_is_lost_is_not_repeated(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let nsid = "com.atproto.repo.createRecord";
    net.host(0).trouble_times(nsid, Trouble::CutAfter, 1);
    let post = json!({ "repo": alice.did, "collection": "app.bsky.feed.post", "record": { "text": "hi" } });
    let answer = net.client_of(&alice).procedure(nsid, &post).await;
    assert_eq!(answer.summary(), "502 UpstreamFailure");
    assert_eq!(net.host(0).asked(nsid), 1);
    // A read on a connection that had rested is asked once more.
    assert_eq!(timeline(&net, &alice).await, "200");
    net.host(0).trouble_times(TIMELINE, Trouble::CutBefore, 1);
    assert_eq!(timeline(&net, &alice).await, "200");
    assert_eq!(net.host(0).asked(TIMELINE), 3);
}
