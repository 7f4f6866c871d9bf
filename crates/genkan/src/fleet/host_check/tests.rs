use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::net::TcpListener;

use super::*;
use crate::base::fetch::UnguardedClient;
use crate::base::seal::Sealer;
use crate::base::test_directory::TestDirectory;
use crate::base::{Clock, Secret};
use crate::db::testing::Fresh;
use crate::fleet::plc_proxy::{PlcProxy, PlcProxySettings, Prober};
use crate::fleet::testing::{FakeHost, State, host_client};
use crate::keys::Ring;

/// A PLC proxy over a directory, a ring with a key for "oak", and a checker.
struct Stand {
    checker: HostChecker,
    host: FakeHost,
    directory: TestDirectory,
    _fresh: Fresh,
}

async fn stand() -> Stand {
    let fresh = Fresh::sqlite().await;
    let db = fresh.db.clone();
    let ring = Ring::open(&db, &Clock::System, Sealer::new(&Secret::new([3; 32])), None).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    ring.add_host_key(&mut tx, "oak", None).await.unwrap();
    tx.commit().await.unwrap();
    ring.reload().await.unwrap();

    let directory = TestDirectory::start().await;
    let settings = PlcProxySettings {
        directory: directory.origin(),
        timeout: Duration::from_secs(2),
        cache_entries: 10,
        cache_lifetime: Duration::from_secs(5),
    };
    let knows = |_| -> BoxFuture<'static, Result<bool, crate::db::Error>> { Box::pin(async { Ok(false) }) };
    let client = UnguardedClient::new(None).unwrap();
    let proxy = PlcProxy::new(settings, client, Clock::System, Prober::new(&ring), Box::new(knows));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front_url = format!("http://localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    tokio::spawn(proxy.serve(listener, std::future::pending()));

    let expected = Expected {
        public_url: "https://example.com".parse().unwrap(),
        service_did: "did:web:example.com".parse().unwrap(),
        handle_domains: vec![".example.com".to_owned(), ".example.net".to_owned()],
        front_url: Some(front_url),
        directory_url: directory.origin(),
        dpop_secret: Secret::new([5; 32]),
    };
    let checker = HostChecker::new(host_client(), ring, expected, Clock::System);
    let host = FakeHost::start().await;
    let settings: HashMap<_, _> = checker.settings(&"oak".into()).unwrap().into_iter().collect();
    host.with(|state| state.settings = settings);
    Stand { checker, host, directory, _fresh: fresh }
}

impl Stand {
    async fn check(&self) -> HostCheck {
        let subject = Subject {
            name: "oak".into(),
            origin: self.host.origin.clone(),
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
    let stand = stand().await;
    let check = stand.check().await;
    let not_good: Vec<_> =
        check.findings.iter().filter(|finding| !matches!(finding.verdict, Verdict::Good { .. })).collect();
    assert!(not_good.is_empty(), "{not_good:?}");
    assert_eq!(check.findings.len(), 11);
    assert!(check.passed());
    assert_eq!(stand.directory.asked("POST"), 0);
    assert_eq!(
        stand.host.with(|state| (state.accounts.len(), state.reserved.len())),
        (0, 0),
        "no trace is left"
    );
}

#[tokio::test]
async fn each_wrong_setting_is_found_by_its_proof() {
    type Change = fn(&mut State);
    let cases: [(Change, &[Proof]); 8] = [
        (
            |host| drop(host.settings.insert("PDS_ENTRYWAY_URL", "https://other.com".into())),
            &[Proof::EntrywayUrl],
        ),
        (|host| drop(host.settings.remove("PDS_ENTRYWAY_URL")), &[Proof::EntrywayUrl]),
        (|host| host.url = "https://oak.example.com".into(), &[Proof::Url]),
        (
            |host| drop(host.settings.insert("PDS_SERVICE_HANDLE_DOMAINS", ".example.com".into())),
            &[Proof::HandleDomains],
        ),
        (
            |host| {
                let other = "03d141057079d9e7ed04025984db33db2afe119f95029e94d98c22ac0e107c3c84".to_owned();
                host.settings.insert("PDS_ENTRYWAY_JWT_VERIFY_KEY_K256_PUBLIC_KEY_HEX", other);
            },
            &[Proof::SigningKey],
        ),
        (|host| host.admin_password = "another".into(), &[Proof::AdminPassword]),
        (
            |host| {
                let other = "did:key:zQ3shjM3pmCdngydCoyZBHzbr1YqLMAdwfEByoj7dbMCNy9Ad".to_owned();
                host.settings.insert("PDS_ENTRYWAY_PLC_ROTATION_KEY", other);
            },
            &[Proof::RotationKey],
        ),
        (
            |host| drop(host.settings.insert("PDS_ENTRYWAY_DID", "did:web:other.com".into())),
            &[Proof::EntrywayDid],
        ),
    ];
    for (number, (spoil, expected)) in cases.into_iter().enumerate() {
        let stand = stand().await;
        stand.host.with(spoil);
        assert_eq!(stand.wrong().await, expected, "case {number}");
    }
}

#[tokio::test]
async fn a_host_that_goes_to_the_directory_itself_is_found_out() {
    let stand = stand().await;
    let direct = stand.directory.origin().to_string();
    stand.host.with(|state| state.settings.insert("PDS_DID_PLC_URL", direct));
    assert_eq!(stand.wrong().await, [Proof::PlcProxy]);
}

#[tokio::test]
async fn a_host_that_is_away_has_one_finding() {
    let stand = stand().await;
    stand.host.with(|state| state.fault = crate::fleet::testing::HostFault::Closed);
    assert_eq!(stand.wrong().await, [Proof::Reachable]);
    assert!(!stand.check().await.passed());
}

#[tokio::test]
async fn a_plc_proxy_that_hosts_refuse_to_ask_is_named() {
    let mut stand = stand().await;
    let needs = |stand: &Stand| {
        stand.checker.settings(&"oak".into()).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert!(
        needs(&stand).contains(&"PDS_DISABLE_SSRF_PROTECTION"),
        "plain http is refused by a host's own guard"
    );
    stand.checker.expected.front_url = Some("http://127.0.0.1:2585".parse().unwrap());
    assert_eq!(stand.wrong().await, [Proof::PlcProxy]);
    stand.checker.expected.front_url = Some("https://plc.example.com".parse().unwrap());
    assert!(!needs(&stand).contains(&"PDS_DISABLE_SSRF_PROTECTION"));
}
