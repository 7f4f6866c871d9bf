use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::did_document::DidDocument;
use genkan_protocol::plc::{self, Operation};
use genkan_testing::{FakeDirectory, Trouble};
use tokio::net::TcpListener;

use super::*;
use crate::base::fetch::Answer;
use crate::base::{ManualClock, Timestamp};

struct ProxyHarness {
    directory: FakeDirectory,
    proxy: PlcProxy,
    url: String,
    clock: ManualClock,
}

const LIFETIME: Duration = Duration::from_secs(5);

impl ProxyHarness {
    /// Starts a proxy of a Genkan that has accounts with these DIDs.
    async fn new(known: &[&Did]) -> Self {
        let directory = FakeDirectory::start().await;
        let clock = ManualClock::at(Timestamp::from_seconds(1000));
        let known: Vec<Did> = known.iter().map(|&did| did.clone()).collect();
        let settings = PlcProxySettings {
            directory: directory.url().parse().unwrap(),
            timeout: Duration::from_millis(300),
            cache_entries: 100,
            cache_lifetime: LIFETIME,
        };
        let whose = move |did: Did| -> BoxFuture<'static, Result<bool, crate::db::Error>> {
            let answer = known.contains(&did);
            Box::pin(async move { Ok(answer) })
        };
        let prober = Prober::of_key([1; 32]);
        let proxy = PlcProxy::new(
            settings,
            UnguardedClient::new(None).unwrap(),
            clock.clock(),
            prober,
            Box::new(whose),
            Box::new(|_| Box::pin(async { Ok(()) })),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(proxy.clone().serve(listener, std::future::pending()));
        Self { directory, proxy, url, clock }
    }

    async fn ask(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        let request = request.body(Full::new(body.into())).unwrap();
        UnguardedClient::new(None).unwrap().send(request, Duration::from_secs(5), 1 << 20).await.unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, "").await
    }

    async fn post(&self, did: &Did, operation: &Operation) -> u16 {
        let path = format!("/{}", did.as_str().replace(':', "%3A"));
        self.ask(Method::POST, &path, serde_json::to_vec(operation).unwrap()).await.status.as_u16()
    }
}

fn key() -> K256PrivateKey {
    K256PrivateKey::from_bytes(&[7; 32]).unwrap()
}

fn genesis(handle: &str) -> (Did, Operation) {
    let keys = vec![key().public().to_did_key()];
    let data =
        plc::Data::of_account(keys, &key().public(), &handle.parse().unwrap(), "https://oak.example.com");
    plc::genesis(data, &key())
}

#[tokio::test]
async fn reads_pass_through_once_and_writes_make_them_fresh() {
    let (did, first) = genesis("alice.example.com");
    let harness = ProxyHarness::new(&[&did]).await;
    let path = format!("/{}", did.as_str().replace(':', "%3A"));
    // A 404 is not cached, because the account may be created at any moment.
    assert_eq!(harness.get(&path).await.status, 404);
    assert_eq!(harness.post(&did, &first).await, 200);
    let document: DidDocument = serde_json::from_slice(&harness.get(&path).await.body).unwrap();
    assert_eq!(document.handle().unwrap().as_str(), "alice.example.com");
    assert_eq!(harness.get(&format!("/{did}")).await.status, 200);
    assert_eq!(harness.directory.asked("document"), 2, "one 404, one document, one from memory");

    let mut data = first.data().unwrap();
    data.set_handle(&"alice.example.org".parse().unwrap());
    let second = plc::update(&first.cid(), data, &key());
    assert_eq!(harness.post(&did, &second).await, 200);
    let last: Operation =
        serde_json::from_slice(&harness.get(&format!("{path}/log/last")).await.body).unwrap();
    assert_eq!(last, second);
    let document: DidDocument = serde_json::from_slice(&harness.get(&path).await.body).unwrap();
    assert_eq!(document.handle().unwrap().as_str(), "alice.example.org");
}

#[tokio::test]
async fn genkans_own_changes_are_seen_at_once_and_others_after_the_lifetime() {
    let (did, first) = genesis("alice.example.com");
    let harness = ProxyHarness::new(&[&did]).await;
    assert_eq!(harness.post(&did, &first).await, 200);
    let path = format!("/{did}/log/last");
    harness.get(&path).await;
    let mut data = first.data().unwrap();
    data.set_handle(&"alice.example.org".parse().unwrap());
    // A change that does not come through the proxy, as an owner with a recovery key can make it.
    harness.directory.submit(&did, &plc::update(&first.cid(), data, &key())).unwrap();
    let remembered: Operation = serde_json::from_slice(&harness.get(&path).await.body).unwrap();
    assert_eq!(remembered, first);
    harness.proxy.forget(did.as_str());
    let told: Operation = serde_json::from_slice(&harness.get(&path).await.body).unwrap();
    assert_ne!(told, first);
    let before = harness.directory.asked("log/last");
    harness.get(&path).await;
    assert_eq!(harness.directory.asked("log/last"), before);
    harness.clock.advance(LIFETIME);
    harness.get(&path).await;
    assert_eq!(harness.directory.asked("log/last"), before + 1);
}

#[tokio::test]
async fn unknown_accounts_are_not_written_and_the_directory_is_not_called() {
    let (ours, _) = genesis("alice.example.com");
    let (theirs, operation) = genesis("mallory.example.com");
    let harness = ProxyHarness::new(&[&ours]).await;
    assert_eq!(harness.post(&theirs, &operation).await, 403);
    assert_eq!(harness.post(&"did:web:oak.example.com".parse().unwrap(), &operation).await, 403);
    assert_eq!(harness.directory.asked("submit"), 0);
    // The directory limits operations to a few KiB.
    let big = harness.ask(Method::POST, &format!("/{ours}"), vec![b'x'; 65 * 1024]).await;
    assert_eq!(big.status, 413);
    for (method, path, status) in [
        (Method::DELETE, format!("/{ours}"), 405),
        (Method::POST, format!("/{ours}/log"), 405),
        (Method::GET, "/".to_owned(), 404),
        // Hosts need only documents and logs of single DIDs.
        (Method::GET, "/export".to_owned(), 404),
        (Method::GET, format!("/{ours}/other"), 404),
        (Method::GET, format!("/{ours}/../x"), 404),
        (Method::GET, "/did:web:oak.example.com".to_owned(), 404),
        (Method::GET, "/_health".to_owned(), 200),
    ] {
        assert_eq!(harness.ask(method.clone(), &path, "").await.status, status, "{method} {path}");
    }
    assert_eq!(harness.directory.journal().len(), 0);
}

#[tokio::test]
async fn trouble_is_named_and_not_remembered() {
    let (did, first) = genesis("alice.example.com");
    let harness = ProxyHarness::new(&[&did]).await;
    let path = format!("/{did}");
    harness.directory.trouble("*", Trouble::Silent);
    assert_eq!(harness.get(&path).await.status, 504);
    harness.directory.mend();
    harness.directory.trouble("*", Trouble::CutBefore);
    assert_eq!(harness.get(&path).await.status, 504, "it may have heard us");
    assert_eq!(harness.post(&did, &first).await, 504);
    harness.directory.mend();
    assert_eq!(harness.post(&did, &first).await, 200);
    assert_eq!(harness.get(&path).await.status, 200);

    let nowhere: Origin = "http://127.0.0.1:1".parse().unwrap();
    let settings = PlcProxySettings {
        directory: nowhere,
        timeout: Duration::from_secs(2),
        cache_entries: 1,
        cache_lifetime: LIFETIME,
    };
    let knows = |_| -> BoxFuture<'static, Result<bool, crate::db::Error>> { Box::pin(async { Ok(true) }) };
    let client = UnguardedClient::new(None).unwrap();
    let alone = PlcProxy::new(
        settings,
        client,
        Clock::of_process(),
        Prober::of_key([1; 32]),
        Box::new(knows),
        Box::new(|_| Box::pin(async { Ok(()) })),
    );
    assert_eq!(alone.answer(Method::GET, &path, Bytes::new()).await.status, 502);
}

#[tokio::test]
async fn many_readers_are_one_question() {
    let (did, first) = genesis("alice.example.com");
    let harness = ProxyHarness::new(&[&did]).await;
    harness.directory.submit(&did, &first).unwrap();
    // Slow enough that all readers come before the answer.
    harness.directory.trouble("*", Trouble::Slow(Duration::from_millis(50)));
    let path = format!("/{did}");
    let all = futures_util::future::join_all((0..20).map(|_| harness.get(&path))).await;
    assert!(all.iter().all(|answer| answer.status == 200));
    assert_eq!(harness.directory.asked("document"), 1);
}

#[tokio::test]
async fn a_probe_did_is_answered_here() {
    let harness = ProxyHarness::new(&[]).await;
    let probe = Prober::of_key([1; 32]).fresh();
    let answer = harness.get(&format!("/{}", probe.did.as_str().replace(':', "%3A"))).await;
    let document: DidDocument = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(document.id, probe.did);
    assert_eq!(document.signing_key().unwrap().to_did_key(), probe.key.public().to_did_key());
    // A probe of another Genkan is an unknown DID here.
    let foreign = Prober::of_key([2; 32]).fresh();
    assert_eq!(harness.get(&format!("/{}", foreign.did)).await.status, 404);
    let asked: Vec<String> = harness.directory.journal().into_iter().map(|seen| seen.path).collect();
    assert_eq!(asked, [format!("/{}", foreign.did)], "the directory sees no probe of this Genkan");
}
