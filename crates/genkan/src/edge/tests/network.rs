//! The harness: an edge before two hosts, and a client that writes its requests by hand.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::fake_rooms::{Fixed, World};
use crate::base::fetch::{Dns, Names};
use crate::base::{Clock, Origin, monotonic_now};
use crate::config::{Rate, TargetReads};
use crate::edge::{Edge, EdgeContext, Settings};
use crate::forward::{self, CallBudgetRules, ExternalPdses, ExternalPolicy, ReadLimits};
use crate::identity::PdsLocation;
use crate::telemetry::metrics::Metrics;
use crate::wire::{ClientAddr, TrustedPeers};

/// An edge before two hosts.
pub(super) struct Network {
    pub(super) edge: Edge,
    pub(super) one: FakeHost,
    pub(super) two: FakeHost,
    heard: Arc<Mutex<String>>,
    world: Arc<Mutex<World>>,
}

/// What is not ours, and how we behave there.
pub(super) struct Beside {
    pub(super) listed: Vec<Origin>,
    pub(super) dns: SocketAddr,
    pub(super) policy: ExternalPolicy,
}

impl Beside {
    /// Only these may be called although they are on loopback. No name is known.
    pub(super) fn listing(hosts: &[&FakeHost]) -> Self {
        Self {
            listed: hosts.iter().map(|host| host.origin.parse().unwrap()).collect(),
            dns: "127.0.0.1:9".parse().unwrap(),
            policy: policy(),
        }
    }
}

/// As the defaults are.
fn policy() -> ExternalPolicy {
    let a_lot = Rate { count: 1_000_000, per: Duration::from_mins(5) };
    ExternalPolicy {
        target_reads: TargetReads::Public,
        blocked_hosts: Vec::new(),
        blocked_dids: Vec::new(),
        reads: ReadLimits { rate: Some(a_lot), streams: 16, streams_in_all: 64, bytes: 1 << 40 },
        fair: CallBudgetRules {
            calls: a_lot,
            repos: a_lot,
            uploads: a_lot,
            account_calls: a_lot,
            account_writes: a_lot,
            wait: Duration::from_secs(2),
        },
        at_once: 64,
    }
}

impl Network {
    /// Beside others that are not ours.
    pub(super) async fn beside(beside: Beside, adjust: impl FnOnce(&mut Settings)) -> Self {
        let (one, two) = (FakeHost::start(answers_ok).await, FakeHost::start(answers_ok).await);
        Self::between(&[], adjust, no_authority(), one, two, beside)
    }

    /// An account lives elsewhere from now on.
    pub(super) fn lives(&self, account: &str, did: &str, pds: &str) {
        let place = PdsLocation { did: did.parse().unwrap(), pds: pds.parse().unwrap() };
        self.world.lock().unwrap().places.insert(account.to_owned(), Ok(place));
    }

    /// What is known of accounts elsewhere.
    pub(super) fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// The nonce that a host gave is not known any more.
    pub(super) fn one_forgets_nonce(&self) {
        self.heard.lock().unwrap().clear();
    }

    /// Both hosts answer each request alike, and at once.
    pub(super) async fn start() -> Self {
        Self::with(|_| {}, answers_ok, answers_ok).await
    }

    pub(super) async fn with<A, B>(
        adjust: impl FnOnce(&mut Settings),
        one: impl Fn(Guest) -> A + Send + Sync + 'static,
        two: impl Fn(Guest) -> B + Send + Sync + 'static,
    ) -> Self
    where
        A: Future<Output = ()> + Send + 'static,
        B: Future<Output = ()> + Send + 'static,
    {
        Self::behind(&[], adjust, one, two).await
    }

    /// Behind proxies that say for whom they speak.
    pub(super) async fn behind<A, B>(
        proxies: &[ipnet::IpNet],
        adjust: impl FnOnce(&mut Settings),
        one: impl Fn(Guest) -> A + Send + Sync + 'static,
        two: impl Fn(Guest) -> B + Send + Sync + 'static,
    ) -> Self
    where
        A: Future<Output = ()> + Send + 'static,
        B: Future<Output = ()> + Send + 'static,
    {
        let (one, two) = (FakeHost::start(one).await, FakeHost::start(two).await);
        Self::before(proxies, adjust, no_authority(), one, two)
    }

    /// Before these hosts, whose certificates are signed by an authority of this configuration.
    pub(super) fn before(
        proxies: &[ipnet::IpNet],
        adjust: impl FnOnce(&mut Settings),
        tls: Arc<ClientConfig>,
        one: FakeHost,
        two: FakeHost,
    ) -> Self {
        Self::between(proxies, adjust, tls, one, two, Beside::listing(&[]))
    }

    fn between(
        proxies: &[ipnet::IpNet],
        adjust: impl FnOnce(&mut Settings),
        tls: Arc<ClientConfig>,
        one: FakeHost,
        two: FakeHost,
        beside: Beside,
    ) -> Self {
        let host =
            |name: &str, host: &FakeHost| crate::fleet::testing::host_at(name, host.origin.parse().unwrap());
        let heard = Arc::<Mutex<String>>::default();
        let mut settings = settings();
        adjust(&mut settings);
        let (world, metrics) = (Arc::<Mutex<World>>::default(), Metrics::default());
        let names = Names::new(Dns::new(&[beside.dns]).unwrap(), beside.listed);
        let context = EdgeContext {
            settings,
            rooms: Fixed {
                hosts: [host("one", &one), host("two", &two)].into(),
                remembers: one.port.is_multiple_of(2),
                heard: Arc::clone(&heard),
                forgotten: Arc::default(),
                world: Arc::clone(&world),
            },
            trusted_peers: TrustedPeers::new(proxies),
            external: ExternalPdses::new(names, Clock::System, beside.policy, &metrics),
            metrics,
            router: Router::new().fallback(any(local)),
            control: tokio::runtime::Handle::current(),
            tls,
            name: "genkan-test".to_owned(),
        };
        let edge = Edge::open("127.0.0.1:0".parse().unwrap(), context).unwrap();
        Self { edge, one, two, heard, world }
    }

    pub(super) async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.edge.address()).await.unwrap() }
    }

    /// Sends the bytes on a connection of their own and reads until the edge closes it.
    pub(super) async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.rest().await
    }

    /// One request, its head completed.
    pub(super) async fn ask(&self, line: &str, fields: &str) -> String {
        self.raw(request(line, fields)).await
    }
}

/// Waits until it is so, as long as a machine that is busy with other things may need.
pub(super) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = monotonic_now() + PATIENCE;
    while !is_so() {
        assert!(monotonic_now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// For what takes milliseconds on a machine that has nothing else to do.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A gate that hosts wait at until a test opens it.
#[derive(Clone)]
pub(super) struct Gate(Arc<tokio::sync::Semaphore>);

impl Gate {
    pub(super) fn closed() -> Self {
        Self(Arc::new(tokio::sync::Semaphore::new(0)))
    }

    pub(super) async fn pass(&self) {
        let _passed = self.0.acquire().await.unwrap();
    }

    pub(super) fn open(&self) {
        self.0.add_permits(1000);
    }
}

/// Trusts nobody.
fn no_authority() -> Arc<ClientConfig> {
    let ring = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// A request without a body that ends its connection.
pub(super) fn request(line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: genkan.example\r\nconnection: close\r\n{fields}\r\n")
}

fn settings() -> Settings {
    Settings {
        workers: 1,
        head_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_mins(1),
        stalled_reader: Duration::from_secs(30),
        head_bytes: 32 << 10,
        head_fields: 100,
        target_bytes: 16 << 10,
        connections_per_address: 256,
        connections_total: 1000,
        streams_per_connection: 100,
        request_log: true,
        forward: forward::Limits::default(),
        breaker: http1::BreakerRules {
            failures: 5,
            window: Duration::from_secs(10),
            pause: Duration::from_secs(10),
        },
    }
}

/// What Genkan's own methods are here: an echo of what they were asked, and by whom.
async fn local(request: axum::extract::Request) -> String {
    let client = request.extensions().get::<ClientAddr>().unwrap().0;
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20)
        .await
        .map_or_else(|_| "cut".to_owned(), |body| body.len().to_string());
    format!("local {} {} from {client} with {body}", parts.method, parts.uri.path())
}

/// A client that writes by hand.
pub(super) struct Client {
    pub(super) stream: TcpStream,
}

impl Client {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Everything until the connection ends, however it ends.
    pub(super) async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        let reading = self.stream.read_to_end(&mut all);
        let _ = tokio::time::timeout(PATIENCE, reading).await.expect("the connection ends");
        String::from_utf8_lossy(&all).into_owned()
    }

    /// One answer with a `Content-Length`, or a head alone.
    pub(super) async fn answer(&mut self) -> String {
        let reading = read_message(&mut self.stream);
        tokio::time::timeout(PATIENCE, reading).await.expect("an answer comes")
    }
}

/// Reads a head and as much of a body as it announces.
async fn read_message(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => all.push(byte),
            Err(_) => return String::from_utf8_lossy(&all).into_owned(),
        }
    }
    let head = String::from_utf8_lossy(&all).into_owned();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0_usize);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8_lossy(&body)
}

/// A host that does with each connection what it was told.
pub(super) struct FakeHost {
    pub(super) origin: String,
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

/// A connection to a fake host.
pub(super) struct Guest {
    pub(super) stream: TcpStream,
    heard: Arc<Mutex<Vec<String>>>,
    /// The how-manieth connection it is.
    pub(super) number: usize,
}

impl FakeHost {
    pub(super) async fn start<F: Future<Output = ()> + Send + 'static>(
        behave: impl Fn(Guest) -> F + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let connections = Arc::<AtomicUsize>::default();
        let (guests_heard, count) = (Arc::clone(&heard), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(behave(Guest { stream, heard: Arc::clone(&guests_heard), number }));
            }
        });
        Self { origin: format!("http://127.0.0.1:{port}"), port, heard, connections, task }
    }

    /// Every request's head, and body if announced.
    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The host behind TLS, at a name.
    pub(super) async fn behind_tls(self, tls: tokio_rustls::rustls::ServerConfig) -> Self {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let inner = self.port;
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Who does not trust us hangs up.
                    let Ok(mut outer) = acceptor.accept(stream).await else { return };
                    let mut inner = TcpStream::connect(("127.0.0.1", inner)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                });
            }
        });
        Self { origin, ..self }
    }

    /// Listens no more.
    pub(super) async fn close(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Guest {
    /// One request, or `None` when the connection has ended.
    pub(super) async fn request(&mut self) -> Option<String> {
        let message = read_message(&mut self.stream).await;
        if message.is_empty() {
            return None;
        }
        self.heard.lock().unwrap().push(message.clone());
        Some(message)
    }

    pub(super) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }
}

/// Answers every request with a small JSON object.
pub(super) async fn answers_ok(mut guest: Guest) {
    while guest.request().await.is_some() {
        guest.say("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}").await;
    }
}

/// Answers every request with these bytes.
pub(super) fn answers(
    bytes: &'static str,
) -> impl Fn(Guest) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    move |mut guest| {
        Box::pin(async move {
            while guest.request().await.is_some() {
                guest.say(bytes).await;
            }
        })
    }
}
