//! Reads of accounts at external PDSes, through the real program. `C…` are lines of the checklist
//! in `docs/contract.md`.

use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::plc;
use genkan_protocol::syntax::Did;
use genkan_testing::{FakePds, Plan, TestNetwork};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::store::on_each_database;

on_each_database!(
    an_external_account_is_read_at_its_own_pds_and_through_no_proxy,
    an_account_that_has_moved_is_found_again,
    a_gigabyte_is_downloaded_in_little_memory,
    missing_and_forbidden_pds_addresses_are_told_apart,
);

/// C2, C16
async fn an_external_account_is_read_at_its_own_pds_and_through_no_proxy(plan: Plan) {
    let (pds, proxy) = (FakePds::start().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let proxy_url = format!("http://{}", proxy.local_addr().unwrap());
    let mut plan = plan.listing(&pds.url());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        plan = plan.set(name, &proxy_url);
    }
    let net = plan.await;
    let zoe = pds.make_account(net.directory(), "zoe.external.com");
    let alice = net.sign_up("alice").await;
    for reader in [net.visitor(), net.client_of(&alice), net.visitor().bearer("not.a.token")] {
        let read = [("repo", zoe.as_str()), ("collection", "a.b.c"), ("rkey", "x"), ("x", "1"), ("x", "2")];
        let answer = reader.with("cookie", "a=b").query("com.atproto.repo.getRecord", &read).await.ok();
        let seen = answer.json();
        assert_eq!(seen["pds"], pds.url());
        assert_eq!(seen["query"].as_str().unwrap().matches("x=").count(), 2);
        for gone in ["authorization", "dpop", "cookie", "x-forwarded-for"] {
            assert!(seen["headers"].get(gone).is_none(), "{gone}");
        }
    }
    let wait = tokio::time::timeout(std::time::Duration::from_millis(50), proxy.accept());
    assert!(wait.await.is_err(), "a proxy of the environment was asked");
    let metrics = net.metrics().await;
    assert!(
        metrics.contains("genkan_upstream_calls_total{class=\"read\",outcome=\"at_once\"} 3"),
        "{metrics}"
    );
}

async fn an_account_that_has_moved_is_found_again(plan: Plan) {
    let (old, new) = (FakePds::start().await, FakePds::start().await);
    let net = plan.listing(&old.url()).listing(&new.url()).await;
    let zoe = old.make_account(net.directory(), "zoe.external.com");
    let read =
        async || net.visitor().query("com.atproto.sync.getLatestCommit", &[("did", zoe.as_str())]).await;
    assert_eq!(read().await.ok().json()["pds"], old.url());
    new.take_over(net.directory(), &zoe);
    assert_eq!(read().await.ok().json()["pds"], old.url(), "remembered, and it still answers");
    old.drop_account(&zoe);
    assert_eq!(read().await.ok().json()["pds"], new.url(), "asked anew");
    assert_eq!(read().await.ok().json()["pds"], new.url());
    new.drop_account(&zoe);
    let nowhere = read().await;
    assert_eq!((nowhere.summary().as_str(), nowhere.header("x-genkan-error")), ("400 RepoNotFound", ""));
}

/// Says that an account lives at this URL.
fn enter(net: &TestNetwork, number: u8, endpoint: &str) -> Did {
    let key = K256PrivateKey::from_bytes(&[number; 32]).unwrap();
    let handle = format!("number-{number}.external.com").parse().unwrap();
    let data = plc::Data::of_account(vec![key.public().to_did_key()], &key.public(), &handle, endpoint);
    let (did, genesis) = plc::genesis(data, &key);
    net.directory().submit(&did, &genesis).unwrap();
    did
}

/// C5
async fn a_gigabyte_is_downloaded_in_little_memory(plan: Plan) {
    const SIZE: u64 = 1 << 30;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let serve = async move |size: u64, stream: &mut TcpStream| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.ipld.car\r\ncontent-length: {size}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![b'x'; 256 << 10];
        for _ in 0..size / piece.len() as u64 {
            stream.write_all(&piece).await.unwrap();
        }
    };
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let is_small = String::from_utf8_lossy(&head).contains("small");
            serve(if is_small { 256 << 10 } else { SIZE }, &mut stream).await;
        }
    });
    let net = plan.listing(&origin).await;
    let zoe = enter(&net, 7, &origin);
    let read = async |more: &str| {
        let mut stream = TcpStream::connect(net.visitor().authority()).await.unwrap();
        let ask = format!(
            "GET /xrpc/com.atproto.sync.getRepo?did={zoe}{more} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(ask.as_bytes()).await.unwrap();
        let (mut total, mut piece) = (0_u64, vec![0; 1 << 20]);
        let mut head = String::new();
        loop {
            let count = stream.read(&mut piece).await.unwrap();
            if count == 0 {
                return (total, head);
            }
            if total == 0 {
                head = String::from_utf8_lossy(&piece[..count.min(2000)]).into_owned();
            }
            total += count as u64;
        }
    };
    read("&small").await;
    let before = net.genkan().resident_bytes();
    let (total, head) = read("").await;
    assert!(total > SIZE && total < SIZE + 4096, "{total}: {head}");
    assert!(head.contains(&format!("content-length: {SIZE}\r\n")), "{head}");
    let grown = net.genkan().resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "resident memory grew by {grown} bytes");
}

async fn missing_and_forbidden_pds_addresses_are_told_apart(plan: Plan) {
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = canary.local_addr().unwrap().port();
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let hosts = net.host(0).url();
    for (number, endpoint, expected) in [
        (1, format!("https://127.0.0.1:{port}"), "502 PdsNotAllowed"),
        (2, format!("https://localhost:{port}"), "502 PdsNotAllowed"),
        (3, format!("http://127.0.0.1:{port}"), "502 PdsNotFound"),
        (4, "https://pds.example.com/with/a/path".to_owned(), "502 PdsNotFound"),
        (5, "https://pds.internal".to_owned(), "502 PdsNotAllowed"),
        (6, hosts, "400 RepoNotFound"),
    ] {
        let did = enter(&net, number, &endpoint);
        let answer = net.visitor().query("com.atproto.sync.getRepo", &[("did", did.as_str())]).await;
        assert_eq!(answer.summary(), expected, "{endpoint}");
        assert_eq!(answer.header("x-genkan-error"), "gateway");
    }
    let wait = tokio::time::timeout(std::time::Duration::from_millis(50), canary.accept());
    assert!(wait.await.is_err(), "a private address was dialled");
    let own = net.visitor().query("com.atproto.sync.getLatestCommit", &[("did", alice.did.as_str())]).await;
    own.ok();
}
