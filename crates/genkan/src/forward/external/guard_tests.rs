//! The forwarding dialler, for names that outsiders chose: one test for each family of addresses,
//! for rebinding, and for names that turn bad. Nothing leaves the machine: whatever is dialled goes
//! to a canary, and is written down.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use genkan_testing::network::eventually;
use http::HeaderValue;
use http1::{Answerer, BodyLength, BreakerRules, Connector, Deadlines, Exchange};
use tokio::net::TcpListener;

use super::limits::ReadLimits;
use super::policy::{CHECKED_FOR, ExternalPdses, ExternalPolicy, KEPT_FOR};
use super::rules::CallBudgetRules;
use super::services::ServiceRules;
use crate::base::fetch::test_dns::{Reply, TestDns};
use crate::base::fetch::{Dns, Names, tls};
use crate::base::{Clock, Origin};
use crate::config::{Rate, TargetReads};
use crate::db::LiveReplicas;
use crate::forward::error::Error;
use crate::forward::headers::{Credentials, ForwardedHead};
use crate::forward::limits::Limits;
use crate::forward::pools::{Breakers, Pools};
use crate::forward::shares::Holder;
use crate::limits::ClientNetwork;
use crate::telemetry::metrics::Metrics;

struct Guard {
    external: ExternalPdses,
    pools: Pools,
    dialled: Arc<Mutex<Vec<SocketAddr>>>,
    canary: TcpListener,
}

impl Guard {
    async fn before(dns: &TestDns) -> Self {
        let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = Arc::<Mutex<Vec<SocketAddr>>>::default();
        let (seen, to) = (Arc::clone(&dialled), canary.local_addr().unwrap());
        let connector = Connector::new(tls::client_config(None).unwrap()).rerouted(move |address| {
            seen.lock().unwrap().push(address);
            to
        });
        let many = Rate { count: 1000, per: Duration::from_secs(1) };
        let policy = ExternalPolicy {
            target_reads: TargetReads::Public,
            blocked_hosts: vec!["blocked.example.com".to_owned()],
            blocked_dids: Vec::new(),
            reads: ReadLimits { rate: None, streams: 9, streams_in_all: 9, bytes: 1 << 30 },
            fair: CallBudgetRules {
                calls: many,
                repos: many,
                uploads: many,
                account_calls: many,
                account_writes: many,
                wait: Duration::ZERO,
            },
            at_once: 8,
            services: ServiceRules { must_exist: true, lookup_limit: Duration::ZERO },
        };
        let names = Names::new(Dns::new(&[dns.address()]).unwrap(), Vec::new());
        let rules =
            BreakerRules { failures: 5, window: Duration::from_secs(1), pause: Duration::from_secs(1) };
        let limits = Limits { connect: Duration::from_millis(200), ..Limits::default() }.pool();
        Self {
            external: ExternalPdses::new(
                names,
                Clock::of_process(),
                policy,
                &Metrics::default(),
                LiveReplicas::one(),
            ),
            pools: Pools::new(Breakers::new(rules), connector, limits, 8, Deadlines::new()),
            dialled,
            canary,
        }
    }

    /// Sends a request. The server does not speak TLS, so it fails at the latest there.
    async fn reach(&self, origin: &str) -> Result<(), Error> {
        let origin: Origin = origin.parse().unwrap();
        let addresses = self.external.addresses(&origin).await?;
        let client = Holder::Stranger(ClientNetwork::of([192, 0, 2, 1].into()));
        let (permit, _place) = self.pools.external(&origin, &addresses)?.admit(client, Answerer::Server)?;
        let head = ForwardedHead {
            request: &http::Request::new(()).into_parts().0,
            target: "/",
            credentials: Credentials::None,
            has_body: false,
            passes_service: false,
            client: None,
            via: &HeaderValue::from_static("1.1 genkan"),
            follows_redirects: false,
        };
        let limits = Limits::default();
        let exchange = Exchange {
            head: &head,
            length: BodyLength::None,
            progress: None,
            answer_within: limits.answer_head,
            limits: limits.upload(),
        };
        // The canary speaks no TLS, so it never comes to more than a connection.
        exchange.send(&permit, None).await.map(drop)
    }

    fn dialled(&self) -> Vec<String> {
        self.dialled.lock().unwrap().iter().map(ToString::to_string).collect()
    }

    async fn is_untouched(&self) -> bool {
        let accepting = self.canary.accept();
        tokio::time::timeout(Duration::from_millis(20), accepting).await.is_err() && self.dialled().is_empty()
    }
}

/// Checks that no connection is made to any of these addresses, alone or together with a public
/// one.
async fn never_dialled(addresses: &'static [&'static str]) {
    for address in addresses {
        // A public address next to it must not make the private one acceptable.
        for beside in [None, Some("93.184.216.34"), Some("2606:2800:220:1::1")] {
            let all: Vec<&str> = beside.into_iter().chain([*address]).collect();
            let dns = TestDns::start(move |_, _| Reply::addresses(&all)).await;
            let guard = Guard::before(&dns).await;
            let refused = guard.reach("https://evil.example.com").await;
            assert!(matches!(refused, Err(Error::NotAllowed)), "{address}: {refused:?}");
            assert!(guard.is_untouched().await, "{address}");
        }
    }
}

#[tokio::test]
async fn c16_loopback_is_never_dialled() {
    never_dialled(&["127.0.0.1", "127.255.255.254", "::1"]).await;
}

#[tokio::test]
async fn c16_private_networks_are_never_dialled() {
    never_dialled(&["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1"]).await;
    never_dialled(&["fc00::1", "fd12:3456::1", "fec0::1"]).await;
}

#[tokio::test]
async fn c16_link_local_addresses_are_never_dialled() {
    never_dialled(&["169.254.169.254", "169.254.0.1", "fe80::1"]).await;
}

#[tokio::test]
async fn c16_reserved_addresses_are_never_dialled() {
    never_dialled(&[
        "0.0.0.0",
        "0.1.2.3",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "198.18.0.1",
        "240.0.0.1",
    ])
    .await;
    never_dialled(&["255.255.255.255", "224.0.0.1", "::", "ff02::1", "2001:db8::1", "100::1"]).await;
}

#[tokio::test]
async fn c16_addresses_within_addresses_are_never_dialled() {
    never_dialled(&[
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
    ])
    .await;
    never_dialled(&["2002:7f00:1::1", "2001:0:53aa:64c:0:7f:80ff:fffe"]).await;
}

#[tokio::test]
async fn c16_what_the_url_shows_is_never_looked_up() {
    let dns = TestDns::start(|_, _| Reply::addresses(&["93.184.216.34"])).await;
    let guard = Guard::before(&dns).await;
    for origin in [
        "http://pds.example.com",
        "https://pds.example.com:8443",
        "https://127.0.0.1",
        "https://[::1]",
        "https://93.184.216.34",
        "https://localhost",
        "https://pds.localhost",
        "https://pds.internal",
        "https://pds.local",
        "https://pds.onion",
        "https://pds",
        "https://127.1",
        // The integer form of 127.0.0.1, which some parsers accept.
        "https://2130706433",
        "https://blocked.example.com",
        "https://below.blocked.example.com",
    ] {
        assert!(matches!(guard.reach(origin).await, Err(Error::NotAllowed)), "{origin}");
    }
    assert_eq!(dns.asked(), 0);
    assert!(guard.is_untouched().await);
    // A name is blocked with its subdomains, and not with every name that ends the same.
    let _ = guard.reach("https://unblocked.example.com").await;
    assert_eq!(guard.dialled(), ["93.184.216.34:443"]);
}

#[tokio::test]
async fn c16_a_rebinding_name_is_dialled_only_where_it_was_checked() {
    let dns = TestDns::start(|_, count| {
        Reply::addresses(&[if count <= 2 { "93.184.216.34" } else { "127.0.0.1" }])
    })
    .await;
    let guard = Guard::before(&dns).await;
    for _ in 0..3 {
        assert!(matches!(guard.reach("https://rebind.example.com").await, Err(Error::Unreachable(_))));
    }
    assert_eq!(guard.dialled(), ["93.184.216.34:443"; 3], "one lookup serves the check and each connection");
    assert_eq!(dns.asked(), 2, "A and AAAA, once");
}

#[tokio::test]
async fn c16_a_name_that_turns_bad_loses_its_connections() {
    let dns = TestDns::start(|_, _| Reply::addresses(&["93.184.216.34"])).await;
    let guard = Guard::before(&dns).await;
    let origin: Origin = "https://pds.example.com".parse().unwrap();
    let [first, second] =
        [["93.184.216.34"], ["93.184.216.35"]].map(|text| Arc::from(text.map(|text| text.parse().unwrap())));
    let before = guard.pools.external(&origin, &first).unwrap();
    assert!(Rc::ptr_eq(&before, &guard.pools.external(&origin, &first).unwrap()));
    let after = guard.pools.external(&origin, &second).unwrap();
    assert!(!Rc::ptr_eq(&before, &after), "connections are of one set of addresses");
    drop(guard.pools.external(&origin, &second));
    assert_eq!(Rc::strong_count(&before), 1, "nobody lends the old ones any more");
}

#[tokio::test]
async fn a_name_server_that_falls_silent_holds_up_no_call_to_a_pds_in_use() {
    let dns = TestDns::start(
        |_, count| {
            if count <= 2 { Reply::addresses(&["93.184.216.34"]) } else { Reply::Silence }
        },
    )
    .await;
    let guard = Guard::before(&dns).await;
    let origin: Origin = "https://pds.example.com".parse().unwrap();
    let checked = guard.external.addresses(&origin).await.unwrap();
    guard.external.age(&origin, CHECKED_FOR);
    for _ in 0..3 {
        let at_once = guard.external.addresses(&origin).now_or_never();
        assert_eq!(at_once.unwrap().unwrap(), checked);
    }
    eventually("the name is looked up again", async || dns.asked() >= 4).await;
    assert_eq!(dns.asked(), 4, "A and AAAA, once for all calls");
    guard.external.age(&origin, KEPT_FOR);
    assert!(guard.external.addresses(&origin).await.is_err(), "too old");
}
