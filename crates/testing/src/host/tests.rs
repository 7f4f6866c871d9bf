use genkan_protocol::jwt::session::{AccessClaims, RefreshClaims, Scope, sign_access, sign_refresh};
use genkan_protocol::plc::{self, Data, Operation};
use serde_json::{Value, json};

use super::*;
use crate::{Client, FakeDirectory, Trouble};

struct HostHarness {
    directory: FakeDirectory,
    host: FakeHost,
    /// Signs sessions.
    tokens: K256PrivateKey,
    rotation: K256PrivateKey,
}

impl HostHarness {
    async fn start() -> Self {
        let directory = FakeDirectory::start().await;
        let host = FakeHost::start("hunter22").await;
        let (tokens, rotation) = (key(1), key(2));
        host.configure(&format!(
            "PDS_ENTRYWAY_URL=http://localhost:1\nPDS_ENTRYWAY_DID=did:web:localhost%3A1\n\
             PDS_ENTRYWAY_JWT_VERIFY_KEY_K256_PUBLIC_KEY_HEX={}\nPDS_ENTRYWAY_PLC_ROTATION_KEY={}\n\
             PDS_DID_PLC_URL={}\nPDS_SERVICE_HANDLE_DOMAINS=.example.test\nOTHER=1\n",
            tokens.public().to_sec1_uncompressed_hex(),
            rotation.public().to_did_key(),
            directory.url(),
        ));
        Self { directory, host, tokens, rotation }
    }

    fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.host.address()))
    }

    async fn reserved(&self) -> String {
        let answer = self.client().procedure("com.atproto.server.reserveSigningKey", &json!({})).await;
        answer.ok().text("/signingKey")
    }

    fn data(&self, handle: &str, signing_key: &str) -> Data {
        let signing_key = signing_key.parse().unwrap();
        let rotation = vec![self.rotation.public().to_did_key()];
        Data::of_account(rotation, &signing_key, &handle.parse().unwrap(), &self.host.url())
    }

    async fn create(&self, did: &Did, handle: &str, op: &Operation) -> crate::Answer {
        let input = json!({ "did": did, "handle": handle, "plcOp": op });
        self.client().procedure("com.atproto.server.createAccount", &input).await
    }

    async fn account(&self, handle: &str) -> Did {
        let (did, op) = plc::genesis(self.data(handle, &self.reserved().await), &self.rotation);
        self.create(&did, handle, &op).await.ok();
        did
    }

    fn claims(&self, did: &Did) -> AccessClaims {
        let exp = self.host.pds.now() + 60;
        let jti = "one".to_owned();
        AccessClaims { scope: Scope::Access, sub: did.clone(), aud: self.host.did(), iat: exp, exp, jti }
    }

    async fn timeline(&self, token: &str) -> String {
        self.client().bearer(token).query("app.bsky.feed.getTimeline", &[]).await.summary()
    }
}

fn key(byte: u8) -> K256PrivateKey {
    K256PrivateKey::from_bytes(&[byte; 32]).unwrap()
}

#[tokio::test]
async fn an_account_is_made_by_a_valid_operation_only() {
    let harness = HostHarness::start().await;
    let signing_key = harness.reserved().await;
    let good = harness.data("alice.example.test", &signing_key);
    let made = |data: Data, by: &K256PrivateKey| plc::genesis(data, by);

    let cases: Vec<(&str, Data, K256PrivateKey, &str)> = vec![
        (
            "PLC DID does not include service rotation key",
            Data { rotation_keys: vec![key(9).public().to_did_key()], ..good.clone() },
            key(9),
            "alice.example.test",
        ),
        ("invalid plc operation", good.clone(), key(9), "alice.example.test"),
        (
            "reserved signing key does not exist",
            harness.data("alice.example.test", &key(8).public().to_did_key()),
            harness.rotation.clone(),
            "alice.example.test",
        ),
        (
            "provided handle does not match DID document handle",
            good.clone(),
            harness.rotation.clone(),
            "bob.example.test",
        ),
        (
            "DID document pds endpoint does not match service endpoint",
            {
                let mut data = good.clone();
                data.set_pds_endpoint("https://other.example");
                data
            },
            harness.rotation.clone(),
            "alice.example.test",
        ),
    ];
    for (message, data, by, handle) in cases {
        let (did, op) = made(data, &by);
        assert_eq!(harness.create(&did, handle, &op).await.message(), message);
    }
    let input = json!({ "handle": "alice.example.test", "email": "a@b.c", "password": "x" });
    let answer = harness.client().procedure("com.atproto.server.createAccount", &input).await;
    assert_eq!(answer.message(), "non-entryway pds requires bringing a DID and plcOp");
    assert_eq!(harness.directory.asked("submit"), 0);

    let (did, op) = made(good, &harness.rotation);
    let answer = harness.create(&did, "alice.example.test", &op).await.ok();
    assert_eq!(answer.text("/did"), did.as_str());
    assert!(harness.directory.data(&did).is_some());
    assert_eq!(
        harness.create(&did, "alice.example.test", &op).await.message(),
        "reserved signing key does not exist"
    );
}

#[tokio::test]
async fn a_lost_answer_leaves_an_account_and_a_dead_directory_none() {
    let harness = HostHarness::start().await;
    let (did, op) =
        plc::genesis(harness.data("alice.example.test", &harness.reserved().await), &harness.rotation);
    harness.directory.trouble_times("submit", Trouble::Status(503), 1);
    assert_eq!(harness.create(&did, "alice.example.test", &op).await.status, 500);
    assert!(harness.host.account(&did).is_none());

    harness.host.trouble_times("com.atproto.server.createAccount", Trouble::CutAfter, 1);
    let input = json!({ "did": did, "handle": "alice.example.test", "plcOp": op });
    let client = harness.client();
    let request = client.request(http::Method::POST, "/xrpc/com.atproto.server.createAccount");
    assert!(client.try_send(request.body(input.to_string()).unwrap()).await.is_err());
    assert!(harness.host.account(&did).is_some());
}

#[tokio::test]
async fn only_the_entryways_tokens_for_this_host_are_valid() {
    let harness = HostHarness::start().await;
    let did = harness.account("alice.example.test").await;
    let good = harness.claims(&did);
    assert_eq!(harness.timeline(&sign_access(&harness.tokens, &good)).await, "200");

    let late = AccessClaims { exp: 1, ..good.clone() };
    assert_eq!(harness.timeline(&sign_access(&harness.tokens, &late)).await, "400 ExpiredToken");
    let foreign = AccessClaims { aud: "did:web:other.example".to_owned(), ..good.clone() };
    assert_eq!(harness.timeline(&sign_access(&harness.tokens, &foreign)).await, "400 InvalidToken");
    assert_eq!(harness.timeline(&sign_access(&key(7), &good)).await, "400 InvalidToken");
    let taken_down = AccessClaims { scope: Scope::Takendown, ..good.clone() };
    assert_eq!(harness.timeline(&sign_access(&harness.tokens, &taken_down)).await, "400 InvalidToken");
    let refresh = RefreshClaims {
        scope: Scope::Refresh,
        sub: did.clone(),
        aud: harness.host.did(),
        iat: good.iat,
        exp: good.exp,
        jti: good.jti.clone(),
    };
    assert_eq!(harness.timeline(&sign_refresh(&harness.tokens, None, &refresh)).await, "400 InvalidToken");
    assert_eq!(harness.client().query("app.bsky.feed.getTimeline", &[]).await.summary(), "401 AuthMissing");

    harness.host.take_down(&did);
    assert_eq!(harness.timeline(&sign_access(&harness.tokens, &good)).await, "401 AccountTakedown");
    harness.host.lose(&did);
    assert_eq!(harness.timeline(&sign_access(&harness.tokens, &good)).await, "403 AccountNotFound");
}

#[tokio::test]
async fn records_and_blobs_read_back() {
    let harness = HostHarness::start().await;
    let did = harness.account("alice.example.test").await;
    let own = harness.client().bearer(&sign_access(&harness.tokens, &harness.claims(&did)));
    let input = json!({ "repo": did, "collection": "app.bsky.feed.post", "record": { "text": "hi" } });
    let uri = own.procedure("com.atproto.repo.createRecord", &input).await.ok().text("/uri");
    let rkey = uri.rsplit('/').next().unwrap();
    let parameters = [("repo", did.as_str()), ("collection", "app.bsky.feed.post"), ("rkey", rkey)];
    let record = harness.client().query("com.atproto.repo.getRecord", &parameters).await.ok();
    assert_eq!(record.text("/value/text"), "hi");

    let path = "/xrpc/com.atproto.repo.uploadBlob";
    let cid = own.post(path, "image/png", vec![7; 100_000]).await.ok().text("/blob/ref/$link");
    let parameters = [("did", did.as_str()), ("cid", &cid)];
    let blob = harness.client().query("com.atproto.sync.getBlob", &parameters).await.ok();
    assert_eq!((blob.header("content-type"), blob.body.len()), ("image/png", 100_000));

    harness.host.set_repo_size(&did, 200_000);
    let repo = harness.client().query("com.atproto.sync.getRepo", &[("did", did.as_str())]).await.ok();
    assert_eq!(repo.body.len(), 200_000);
}

#[tokio::test]
async fn administration_needs_the_password_and_a_document_that_agrees() {
    let harness = HostHarness::start().await;
    let did = harness.account("alice.example.test").await;
    let rename = json!({ "did": did, "handle": "bob.example.test" });
    let method = "com.atproto.admin.updateAccountHandle";
    assert_eq!(harness.client().procedure(method, &rename).await.status, 401);
    let admin = harness.client().with("authorization", &tokens::basic("admin", "hunter22"));
    assert_eq!(admin.procedure(method, &rename).await.message(), "Handle does not match DID doc");

    let last = harness.directory.operations(&did).pop().unwrap();
    let mut data = last.data().unwrap();
    data.set_handle(&"bob.example.test".parse().unwrap());
    harness.directory.submit(&did, &plc::update(&last.cid(), data, &harness.rotation)).unwrap();
    admin.procedure(method, &rename).await.ok();
    assert_eq!(harness.host.account(&did).unwrap().handle, "bob.example.test");

    let info = admin.query("com.atproto.admin.getAccountInfo", &[("did", did.as_str())]).await.ok();
    assert_eq!(info.json()["email"], Value::Null);
    let status = json!({
        "subject": { "$type": "com.atproto.admin.defs#repoRef", "did": did }, "deactivated": { "applied": true },
    });
    admin.procedure("com.atproto.admin.updateSubjectStatus", &status).await.ok();
    let read = [("did", did.as_str())];
    assert_eq!(
        harness.client().query("com.atproto.sync.getRepo", &read).await.summary(),
        "400 RepoDeactivated"
    );
    for _ in 0..2 {
        admin.procedure("com.atproto.admin.deleteAccount", &json!({ "did": did })).await.ok();
    }
    assert!(harness.host.account(&did).is_none());
}

#[tokio::test]
async fn it_acts_for_accounts_and_passes_unknown_methods_on() {
    let harness = HostHarness::start().await;
    let did = harness.account("alice.example.test").await;
    let own = harness.client().bearer(&sign_access(&harness.tokens, &harness.claims(&did)));
    // The entryway of this test cannot be reached.
    assert_eq!(own.query("com.atproto.server.getSession", &[]).await.summary(), "502 InternalServerError");

    let protected = [("aud", "did:web:x.example"), ("lxm", "com.atproto.server.getSession")];
    assert_eq!(own.query("com.atproto.server.getServiceAuth", &protected).await.status, 400);
    let token = own.query("com.atproto.server.getServiceAuth", &protected[..1]).await.ok().text("/token");
    let token = genkan_protocol::service_auth::parse(&token).unwrap();
    let key = harness.host.account_key(&did).unwrap().public();
    token.verify(&key, "did:web:x.example", None, harness.host.pds.now()).unwrap();
    assert_eq!(token.issuer(), &did);
}
