use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::test_dns::{Reply, TestDns};
use super::super::tls;
use super::*;

const LIMITS: Limits =
    Limits { total: Duration::from_secs(5), idle: Duration::from_secs(1), body_bytes: 64, redirects: 0 };

/// A server on loopback that always gives the same answer, and counts.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (count, seen) = (Arc::clone(&connections), Arc::clone(&heads));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (seen, answer) = (Arc::clone(&seen), answer.clone());
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    let length = stream.read(&mut buffer).await.unwrap_or(0);
                    seen.lock().unwrap().push(String::from_utf8_lossy(&buffer[..length]).into_owned());
                    let _ = stream.write_all(answer.as_bytes()).await;
                    if answer.is_empty() {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { address, connections, heads }
    }

    fn origin(&self) -> Origin {
        format!("http://{}", self.address).parse().unwrap()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn guarded(dns: &TestDns, listed: Vec<Origin>) -> GuardedClient {
    GuardedClient::new(Dns::new(&[dns.address()]).unwrap(), tls::client_config(None).unwrap(), listed)
}

async fn no_dns() -> TestDns {
    TestDns::start(|_, _| Reply::NoSuchName).await
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Redirects every connection to the canary, and records the intended address.
fn recording(guarded: &GuardedClient, canary: &Server) -> Arc<Mutex<Vec<SocketAddr>>> {
    guarded.detour(canary.address)
}

#[tokio::test]
async fn a_name_with_one_bad_address_is_never_dialled() {
    let canary = Server::start(ok("caught")).await;
    for bad in
        ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::1"]
    {
        let dns = TestDns::start(move |_, _| Reply::addresses(&["93.184.216.34", bad])).await;
        let guarded = guarded(&dns, Vec::new());
        let dialled = recording(&guarded, &canary);
        let error = guarded.get("https://evil.example.com/", "*/*", &LIMITS).await.unwrap_err();
        assert!(matches!(error, GuardedError::Refused(Refusal::Address(_))), "{bad}: {error}");
        assert_eq!(*dialled.lock().unwrap(), []);
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_rebinding_name_is_dialled_at_the_checked_address_only() {
    let canary = Server::start(ok("caught")).await;
    // The first lookup (two questions) is harmless; every later one says loopback.
    let dns = TestDns::start(|_, count| {
        Reply::addresses(&[if count <= 2 { "93.184.216.34" } else { "127.0.0.1" }])
    })
    .await;
    let guarded = guarded(&dns, Vec::new());
    let dialled = recording(&guarded, &canary);
    // The canary speaks no TLS, so the call fails after dialling. The test is about the dialled
    // address.
    assert!(guarded.get("https://rebind.example.com/", "*/*", &LIMITS).await.is_err());
    assert_eq!(*dialled.lock().unwrap(), ["93.184.216.34:443".parse().unwrap()], "8");
    assert_eq!(dns.asked(), 2, "one lookup, A and AAAA");
    let error = guarded.get("https://rebind.example.com/", "*/*", &LIMITS).await.unwrap_err();
    assert!(matches!(error, GuardedError::Refused(Refusal::Address("loopback"))), "{error}");
    assert_eq!(dialled.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_loopback_server_gets_no_connection_unless_listed_exactly() {
    let canary = Server::start(ok("caught")).await;
    let dns = no_dns().await;
    let port = canary.address.port();
    let guarded_alone = guarded(&dns, Vec::new());
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("https://canary.example.com:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
    ] {
        assert!(
            matches!(guarded_alone.get(&url, "*/*", &LIMITS).await, Err(GuardedError::Refused(_))),
            "{url}"
        );
    }
    assert_eq!(canary.connections(), 0);
    let listing = guarded(&dns, vec![canary.origin()]);
    let answer = listing.get(&format!("{}/x?y=z", canary.origin()), "text/plain", &LIMITS).await.unwrap();
    assert_eq!(&*answer.body, b"caught");
    let head = canary.heads.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.starts_with("get /x?y=z http/1.1\r\n"), "{head}");
    for line in
        [&format!("host: 127.0.0.1:{port}\r\n"), "accept: text/plain\r\n", "accept-encoding: identity\r\n"]
    {
        assert!(head.contains(line), "{line} in {head}");
    }
}

#[tokio::test]
async fn redirects_are_followed_only_where_allowed_and_each_hop_is_checked() {
    let end = Server::start(ok("end")).await;
    let canary = Server::start(ok("caught")).await;
    let see = |url: String| format!("HTTP/1.1 302 Found\r\nlocation: {url}\r\ncontent-length: 0\r\n\r\n");
    let good = Server::start(see(format!("{}/there", end.origin()))).await;
    let bad = Server::start(see(format!("{}/there", canary.origin()))).await;
    let endless = Server::start(see("/again".to_owned())).await;
    let listed = vec![end.origin(), good.origin(), bad.origin(), endless.origin()];
    let guarded = guarded(&no_dns().await, listed);
    let following = Limits { redirects: 3, ..LIMITS };
    let get = |server: &Server, limits: Limits| {
        let (guarded, url) = (guarded.clone(), server.origin().to_string());
        async move { guarded.get(&url, "*/*", &limits).await }
    };
    assert_eq!(&*get(&good, following).await.unwrap().body, b"end");
    assert!(matches!(get(&good, LIMITS).await, Err(GuardedError::Redirects)));
    assert!(matches!(get(&bad, following).await, Err(GuardedError::Refused(Refusal::NotHttps))));
    assert_eq!(canary.connections(), 0);
    assert!(matches!(get(&endless, following).await, Err(GuardedError::Redirects)));
    assert_eq!(endless.connections(), 4);
}

/// A body with a credential must not go where an answer says.
#[tokio::test]
async fn a_post_is_never_redirected() {
    let canary = Server::start(ok("caught")).await;
    let answer = format!("HTTP/1.1 307 Moved\r\nlocation: {}/\r\ncontent-length: 0\r\n\r\n", canary.origin());
    let first = Server::start(answer).await;
    let guarded = guarded(&no_dns().await, vec![first.origin(), canary.origin()]);
    let request = Request::post(first.origin().to_string()).body(Bytes::from("secret=1")).unwrap();
    let sent = guarded.send(request, &Limits { redirects: 3, ..LIMITS }).await;
    assert!(matches!(sent, Err(GuardedError::Redirects)), "{sent:?}");
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn size_time_and_encoding_have_limits() {
    let long = Server::start(ok(&"x".repeat(65))).await;
    let endless = Server::start(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(100))).await;
    let bomb = Server::start("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx").await;
    let heady = Server::start(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(400_000))).await;
    let cut = Server::start("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
    let silent = Server::start("").await;
    let servers = [&long, &endless, &bomb, &heady, &cut, &silent];
    let guarded = guarded(&no_dns().await, servers.iter().map(|server| server.origin()).collect());
    let limits = Limits { total: Duration::from_millis(500), ..LIMITS };
    let mut seen = Vec::new();
    for server in servers {
        let answer = guarded.get(&server.origin().to_string(), "*/*", &limits).await;
        seen.push(answer.map(|answer| answer.body).expect_err("every one of them is out of bounds"));
    }
    assert!(matches!(seen[0], GuardedError::TooLarge(64)), "{:?}", seen[0]);
    assert!(matches!(seen[1], GuardedError::TooLarge(64)), "{:?}", seen[1]);
    assert!(matches!(seen[2], GuardedError::Compressed), "{:?}", seen[2]);
    assert!(matches!(seen[3], GuardedError::Broken(_)), "{:?}", seen[3]);
    assert!(matches!(seen[4], GuardedError::Broken(_)), "{:?}", seen[4]);
    assert!(matches!(seen[5], GuardedError::Slow), "{:?}", seen[5]);
}

#[tokio::test]
async fn certificates_are_checked_and_an_extra_authority_counts() {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["tls.example.com".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(ok("sealed").as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    let file = std::env::temp_dir().join(format!("genkan-{}.pem", crate::base::random::id()));
    std::fs::write(&file, issuer.pem()).unwrap();
    let dns = TestDns::start(|_, _| Reply::addresses(&["127.0.0.1"])).await;
    let names: Vec<Origin> = ["tls", "other"]
        .iter()
        .map(|name| format!("https://{name}.example.com:{port}").parse().unwrap())
        .collect();
    let with = |extra: Option<&std::path::Path>| {
        GuardedClient::new(
            Dns::new(&[dns.address()]).unwrap(),
            tls::client_config(extra).unwrap(),
            names.clone(),
        )
    };
    let (trusting, wary) = (with(Some(&file)), with(None));
    std::fs::remove_file(&file).unwrap();
    let url = names[0].to_string();
    assert_eq!(&*trusting.get(&url, "*/*", &LIMITS).await.unwrap().body, b"sealed");
    assert!(matches!(wary.get(&url, "*/*", &LIMITS).await, Err(GuardedError::Unreachable(_))));
    let misnamed = trusting.get(&names[1].to_string(), "*/*", &LIMITS).await;
    assert!(matches!(misnamed, Err(GuardedError::Unreachable(_))), "a certificate for another name");
}

/// A call that never began says nothing about its server, and a call that was not sent used nothing
/// up.
#[tokio::test]
async fn what_was_not_sent_is_told_from_what_has_no_answer() {
    let (silent, other) = (Server::start("").await, Server::start(ok("here")).await);
    let closed: Origin = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()
    };
    let dns = TestDns::start(|name, _| match name {
        "broken.example.com." => Reply::ServerFailure,
        _ => Reply::NoSuchName,
    })
    .await;
    let guarded = guarded(&dns, vec![silent.origin(), other.origin(), closed.clone()]);
    let post = |url: String, total: u64| {
        let guarded = guarded.in_pool(Pool::Refreshes);
        async move {
            let request = Request::post(url).body(Bytes::from("token=1")).unwrap();
            guarded.send(request, &Limits { total: Duration::from_millis(total), ..LIMITS }).await
        }
    };
    let refused = post(closed.to_string(), 5_000).await.unwrap_err();
    assert!(matches!(refused, GuardedError::Unreachable(_)) && refused.is_unsent(), "{refused}");
    let broken = post("https://broken.example.com/".to_owned(), 5_000).await.unwrap_err();
    assert!(matches!(broken, GuardedError::LookupFailed(_)) && broken.is_own_trouble(), "{broken}");
    let unanswered = post(silent.origin().to_string(), 300).await.unwrap_err();
    assert!(matches!(unanswered, GuardedError::Slow) && !unanswered.is_unsent(), "{unanswered}");

    // All calls that this server may have at a time are under way.
    let mut tarpit = tokio::task::JoinSet::new();
    for _ in 0..32 {
        tarpit.spawn(post(silent.origin().to_string(), 60_000));
    }
    while silent.connections() < 33 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let waited = post(silent.origin().to_string(), 300).await.unwrap_err();
    assert!(matches!(waited, GuardedError::Busy) && waited.is_own_trouble(), "{waited}");
    assert_eq!(silent.connections(), 33, "it was not sent");
    assert_eq!(&*post(other.origin().to_string(), 5_000).await.unwrap().body, b"here");
}

#[tokio::test]
async fn a_name_is_reached_though_its_first_address_swallows_packets() {
    let good = Server::start(ok("here")).await;
    let dns = TestDns::start(|_, _| Reply::addresses(&["93.184.216.34", "93.184.216.35"])).await;
    let guarded = guarded(&dns, vec![good.origin()]);
    let dialled = guarded.detour_with_hole(good.address, "93.184.216.34".parse().unwrap());
    // The server speaks no TLS. It is reached, which is the point.
    assert!(guarded.get("https://two.example.com/", "*/*", &LIMITS).await.is_err());
    let addresses: Vec<String> =
        dialled.lock().unwrap().iter().map(|address| address.ip().to_string()).collect();
    assert_eq!(addresses, ["93.184.216.34", "93.184.216.35"]);
    assert_eq!(good.connections(), 1);
}
