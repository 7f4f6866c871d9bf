//! The harness: an edge before two hosts, and a client that writes its requests by hand.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::fake_rooms::{ExternalState, FakeRooms};
use super::raw_host::{HostConnection, RawHost, answers_ok, read_message};
use crate::base::fetch::{Dns, Names};
use crate::base::{Clock, Origin, monotonic_now};
use crate::config::{Rate, TargetReads};
use crate::db::LiveReplicas;
use crate::edge::{BoundAddress, Edge, EdgeContext, IntakeLimit, Settings};
use crate::forward::{self, CallBudgetRules, ExternalPdses, ExternalPolicy, ReadLimits, ServiceRules};
use crate::identity::PdsLocation;
use crate::telemetry::metrics::Metrics;
use crate::wire::{ClientAddr, TrustedPeers};

/// An edge before two hosts.
pub(super) struct Network {
    pub(super) edge: Edge,
    pub(super) one: RawHost,
    pub(super) two: RawHost,
    heard: Arc<Mutex<String>>,
    external: Arc<Mutex<ExternalState>>,
}

/// The external PDSes that may be reached, and the rules for calls to them.
pub(super) struct ExternalSetup {
    pub(super) listed: Vec<Origin>,
    pub(super) dns: SocketAddr,
    pub(super) policy: ExternalPolicy,
}

impl ExternalSetup {
    /// Lists these hosts, so that they may be called although they are on loopback. No name
    /// resolves.
    pub(super) fn listing(hosts: &[&RawHost]) -> Self {
        Self {
            listed: hosts.iter().map(|host| host.origin.parse().unwrap()).collect(),
            // The discard port: no name server answers there.
            dns: "127.0.0.1:9".parse().unwrap(),
            policy: policy(),
        }
    }
}

/// Returns rules like the defaults, with rates that no test reaches.
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
        services: ServiceRules { must_exist: false, lookup_limit: PATIENCE },
    }
}

impl Network {
    /// Starts an edge before two hosts that answer, with these external PDSes.
    pub(super) async fn with_external(setup: ExternalSetup, adjust: impl FnOnce(&mut Settings)) -> Self {
        Self::with_external_and(RawHost::start(answers_ok).await, setup, adjust).await
    }

    /// Starts an edge before this host and another one, with these external PDSes.
    pub(super) async fn with_external_and(
        one: RawHost,
        setup: ExternalSetup,
        adjust: impl FnOnce(&mut Settings),
    ) -> Self {
        let two = RawHost::start(answers_ok).await;
        Self::between(&[], adjust, no_authority(), one, two, setup)
    }

    /// Makes the edge find an account on this external PDS from now on.
    pub(super) fn lives(&self, account: &str, did: &str, pds: &str) {
        let place = PdsLocation { did: did.parse().unwrap(), pds: pds.parse().unwrap() };
        self.external.lock().unwrap().locations.insert(account.to_owned(), Ok(place));
    }

    /// Returns the state of accounts on external PDSes, to read or change it.
    pub(super) fn external(&self) -> std::sync::MutexGuard<'_, ExternalState> {
        self.external.lock().unwrap()
    }

    /// Forgets the nonces that hosts gave.
    pub(super) fn one_forgets_nonce(&self) {
        self.heard.lock().unwrap().clear();
    }

    /// Starts an edge before two hosts that answer every request at once.
    pub(super) async fn start() -> Self {
        Self::with(|_| {}, answers_ok, answers_ok).await
    }

    pub(super) async fn with<A, B>(
        adjust: impl FnOnce(&mut Settings),
        one: impl Fn(HostConnection) -> A + Send + Sync + 'static,
        two: impl Fn(HostConnection) -> B + Send + Sync + 'static,
    ) -> Self
    where
        A: Future<Output = ()> + Send + 'static,
        B: Future<Output = ()> + Send + 'static,
    {
        Self::behind(&[], adjust, one, two).await
    }

    /// Starts an edge behind proxies that name their clients.
    pub(super) async fn behind<A, B>(
        proxies: &[ipnet::IpNet],
        adjust: impl FnOnce(&mut Settings),
        one: impl Fn(HostConnection) -> A + Send + Sync + 'static,
        two: impl Fn(HostConnection) -> B + Send + Sync + 'static,
    ) -> Self
    where
        A: Future<Output = ()> + Send + 'static,
        B: Future<Output = ()> + Send + 'static,
    {
        let (one, two) = (RawHost::start(one).await, RawHost::start(two).await);
        Self::before(proxies, adjust, no_authority(), one, two)
    }

    /// Starts an edge before these hosts. This configuration has the authority of their
    /// certificates.
    pub(super) fn before(
        proxies: &[ipnet::IpNet],
        adjust: impl FnOnce(&mut Settings),
        tls: Arc<ClientConfig>,
        one: RawHost,
        two: RawHost,
    ) -> Self {
        Self::between(proxies, adjust, tls, one, two, ExternalSetup::listing(&[]))
    }

    fn between(
        proxies: &[ipnet::IpNet],
        adjust: impl FnOnce(&mut Settings),
        tls: Arc<ClientConfig>,
        one: RawHost,
        two: RawHost,
        setup: ExternalSetup,
    ) -> Self {
        let host =
            |name: &str, host: &RawHost| crate::fleet::testing::host_at(name, host.origin.parse().unwrap());
        let heard = Arc::<Mutex<String>>::default();
        let mut settings = settings();
        adjust(&mut settings);
        let (external, metrics) = (Arc::<Mutex<ExternalState>>::default(), Metrics::default());
        let names = Names::new(Dns::new(&[setup.dns]).unwrap(), setup.listed);
        let context = EdgeContext {
            settings,
            rooms: FakeRooms {
                hosts: [host("one", &one), host("two", &two)].into(),
                // By chance of the port, so that over many tests both ways are taken: from the
                // cache, and by a lookup.
                remembers: one.port.is_multiple_of(2),
                heard: Arc::clone(&heard),
                forgotten: Arc::default(),
                external: Arc::clone(&external),
            },
            trusted_peers: TrustedPeers::new(proxies),
            external: ExternalPdses::new(
                names,
                Clock::of_process(),
                setup.policy,
                &metrics,
                LiveReplicas::one(),
            ),
            metrics,
            router: Router::new().fallback(any(local)),
            control: tokio::runtime::Handle::current(),
            tls,
            name: "genkan-test".to_owned(),
        };
        let address = BoundAddress::take("127.0.0.1:0".parse().unwrap(), context.settings.workers).unwrap();
        let edge = Edge::open(address, context).unwrap();
        Self { edge, one, two, heard, external }
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

    /// Sends one request with a complete head, and returns the answer.
    pub(super) async fn ask(&self, line: &str, fields: &str) -> String {
        self.raw(request(line, fields)).await
    }
}

/// Waits for a condition, up to the time that a busy machine may need.
pub(super) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = monotonic_now() + PATIENCE;
    while !is_so() {
        assert!(monotonic_now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The longest wait for something that takes milliseconds on an idle machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Returns a TLS configuration that trusts no authority.
fn no_authority() -> Arc<ClientConfig> {
    let ring = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// A method that home accounts call at their host, with a token of Alice's or Bob's.
pub(super) const ASK: &str = "GET /xrpc/app.bsky.feed.getTimeline";
/// A method that a host answers alone, for its users.
pub(super) const ALONE: &str = "GET /xrpc/com.atproto.sync.listRepos";
pub(super) const ALICES: &str = "authorization: Bearer alice\r\n";
pub(super) const BOBS: &str = "authorization: Bearer bob\r\n";

/// Returns the status of an answer and the name of its error: `502 UpstreamFailure`, or `200 -`.
pub(super) fn summary(answer: &str) -> String {
    let name = answer.split_once("\"error\":\"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or("-");
    format!("{} {name}", answer.get(9..12).unwrap_or("none"))
}

/// Returns the `Retry-After` of an answer, in seconds.
pub(super) fn retry_after(answer: &str) -> u64 {
    let value = answer.lines().find_map(|line| line.strip_prefix("retry-after: "));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no retry-after: {answer}"))
}

/// Returns a request without a body that ends its connection.
pub(super) fn request(line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: genkan.example\r\nconnection: close\r\n{fields}\r\n")
}

/// Time limits are so long that none of them ends a test. A test that is about one of them makes it
/// short, and then nothing else explains what ends within [`PATIENCE`].
fn settings() -> Settings {
    Settings {
        workers: 1,
        head_timeout: 10 * PATIENCE,
        idle_timeout: 10 * PATIENCE,
        stalled_reader: 10 * PATIENCE,
        intake: IntakeLimit { period: 10 * PATIENCE, rate: 1024 },
        head_bytes: 32 << 10,
        head_fields: 100,
        target_bytes: 16 << 10,
        connections_per_address: 256,
        connections_total: 1000,
        streams_per_connection: 100,
        request_log: true,
        forward: forward::Limits {
            connect: 10 * PATIENCE,
            answer_head: 10 * PATIENCE,
            answer_head_after_upload: 10 * PATIENCE,
            idle: 10 * PATIENCE,
            slow_grace: 10 * PATIENCE,
            ..forward::Limits::default()
        },
        breaker: http1::BreakerRules {
            failures: 5,
            window: Duration::from_secs(10),
            pause: Duration::from_secs(10),
        },
    }
}

/// Stands for Genkan's own methods. The answer repeats the request and its client.
async fn local(request: axum::extract::Request) -> String {
    let client = request.extensions().get::<ClientAddr>().unwrap().0;
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20)
        .await
        .map_or_else(|_| "cut".to_owned(), |body| body.len().to_string());
    format!("local {} {} from {client} with {body}", parts.method, parts.uri.path())
}

/// A client that writes its requests byte by byte.
pub(super) struct Client {
    pub(super) stream: TcpStream,
}

impl Client {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads until the connection ends, in whatever way.
    pub(super) async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        let reading = self.stream.read_to_end(&mut all);
        let _ = tokio::time::timeout(PATIENCE, reading).await.expect("the connection ends");
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Reads one answer with a `Content-Length`, or without a body.
    pub(super) async fn answer(&mut self) -> String {
        let reading = read_message(&mut self.stream);
        tokio::time::timeout(PATIENCE, reading).await.expect("an answer comes")
    }
}
