//! Hosts behind TLS.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::{ClientConfig, ServerConfig};

use super::network::{ALICES, ASK, Network, request};
use super::raw_host::{HostConnection, RawHost, answers_ok};
use crate::base::fetch::tls::client_config;

/// An authority of our own, as an operator's file names it, and what a host called `localhost` got
/// from it.
fn authority() -> (Arc<ClientConfig>, ServerConfig) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), issuer.pem()).unwrap();
    let client = client_config(Some(file.path())).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let ring = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    (client, server)
}

/// Answers each upload with its length.
async fn counts(mut connection: HostConnection) {
    while let Some(heard) = connection.request().await {
        let length = heard.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len()).to_string();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n";
        connection.say(format!("{head}content-length: {}\r\n\r\n{length}", length.len())).await;
    }
}

#[tokio::test]
async fn a_host_behind_tls_is_asked_over_one_connection() {
    let (client, server) = authority();
    let one = RawHost::start(counts).await.behind_tls(server).await;
    let two = RawHost::start(answers_ok).await;
    let network = Network::before(&[], |_| {}, client, one, two);
    for _ in 0..3 {
        let answer = network.ask(ASK, ALICES).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n0"), "{answer}");
    }
    assert_eq!(network.one.connections(), 1);
    let body = vec![b'x'; 1 << 20];
    let upload = request(
        "POST /xrpc/com.atproto.repo.uploadBlob",
        &format!("{ALICES}content-length: {}\r\n", body.len()),
    );
    let answer = network.raw([upload.as_bytes(), &body].concat()).await;
    assert!(answer.ends_with("\r\n\r\n1048576"), "records are flushed: {answer}");
}

#[tokio::test]
async fn a_host_without_a_trusted_certificate_is_not_called() {
    let (_, server) = authority();
    let one = RawHost::start(answers_ok).await.behind_tls(server).await;
    let two = RawHost::start(answers_ok).await;
    let network = Network::before(&[], |_| {}, client_config(None).unwrap(), one, two);
    let answer = network.ask(ASK, ALICES).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("UpstreamFailure"), "{answer}");
    assert_eq!(network.one.connections(), 0, "not a byte of the request has left");
}
