use std::time::Duration;

use futures_util::future::BoxFuture;
use genkan_testing::{FakeDirectory, FakeHost, Wire};
use tokio::net::TcpListener;

use super::*;
use crate::base::fetch::UnguardedClient;
use crate::base::seal::Sealer;
use crate::base::{Clock, Secret};
use crate::db::testing::Fresh;
use crate::fleet::plc_proxy::{PlcProxy, PlcProxySettings, Prober};
use crate::fleet::testing::host_client;
use crate::keys::Ring;

/// A PLC proxy over a directory, a ring with a key for "oak", and a checker.
struct HostCheckHarness {
    checker: HostChecker,
    host: FakeHost,
    directory: FakeDirectory,
    _fresh: Fresh,
}

/// A checker and a host that is configured as it should be.
async fn configured() -> HostCheckHarness {
    let harness = unconfigured().await;
    harness.configure_all_but("nothing");
    harness
}

async fn unconfigured() -> HostCheckHarness {
    let fresh = Fresh::sqlite().await;
    let db = fresh.db.clone();
    let ring = Ring::open(&db, &Clock::of_process(), Sealer::new(&Secret::new([3; 32])), None).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    ring.add_host_key(&mut tx, "oak", None).await.unwrap();
    tx.commit().await.unwrap();
    ring.reload().await.unwrap();

    let directory = FakeDirectory::start().await;
    let settings = PlcProxySettings {
        directory: directory.url().parse().unwrap(),
        timeout: Duration::from_secs(2),
        cache_entries: 10,
        cache_lifetime: Duration::from_secs(5),
    };
    let knows = |_| -> BoxFuture<'static, Result<bool, crate::db::Error>> { Box::pin(async { Ok(false) }) };
    let client = UnguardedClient::new(None).unwrap();
    let proxy = PlcProxy::new(
        settings,
        client,
        Clock::of_process(),
        Prober::new(&ring),
        Box::new(knows),
        Box::new(|_| Box::pin(async { Ok(()) })),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front_url = format!("http://localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    tokio::spawn(proxy.serve(listener, std::future::pending()));

    let expected = Expected {
        public_url: "https://example.com".parse().unwrap(),
        service_did: "did:web:example.com".parse().unwrap(),
        handle_domains: vec![".example.com".to_owned(), ".example.net".to_owned()],
        front_url: Some(front_url),
        directory_url: directory.url().parse().unwrap(),
        dpop_secret: Secret::new([5; 32]),
    };
    let checker = HostChecker::new(host_client(), ring, expected, Clock::of_process());
    let host = FakeHost::start("admin word").await;
    HostCheckHarness { checker, host, directory, _fresh: fresh }
}

impl HostCheckHarness {
    /// Gives the host every setting that the checker prints, except one.
    fn configure_all_but(&self, left_out: &str) {
        let settings = self.checker.settings(&"oak".into()).unwrap();
        let lines = settings.into_iter().filter(|(name, _)| *name != left_out);
        let lines: Vec<String> = lines.map(|(name, value)| format!("{name}={value}")).collect();
        self.host.configure(&lines.join("\n"));
    }

    async fn check(&self) -> HostCheck {
        let subject = Subject {
            name: "oak".into(),
            origin: format!("http://localhost:{}", self.host.address().port()).parse().unwrap(),
            admin_password: Secret::new("admin word".to_owned()),
        };
        self.checker.check(&subject).await
    }

    async fn wrong(&self) -> Vec<Proof> {
        let check = self.check().await;
        let bad = check.findings.iter().filter(|finding| finding.verdict.is_bad());
        bad.map(|finding| finding.proof).collect()
    }
}

#[tokio::test]
async fn the_printed_settings_are_all_a_host_needs() {
    let harness = configured().await;
    let check = harness.check().await;
    let not_good: Vec<_> =
        check.findings.iter().filter(|finding| !matches!(finding.verdict, Verdict::Good { .. })).collect();
    assert!(not_good.is_empty(), "{not_good:?}");
    assert_eq!(check.findings.len(), 11);
    assert!(check.passed());
    let traces = (
        harness.directory.asked("submit"),
        harness.host.accounts().len(),
        harness.host.asked("com.atproto.server.reserveSigningKey"),
    );
    assert_eq!(traces, (0, 0, 0), "nothing is left behind");
}

#[tokio::test]
async fn each_wrong_setting_is_found_by_its_proof() {
    let key = "03d141057079d9e7ed04025984db33db2afe119f95029e94d98c22ac0e107c3c84";
    let did_key = "did:key:zQ3shjM3pmCdngydCoyZBHzbr1YqLMAdwfEByoj7dbMCNy9Ad";
    let cases = [
        ("PDS_ENTRYWAY_URL", "https://other.com", Proof::EntrywayUrl),
        ("PDS_HOSTNAME", "oak.example.com", Proof::Url),
        ("PDS_SERVICE_HANDLE_DOMAINS", ".example.com", Proof::HandleDomains),
        ("PDS_ENTRYWAY_JWT_VERIFY_KEY_K256_PUBLIC_KEY_HEX", key, Proof::SigningKey),
        ("PDS_ADMIN_PASSWORD", "another", Proof::AdminPassword),
        ("PDS_ENTRYWAY_PLC_ROTATION_KEY", did_key, Proof::RotationKey),
        ("PDS_ENTRYWAY_DID", "did:web:other.com", Proof::EntrywayDid),
    ];
    for (name, value, expected) in cases {
        let harness = configured().await;
        harness.host.configure(&format!("{name}={value}"));
        assert_eq!(harness.wrong().await, [expected], "{name}");
    }
}

#[tokio::test]
async fn a_host_without_an_entryway_is_found_out() {
    let harness = unconfigured().await;
    harness.configure_all_but("PDS_ENTRYWAY_URL");
    assert_eq!(harness.wrong().await, [Proof::EntrywayUrl]);
}

#[tokio::test]
async fn a_host_that_goes_to_the_directory_itself_is_found_out() {
    let harness = configured().await;
    harness.host.configure(&format!("PDS_DID_PLC_URL={}", harness.directory.url()));
    assert_eq!(harness.wrong().await, [Proof::PlcProxy]);
}

#[tokio::test]
async fn a_host_that_is_away_has_one_finding() {
    let harness = configured().await;
    harness.host.set_wire(Wire::Refusing).await;
    assert_eq!(harness.wrong().await, [Proof::Reachable]);
    assert!(!harness.check().await.passed());
}

#[tokio::test]
async fn a_plc_proxy_that_hosts_refuse_to_ask_is_named() {
    let mut harness = configured().await;
    let needs = |harness: &HostCheckHarness| {
        harness.checker.settings(&"oak".into()).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert!(
        needs(&harness).contains(&"PDS_DISABLE_SSRF_PROTECTION"),
        "plain http is refused by a host's own guard"
    );
    harness.checker.expected.front_url = Some("http://127.0.0.1:2585".parse().unwrap());
    assert_eq!(harness.wrong().await, [Proof::PlcProxy]);
    harness.checker.expected.front_url = Some("https://plc.example.com".parse().unwrap());
    assert!(!needs(&harness).contains(&"PDS_DISABLE_SSRF_PROTECTION"));
}
