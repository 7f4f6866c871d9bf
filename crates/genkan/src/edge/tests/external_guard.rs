//! No connection for any name that leads where we do not go, and none by a redirect (T10, T11,
//! checklist line 16).

use std::time::Duration;

use super::external_reads::ZOE;
use super::network::{ExternalSetup, Network, summary};
use super::raw_host::{HostConnection, RawHost, answers, answers_ok};
use crate::base::fetch::test_dns::{Reply, TestDns};
use crate::base::monotonic_now;
use crate::identity::PdsLocation;

const READ: &str = "GET /xrpc/com.atproto.sync.getBlob?did=did:plc:zzzzzzzzzzzzzzzzzzzzzzzz&cid=x";

#[tokio::test]
async fn c16_origins_that_are_not_public_are_refused_alike_and_never_dialled() {
    let canary = RawHost::start(answers_ok).await;
    let port = canary.origin.rsplit(':').next().unwrap().to_owned();
    let dns = TestDns::start(|name, _| match name {
        "loopback.example.com." => Reply::addresses(&["127.0.0.1"]),
        "mixed.example.com." => Reply::addresses(&["93.184.216.34", "10.0.0.1"]),
        "metadata.example.com." => Reply::addresses(&["169.254.169.254"]),
        "six.example.com." => Reply::addresses(&["fd00::1"]),
        "mapped.example.com." => Reply::addresses(&["::ffff:127.0.0.1"]),
        "translated.example.com." => Reply::addresses(&["64:ff9b::7f00:1"]),
        _ => Reply::NoSuchName,
    })
    .await;
    let mut setup = ExternalSetup::listing(&[]);
    setup.dns = dns.address();
    let network = Network::with_external(setup, |_| {}).await;
    let mut texts = Vec::new();
    for pds in [
        format!("https://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port}"),
        format!("https://localhost:{port}"),
        "https://localhost".to_owned(),
        "https://[::1]".to_owned(),
        format!("https://pds.example.com:{port}"),
        "https://pds.internal".to_owned(),
        "https://2130706433".to_owned(),
        "https://loopback.example.com".to_owned(),
        "https://mixed.example.com".to_owned(),
        "https://metadata.example.com".to_owned(),
        "https://six.example.com".to_owned(),
        "https://mapped.example.com".to_owned(),
        "https://translated.example.com".to_owned(),
    ] {
        network.lives(ZOE, ZOE, &pds);
        for _ in 0..2 {
            let began = monotonic_now();
            let answer = network.ask(READ, "").await;
            let took = began.elapsed();
            assert_eq!(summary(&answer), "502 PdsNotAllowed", "{pds}");
            assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(20), "{pds}: {took:?}");
            texts.push(answer.split_once("\r\n\r\n").unwrap().1.to_owned());
        }
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "one text for all reasons: {texts:?}");
    network.lives(ZOE, ZOE, "https://nobody.example.com");
    assert_eq!(summary(&network.ask(READ, "").await), "502 UpstreamFailure");
    assert_eq!(canary.connections(), 0);
}

fn sends_to(
    location: String,
) -> impl Fn(HostConnection) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    move |mut connection| {
        let location = location.clone();
        Box::pin(async move {
            while connection.request().await.is_some() {
                let head = format!(
                    "HTTP/1.1 302 Found\r\nlocation: {location}\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n"
                );
                connection.say(head).await;
            }
        })
    }
}

#[tokio::test]
async fn c16_a_redirect_is_followed_a_few_hops_to_where_we_may_go_and_no_further() {
    let canary = RawHost::start(answers_ok).await;
    let storage = RawHost::start(answers_ok).await;
    let port = canary.origin.rsplit(':').next().unwrap().to_owned();
    let good = RawHost::start(sends_to(format!("{}/bucket/a%2Fb?sig=x#y", storage.origin))).await;
    let endless = RawHost::start(sends_to("/again".to_owned())).await;
    let network = Network::with_external(ExternalSetup::listing(&[&good, &storage, &endless]), |_| {}).await;
    network.lives(ZOE, ZOE, &good.origin);
    let answer = network.ask(READ, "authorization: Bearer alice\r\nrange: bytes=0-1\r\n").await;
    assert!(
        answer.ends_with("{\"ok\":true}") && !answer.contains("location") && !answer.contains("cookie"),
        "{answer}"
    );
    let [heard] = storage.heard().try_into().unwrap();
    assert!(heard.starts_with("GET /bucket/a%2Fb?sig=x HTTP/1.1\r\n"), "{heard}");
    assert!(heard.contains("range: bytes=0-1\r\n") && !heard.contains("authorization"), "{heard}");
    assert!(network.ask(&READ.replace("GET", "HEAD"), "").await.starts_with("HTTP/1.1 200 "));
    assert!(storage.heard()[1].starts_with("HEAD /bucket/"));
    network.lives(ZOE, ZOE, &endless.origin);
    assert_eq!(summary(&network.ask(READ, "").await), "502 UpstreamFailure");
    assert_eq!(endless.heard().len(), 4, "the first and three hops");
    for location in [
        canary.origin.clone(),
        format!("https://127.0.0.1:{port}/x"),
        format!("http://localhost:{port}/x"),
        format!("//127.0.0.1:{port}/x"),
        format!("https://user@127.0.0.1:{port}/x"),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://genkan.example.com/xrpc/x".to_owned(),
        network.one.origin.clone(),
        "file:///etc/passwd".to_owned(),
        "relative".to_owned(),
        String::new(),
    ] {
        let bad = RawHost::start(sends_to(location.clone())).await;
        let network = Network::with_external(ExternalSetup::listing(&[&bad]), |_| {}).await;
        network.lives(ZOE, ZOE, &bad.origin);
        assert_eq!(summary(&network.ask(READ, "").await), "502 UpstreamFailure", "{location}");
        assert_eq!(bad.heard().len(), 1);
        assert_eq!(network.one.connections(), 0);
    }
    assert_eq!(canary.connections(), 0);
}

/// The operator lists private origins, and the fleet's may be among them. The list alone would let
/// an external PDS direct reads at them.
#[tokio::test]
async fn a_redirect_leads_neither_to_a_host_of_the_fleet_nor_to_genkan() {
    let (one, genkan) = (RawHost::start(answers_ok).await, RawHost::start(answers_ok).await);
    let dns = TestDns::start(|_, _| Reply::addresses(&["127.0.0.1"])).await;
    let genkans = format!("http://genkan.example.com:{}", genkan.port);
    let to_host = RawHost::start(sends_to(format!("{}/xrpc/com.example.get", one.origin))).await;
    let to_genkan = RawHost::start(sends_to(format!("{genkans}/xrpc/com.example.get"))).await;
    let mut setup = ExternalSetup::listing(&[&to_host, &to_genkan, &one]);
    setup.listed.push(genkans.parse().unwrap());
    setup.dns = dns.address();
    let network = Network::with_external_and(one, setup, |_| {}).await;
    for pds in [&to_host, &to_genkan] {
        network.lives(ZOE, ZOE, &pds.origin);
        assert_eq!(summary(&network.ask(READ, "").await), "502 UpstreamFailure");
        assert_eq!(pds.heard().len(), 1);
    }
    assert_eq!((network.one.connections(), genkan.connections()), (0, 0));
}

#[tokio::test]
async fn a_document_that_leads_to_a_host_of_the_fleet_is_not_followed_after_a_refusal() {
    let gone = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 24\r\n\r\n{\"error\":\"RepoNotFound\"}";
    let (one, pds) = (RawHost::start(answers_ok).await, RawHost::start(answers(gone)).await);
    let setup = ExternalSetup::listing(&[&pds, &one]);
    let network = Network::with_external_and(one, setup, |_| {}).await;
    network.lives(ZOE, ZOE, &pds.origin);
    // Zoe has no account on this host, whatever her document says now.
    let claimed = PdsLocation { did: ZOE.parse().unwrap(), pds: network.one.origin.parse().unwrap() };
    network.external().moved.insert(ZOE.to_owned(), claimed);
    assert_eq!(summary(&network.ask(READ, "").await), "400 RepoNotFound");
    assert_eq!((network.external().asked_again, network.one.connections()), (1, 0));
}
