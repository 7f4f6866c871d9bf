//! Services that a host is sent to by its user's call.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::linked::ZOES;
use super::network::{ALICES, ALONE, ASK, ExternalSetup, Network, retry_after, summary};
use super::raw_host::{HostConnection, RawHost, answers_ok};
use crate::base::fetch::test_dns::{Reply, TestDns};
use crate::base::monotonic_now;

const JSON: &str = "content-type: application/json\r\n";
const METHODS: [&str; 2] = ["registerPush", "unregisterPush"];

fn post(method: &str, fields: &str, body: &str) -> String {
    format!(
        "POST /xrpc/app.bsky.notification.{method} HTTP/1.1\r\nhost: genkan.example\r\nconnection: close\r\n\
         {fields}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn input(service: &str) -> String {
    format!(r#"{{"serviceDid":"{service}","token":"t","platform":"ios","appId":"xyz.blueskyweb.app"}}"#)
}

/// A host calls the service that the input of these methods names, at the endpoint of the DID.
#[tokio::test]
async fn a_host_calls_no_private_service_that_an_input_names() {
    let network = Network::start().await;
    let fields = format!("{ALICES}{JSON}");
    for method in METHODS {
        for service in [
            "did:web:localhost",
            "did:web:localhost%3A2583",
            "did:web:10.0.0.1",
            "did:web:a.internal",
            "did:web:api.example.com%3A8443",
            "did:web:view.example.com#bsky_notif",
            "did:plc:short",
            "did:key:zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF",
            "",
        ] {
            let answer = network.raw(post(method, &fields, &input(service))).await;
            assert_eq!(summary(&answer), "400 InvalidRequest", "{method} {service}: {answer}");
        }
        let twice = r#"{"serviceDid":"did:web:view.example.com","serviceDid":"did:web:localhost"}"#;
        let utf7 = format!("{ALICES}content-type: application/json; charset=utf-7\r\n");
        let packed = format!("{fields}content-encoding: gzip\r\n");
        for (fields, body) in [
            (&fields, twice.to_owned()),
            (&fields, "[]".to_owned()),
            (&fields, "{".to_owned()),
            (&utf7, input("did:web:view.example.com")),
            (&packed, input("did:web:view.example.com")),
            (&format!("{fields}atproto-proxy: did:web:localhost#x\r\n"), input("did:web:view.example.com")),
        ] {
            let answer = network.raw(post(method, fields, &body)).await;
            assert_eq!(summary(&answer), "400 InvalidRequest", "{method} {body}: {answer}");
        }
        let large = format!(r#"{{"token":"{}"}}"#, "t".repeat(64 << 10));
        assert_eq!(summary(&network.raw(post(method, &fields, &large)).await), "413 PayloadTooLarge");
    }
    assert!(network.one.heard().is_empty(), "no host was asked");
}

#[tokio::test]
async fn a_public_service_is_told_byte_for_byte() {
    let network = Network::start().await;
    let fields = format!("{ALICES}{JSON}");
    for method in METHODS {
        for service in ["did:web:view.example.com", "did:plc:ar7c4by46qjdydhdevvrndac"] {
            let body = format!("  {} ", input(service));
            let answer = network.raw(post(method, &fields, &body)).await;
            assert_eq!(summary(&answer), "200 -", "{answer}");
            let heard = network.one.heard().pop().unwrap();
            assert!(heard.contains(&format!("content-length: {}\r\n", body.len())), "{heard}");
            assert!(heard.ends_with(&body), "{heard}");
        }
    }
    // Without an input it is for the host to refuse.
    assert_eq!(summary(&network.raw(post("registerPush", ALICES, "")).await), "200 -");
}

#[tokio::test]
async fn an_input_in_pieces_goes_on_whole() {
    let (sender, mut heard) = mpsc::unbounded_channel();
    let reads_all = move |mut connection: HostConnection| {
        let sender = sender.clone();
        async move {
            let mut all = Vec::new();
            while !all.ends_with(b"\r\n0\r\n\r\n") {
                let Ok(byte) = connection.stream.read_u8().await else { return };
                all.push(byte);
            }
            sender.send(String::from_utf8(all).unwrap()).unwrap();
            connection.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
        }
    };
    let network = Network::with(|_| {}, reads_all, answers_ok).await;
    let body = input("did:web:view.example.com");
    let (first, second) = body.split_at(20);
    let chunks = format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    let line = "POST /xrpc/app.bsky.notification.registerPush HTTP/1.1\r\nhost: genkan.example\r\n\
        connection: close\r\ntransfer-encoding: chunked\r\n";
    let answer = network.raw(format!("{line}{ALICES}{JSON}\r\n{chunks}")).await;
    assert_eq!(summary(&answer), "200 -", "{answer}");
    let heard = heard.recv().await.unwrap();
    assert!(heard.contains(&body), "{heard}");
}

#[tokio::test]
async fn an_input_that_was_read_is_sent_again_with_another_nonce() {
    const OTHER_NONCE: &str = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: DPoP error=\"use_dpop_nonce\"\r\n\
        dpop-nonce: theirs\r\ncontent-length: 2\r\n\r\n{}";
    let wants_nonce = |mut connection: HostConnection| async move {
        while let Some(request) = connection.request().await {
            let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            connection.say(if request.contains("!theirs\r\n") { ok } else { OTHER_NONCE }).await;
        }
    };
    let network = Network::with(|_| {}, wants_nonce, answers_ok).await;
    let body = input("did:web:view.example.com");
    let fields = format!("authorization: DPoP alice\r\ndpop: good\r\n{JSON}");
    let answer = network.raw(post("registerPush", &fields, &body)).await;
    assert_eq!(summary(&answer), "200 -", "{answer}");
    let again = network.one.heard().into_iter().find(|heard| heard.contains("!theirs\r\n")).unwrap();
    assert!(again.ends_with(&body), "{again}");
}

#[tokio::test]
async fn an_input_that_does_not_come_is_waited_for_no_longer_than_the_limit() {
    let adjust = |settings: &mut crate::edge::Settings| settings.forward.idle = Duration::from_millis(50);
    let network = Network::with(adjust, answers_ok, answers_ok).await;
    let request = format!(
        "POST /xrpc/app.bsky.notification.registerPush HTTP/1.1\r\nhost: genkan.example\r\n\
         {ALICES}{JSON}content-length: 100\r\n\r\n{{\"serviceDid\":"
    );
    let mut client = network.connect().await;
    client.send(request).await;
    assert_eq!(summary(&client.answer().await), "408 InvalidRequest");
    assert!(network.one.heard().is_empty());
}

/// Rules by which a service has a name that this server knows.
fn asking(dns: &TestDns, listed: &[&RawHost]) -> ExternalSetup {
    let mut setup = ExternalSetup { dns: dns.address(), ..ExternalSetup::listing(listed) };
    setup.policy.services.must_exist = true;
    setup
}

/// A host's resolver finds what Genkan's finds, and with a search list more than that.
#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_refused() {
    let dns = TestDns::start(|name, _| match name {
        "view.example.com." => Reply::addresses(&["1.1.1.1"]),
        "127.0.0.1.nip.example.com." => Reply::addresses(&["127.0.0.1"]),
        _ => Reply::NoSuchName,
    })
    .await;
    let network = Network::with_external(asking(&dns, &[]), |_| {}).await;
    for name in ["127.0.0.1.nip.example.com", "kubernetes.default", "localhost.localdomain"] {
        for line in [ASK, "GET /xrpc/com.atproto.sync.listHosts"] {
            let fields = format!("{ALICES}atproto-proxy: did:web:{name}#x\r\n");
            assert_eq!(summary(&network.ask(line, &fields).await), "400 InvalidRequest", "{name}");
        }
        for method in METHODS {
            let request = post(method, &format!("{ALICES}{JSON}"), &input(&format!("did:web:{name}")));
            assert_eq!(summary(&network.raw(request).await), "400 InvalidRequest", "{name}");
        }
    }
    assert!(network.one.heard().is_empty(), "no host was asked");
    let before = dns.asked();
    for token in ["", "authorization: Bearer expired\r\n"] {
        let fields = format!("{token}atproto-proxy: did:web:other.example.com#x\r\n");
        assert_ne!(summary(&network.ask(ASK, &fields).await), "200 -");
    }
    assert_eq!(dns.asked(), before, "a stranger causes no lookup");
    for _ in 0..3 {
        let fields = format!("{ALICES}atproto-proxy: did:web:view.example.com#x\r\n");
        assert_eq!(summary(&network.ask(ASK, &fields).await), "200 -");
        let request = post("registerPush", &format!("{ALICES}{JSON}"), &input("did:web:view.example.com"));
        assert_eq!(summary(&network.raw(request).await), "200 -");
    }
    assert!(dns.asked() <= before + 2, "once for each family of addresses");
}

#[tokio::test]
async fn a_service_that_dns_does_not_name_is_503_and_reaches_no_host() {
    let dns = TestDns::start(|_, _| Reply::Silence).await;
    let mut setup = asking(&dns, &[]);
    setup.policy.services.lookup_limit = Duration::from_millis(50);
    let network = Network::with_external(setup, |_| {}).await;
    let fields = format!("{ALICES}atproto-proxy: did:web:view.example.com#x\r\n");
    let answer = network.ask(ASK, &fields).await;
    assert_eq!(summary(&answer), "503 NotEnoughResources");
    assert_eq!(retry_after(&answer), 1);
    let request = post("registerPush", &format!("{ALICES}{JSON}"), &input("did:web:view.example.com"));
    assert_eq!(summary(&network.raw(request).await), "503 NotEnoughResources");
    assert!(network.one.heard().is_empty(), "no host was asked");
    assert_eq!(summary(&network.ask(ASK, ALICES).await), "200 -", "a call without a service");
}

/// A host ignores the header for these methods, so a call is neither held up nor refused.
#[tokio::test]
async fn a_name_that_was_not_looked_up_is_dropped_where_a_host_ignores_it() {
    let dns = TestDns::start(|_, _| Reply::addresses(&["1.1.1.1"])).await;
    let network = Network::with_external(asking(&dns, &[]), |_| {}).await;
    let fields = format!("{ALICES}atproto-proxy: did:web:view.example.com#x\r\n");
    let mut reached = Vec::new();
    for line in [ALONE, ASK, ALONE] {
        assert_eq!(summary(&network.ask(line, &fields).await), "200 -");
        reached.push(network.one.heard().pop().unwrap().contains("view.example.com"));
    }
    assert_eq!(reached, [false, true, true]);
    assert!(dns.asked() <= 2, "for one of the calls");
}

#[tokio::test]
async fn a_call_of_a_linked_account_waits_for_no_lookup_of_its_service() {
    let there = RawHost::start(answers_ok).await;
    let dns = TestDns::start(|_, _| Reply::Silence).await;
    let network = Network::with_external(asking(&dns, &[&there]), |_| {}).await;
    network.external().link = Some((there.origin.parse().unwrap(), 1));
    let fields = format!("{ZOES}atproto-proxy: did:web:view.example.com#x\r\n");
    assert_eq!(summary(&network.ask("GET /xrpc/com.atproto.sync.listHosts", &fields).await), "200 -");
    assert!(there.heard().pop().unwrap().contains("view.example.com"));
    assert_eq!(dns.asked(), 0);
}

/// A client could otherwise use up every trial of a host by inputs that it does not send.
#[tokio::test]
async fn an_input_that_does_not_come_keeps_no_breaker_open() {
    let by_line = |mut connection: HostConnection| async move {
        while let Some(request) = connection.request().await {
            if request.contains("listRepos") {
                return;
            }
            connection.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    };
    let quick = |settings: &mut crate::edge::Settings| {
        settings.breaker.failures = 1;
        settings.breaker.pause = Duration::from_secs(2);
    };
    let network = Network::with(quick, by_line, answers_ok).await;
    let fails = async || network.ask(ALONE, ALICES).await;
    assert!(!fails().await.contains("failed repeatedly"));
    let opened_at = monotonic_now();
    // The turn of these calls comes at the same time, and leaves the turn of others to them.
    while fails().await.contains("failed repeatedly") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(opened_at.elapsed() >= Duration::from_secs(1), "the breaker was open");
    let request = format!(
        "POST /xrpc/app.bsky.notification.registerPush HTTP/1.1\r\nhost: genkan.example\r\n\
         {ALICES}{JSON}expect: 100-continue\r\ncontent-length: 100\r\n\r\n"
    );
    let mut client = network.connect().await;
    client.send(request).await;
    let mut wanted = [0; 12];
    client.stream.read_exact(&mut wanted).await.unwrap();
    assert_eq!(&wanted, b"HTTP/1.1 100", "the input is waited for");
    let answer = network.ask(ASK, ALICES).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
