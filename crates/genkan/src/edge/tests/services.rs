//! Services that a host is sent to by its user's call.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::network::{ALICES, ASK, ExternalSetup, Network, summary};
use super::raw_host::{HostConnection, answers_ok};
use crate::base::fetch::test_dns::{Reply, TestDns};

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

/// A host's resolver finds what Genkan's finds, and with a search list more than that.
#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_refused() {
    let dns = TestDns::start(|name, _| match name {
        "view.example.com." => Reply::addresses(&["1.1.1.1"]),
        "127.0.0.1.nip.example.com." => Reply::addresses(&["127.0.0.1"]),
        _ => Reply::NoSuchName,
    })
    .await;
    let setup = ExternalSetup { dns: dns.address(), ..ExternalSetup::listing(&[]) };
    let network = Network::with_external(setup, |_| {}).await;
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
