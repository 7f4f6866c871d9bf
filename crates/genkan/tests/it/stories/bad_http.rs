//! What is not HTTP as it should be: refused by status, and the connection closed.

use std::time::{Duration, Instant};

use genkan_testing::Plan;

use crate::store::on_each_database;

on_each_database!(
    heads_are_checked,
    a_half_head_is_not_waited_for_long,
    idle_and_slow_clients_do_not_stop_others
);

async fn heads_are_checked(plan: Plan) {
    let net = plan.await;
    let get = "GET /xrpc/_health HTTP/1.1\r\nHost: localhost\r\n";
    let post = "POST /xrpc/com.atproto.server.createSession HTTP/1.1\r\nHost: localhost\r\n";
    let fields = "X: y\r\n".repeat(120);
    let cases = [
        ("no Host", "GET /xrpc/_health HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("two Hosts", format!("{get}Host: other\r\n\r\n"), "400"),
        ("a bad Host", "GET /xrpc/_health HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), "400"),
        ("a Host with a path", "GET /xrpc/_health HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(), "400"),
        (
            "both lengths",
            format!("{post}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "400",
        ),
        ("two lengths", format!("{post}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"), "400"),
        ("a signed length", format!("{post}Content-Length: +2\r\n\r\n{{}}"), "400"),
        ("gzip, chunked", format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), "400"),
        ("chunked twice", format!("{post}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), "400"),
        (
            "two encodings",
            format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "400",
        ),
        ("identity", format!("{post}Transfer-Encoding: identity\r\n\r\n"), "400"),
        ("a NUL in a field", format!("{get}X: a\0b\r\n\r\n"), "400"),
        ("a CR in a field", format!("{get}X: a\rb\r\n\r\n"), "400"),
        ("folding", format!("{get}X: a\r\n b\r\n\r\n"), "400"),
        ("a space before the colon", format!("{get}X : a\r\n\r\n"), "400"),
        ("too many fields", format!("{get}{fields}\r\n"), "431"),
        ("a head too large", format!("{get}X: {}\r\n\r\n", "y".repeat(40_000)), "431"),
        (
            "a target too long",
            format!("GET /xrpc/_health?{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(17_000)),
            "414",
        ),
        ("TRACE", "TRACE /xrpc/_health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "405"),
        ("CONNECT", "CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n".to_owned(), "405"),
        ("lower case", "get /xrpc/_health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "405"),
        ("not HTTP", "GET\r\n\r\n".to_owned(), "400"),
    ];
    let mut wrong = Vec::new();
    for (case, bytes, status) in cases {
        // A second request behind it must never be answered.
        let smuggled = format!("{bytes}GET /xrpc/_health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = net.visitor().raw(smuggled.as_bytes()).await;
        let answers = answer.matches("HTTP/1.1 ").count();
        if !answer.starts_with(&format!("HTTP/1.1 {status}")) || answers != 1 {
            wrong.push(format!(
                "{case}: {answers} answers, not {status}: {:?}",
                answer.get(..60).unwrap_or(&answer)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(net.visitor().get("/xrpc/_health").await.status, 200);

    // `Expect` is answered by the final status when the request is refused.
    let expecting = format!(
        "{post}Content-Type: application/json\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n"
    );
    let answer = net.visitor().raw(expecting.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

async fn a_half_head_is_not_waited_for_long(plan: Plan) {
    let net = plan.set("GENKAN_HEAD_TIMEOUT", "1s").await;
    let start = Instant::now();
    let answer = net.visitor().raw(b"GET /xrpc/_health HTTP/1.1\r\nHost: loc").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(start.elapsed() < Duration::from_millis(1900), "{:?}", start.elapsed());
}

async fn idle_and_slow_clients_do_not_stop_others(plan: Plan) {
    use tokio::io::AsyncWriteExt as _;
    let net = plan.set("GENKAN_CONNECTIONS_PER_ADDRESS", "2000").await;
    let mut idle = Vec::new();
    for index in 0..300 {
        let mut stream = tokio::net::TcpStream::connect(net.visitor().authority()).await.unwrap();
        if index % 3 == 0 {
            stream.write_all(b"GET /xrpc/_hea").await.unwrap();
        }
        idle.push(stream);
    }
    let start = Instant::now();
    net.visitor().get("/xrpc/_health").await.ok();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}
