//! The calls of an app for a linked account, through the real program and a PDS that checks every
//! proof. `C…` are lines of the checklist in `docs/contract.md`.

use std::time::Duration;

use genkan_testing::host::pattern;
use genkan_testing::network::{App, eventually};
use genkan_testing::{Answer, FakePds, Plan, TestNetwork};
use http::Method;

use crate::store::on_each_database;

on_each_database!(
    each_method_goes_where_the_routing_table_says,
    a_nonce_in_every_answer_costs_one_challenge,
    a_large_upload_is_sent_once_even_if_the_nonce_changes,
    a_gigabyte_is_uploaded_in_little_memory,
    a_token_that_is_not_taken_any_more_is_renewed,
);

const SCOPE: &str = "atproto transition:generic account:repo?action=manage";

/// Zoe, who has an account at an external PDS, has signed in to an app.
async fn zoe(net: &TestNetwork, pds: &FakePds) -> (String, App) {
    let did = pds.make_account(net.directory(), "zoe.external.com").to_string();
    let mut app = App::at(net.visitor(), &net.origin(), SCOPE);
    app.sign_in_external(&did).await;
    (did, app)
}

async fn ask(net: &TestNetwork, app: &App, method: Method, path: &str, body: &'static str) -> Answer {
    app.ask(&net.visitor(), &net.origin(), method, path, body).await
}

/// C1, C15
async fn each_method_goes_where_the_routing_table_says(plan: Plan) {
    let pds = FakePds::start().await;
    let net = plan.listing(&pds.url()).await;
    let (did, app) = zoe(&net, &pds).await;
    let procedures = "repo.applyWrites repo.createRecord repo.putRecord repo.deleteRecord repo.uploadBlob repo.importRepo \
        sync.requestCrawl sync.notifyOfUpdate";
    let queries = "repo.listMissingBlobs sync.listRepos sync.listReposByCollection sync.listHosts sync.getHostStatus \
        server.getServiceAuth";
    let reads = "repo.getRecord repo.listRecords repo.describeRepo sync.getRepo sync.getRecord sync.getBlob sync.listBlobs \
        sync.getLatestCommit sync.getRepoStatus sync.getBlocks sync.getHead sync.getCheckout";
    let mut seen = 0;
    for (names, method) in [(procedures, Method::POST), (queries, Method::GET)] {
        for name in names.split_whitespace() {
            let nsid = format!("com.atproto.{name}");
            let body = if method == Method::POST { "{}" } else { "" };
            let path = format!("/xrpc/{nsid}?aud=did:web:x.example&x=%2F");
            let answer = ask(&net, &app, method.clone(), &path, body).await.ok();
            assert_eq!(answer.json()["did"], did.as_str(), "{nsid}");
            assert_eq!(answer.header("cache-control"), "private, no-store", "{nsid}");
            let sent = pds.last(&nsid).unwrap();
            assert_eq!(sent.query, "aud=did:web:x.example&x=%2F");
            let token = sent.header("authorization").strip_prefix("DPoP ").unwrap().to_owned();
            assert!(!token.contains('.') && token != app.access, "an opaque token, and not the app's");
            seen += 1;
        }
    }
    for name in reads.split_whitespace() {
        let (nsid, parameter) =
            (format!("com.atproto.{name}"), if name.starts_with("repo") { "repo" } else { "did" });
        let answer = ask(&net, &app, Method::GET, &format!("/xrpc/{nsid}?{parameter}={did}"), "").await.ok();
        assert!(answer.json()["did"].is_null(), "{nsid} is read without credentials");
        let sent = pds.last(&nsid).unwrap();
        assert_eq!((sent.header("authorization"), sent.header("dpop")), ("", ""));
        seen += 1;
    }
    let stream = ask(&net, &app, Method::GET, "/xrpc/com.atproto.sync.subscribeRepos", "").await;
    assert_eq!((stream.summary().as_str(), seen + 1), ("501 MethodNotImplemented", 27), "none is lost");
}

/// C6
async fn a_nonce_in_every_answer_costs_one_challenge(plan: Plan) {
    let pds = FakePds::start().await;
    let net = plan.listing(&pds.url()).await;
    let (_, app) = zoe(&net, &pds).await;
    pds.set(|quirks| quirks.nonce_each = true);
    let create = "/xrpc/com.atproto.repo.createRecord";
    ask(&net, &app, Method::POST, create, "{}").await.ok();
    let before = pds.asked("com.atproto.repo.createRecord");
    for _ in 0..20 {
        ask(&net, &app, Method::POST, create, "{}").await.ok();
    }
    assert_eq!(pds.asked("com.atproto.repo.createRecord") - before, 20);
    pds.set(|quirks| quirks.nonce_never_good = true);
    let before = pds.asked("com.atproto.repo.createRecord");
    let never = ask(&net, &app, Method::POST, create, "{}").await;
    assert_eq!(never.summary(), "502 UpstreamAuthUnavailable");
    assert_eq!(pds.asked("com.atproto.repo.createRecord") - before, 2);
    pds.set(|quirks| quirks.nonce_never_good = false);
    ask(&net, &app, Method::POST, create, "{}").await.ok();
}

/// Sends a body that nobody keeps.
async fn stream(net: &TestNetwork, app: &App, nsid: &str, size: u64) -> Answer {
    let path = format!("/xrpc/{nsid}");
    let proof = app.proof("POST", &format!("{}{path}", net.origin()), Some(&app.access));
    let request = net
        .visitor()
        .request(Method::POST, &path)
        .header("authorization", format!("DPoP {}", app.access))
        .header("dpop", proof)
        .header("content-type", "application/vnd.ipld.car")
        .header("content-length", size.to_string());
    net.visitor().send(request.body(pattern(size)).unwrap()).await
}

/// C7
async fn a_large_upload_is_sent_once_even_if_the_nonce_changes(plan: Plan) {
    const SIZE: u64 = 100 << 20;
    let pds = FakePds::start().await;
    let net = plan.listing(&pds.url()).await;
    let (_, app) = zoe(&net, &pds).await;
    ask(&net, &app, Method::GET, "/xrpc/com.atproto.sync.listRepos", "").await.ok();
    // Genkan knows no good nonce, so a small question goes first. A nonce that changes while the
    // body is on the way counts for the next call.
    pds.change_nonces();
    tokio::time::sleep(NONCE_IS_STALE).await;
    for round in 0..3 {
        let before = pds.asked("com.atproto.repo.uploadBlob");
        let accepted = pds.accepted("com.atproto.repo.uploadBlob");
        let changing = async {
            eventually("the proof is accepted", async || {
                pds.accepted("com.atproto.repo.uploadBlob") > accepted
            })
            .await;
            pds.change_nonces();
        };
        let (answer, ()) = tokio::join!(stream(&net, &app, "com.atproto.repo.uploadBlob", SIZE), changing);
        assert_eq!(answer.status, 200, "{round}: {}", answer.transcript());
        assert_eq!(answer.json()["length"], SIZE);
        assert_eq!(pds.asked("com.atproto.repo.uploadBlob") - before, 1, "{round}");
        tokio::time::sleep(NONCE_IS_STALE).await;
    }
}

/// After this long Genkan asks for a fresh nonce before it sends a large body. Waiting longer does
/// no harm, so that this may be a fixed time.
const NONCE_IS_STALE: Duration = Duration::from_millis(1_100);

/// C5
async fn a_gigabyte_is_uploaded_in_little_memory(plan: Plan) {
    const SIZE: u64 = 1 << 30;
    let pds = FakePds::start().await;
    let net = plan.listing(&pds.url()).await;
    let (_, app) = zoe(&net, &pds).await;
    ask(&net, &app, Method::GET, "/xrpc/com.atproto.sync.listRepos", "").await.ok();
    stream(&net, &app, "com.atproto.repo.importRepo", 2 << 20).await.ok();
    let before = net.genkan().resident_bytes();
    let answer = stream(&net, &app, "com.atproto.repo.importRepo", SIZE).await.ok();
    assert_eq!(answer.json()["length"], SIZE);
    assert_eq!(answer.json()["headers"]["content-length"], SIZE.to_string());
    let grown = net.genkan().resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "resident memory grew by {grown} bytes");
}

async fn a_token_that_is_not_taken_any_more_is_renewed(plan: Plan) {
    let pds = FakePds::start().await;
    let net = plan.listing(&pds.url()).await;
    let (_, app) = zoe(&net, &pds).await;
    let create = "/xrpc/com.atproto.repo.createRecord";
    ask(&net, &app, Method::POST, create, "{\"a\":1}").await.ok();
    pds.forget_access_tokens();
    let answer = ask(&net, &app, Method::POST, create, "{\"b\":22}").await.ok();
    assert_eq!(answer.json()["length"], 8, "the same body again");
    let sessions = pds.sessions();
    assert_eq!((sessions.len(), sessions[0].refreshes, sessions[0].ended), (1, 1, None));
}
