//! Genkan as the one PDS that people see.

use genkan_testing::host::pattern;
use genkan_testing::{Plan, Trouble};
use serde_json::json;

use crate::store::on_each_database;

on_each_database!(
    calls_go_home_with_the_callers_token,
    reads_go_to_the_home_of_whom_they_name,
    what_a_host_answers_comes_back_as_it_is,
    a_host_that_lost_the_account_makes_clients_refresh,
    blobs_and_repositories_stream_both_ways,
    methods_that_genkan_does_not_have_are_refused_by_name,
);

async fn calls_go_home_with_the_callers_token(plan: Plan) {
    let net = plan.hosts(2).await;
    for name in ["alice", "bobby", "carol"] {
        let user = net.sign_up(name).await;
        let home = net.home_of(&user.did);
        let client = net
            .client_of(&user)
            .with("atproto-proxy", "did:web:view.example.com#app")
            .with("atproto-accept-labelers", "did:web:labels.example")
            .with("accept-language", "ja")
            .with("x-bsky-topics", "cats")
            .with("x-atproto-test", "kept")
            .with("cookie", "secret=1")
            .with("x-ratelimit-bypass", "please")
            .with("connection", "x-hop")
            .with("x-hop", "by hop");
        let answer =
            client.query("app.bsky.feed.getTimeline", &[("limit", "3"), ("cursor", "a b&c")]).await.ok();
        let seen = answer.json();
        assert_eq!((&seen["host"], &seen["did"]), (&json!(home.did()), &json!(user.did)));
        assert_eq!(seen["query"], "limit=3&cursor=a+b%26c");
        let headers = &seen["headers"];
        assert_eq!(headers["authorization"], format!("Bearer {}", user.access));
        assert_eq!(headers["atproto-proxy"], "did:web:view.example.com#app");
        assert_eq!(headers["atproto-accept-labelers"], "did:web:labels.example");
        assert_eq!(headers["accept-language"], "ja");
        assert_eq!(headers["x-atproto-test"], "kept");
        for gone in ["cookie", "x-ratelimit-bypass", "x-hop", "dpop"] {
            assert!(headers.get(gone).is_none(), "{gone}");
        }
        let posted =
            client.procedure("chat.bsky.convo.sendMessage", &json!({ "text": "hi" })).await.ok().json();
        assert_eq!((&posted["method"], &posted["body"]), (&json!("POST"), &json!("{\"text\":\"hi\"}")));
    }
}

async fn reads_go_to_the_home_of_whom_they_name(plan: Plan) {
    let net = plan.hosts(2).await;
    let alice = net.sign_up("alice").await;
    let mut bob = net.sign_up("bobby").await;
    for name in ["carol", "daves", "erins", "frank", "grace", "heidi"] {
        if net.home_of(&bob.did).did() != net.home_of(&alice.did).did() {
            break;
        }
        bob = net.sign_up(name).await;
    }
    let own = net.client_of(&alice);
    let post = json!({ "repo": alice.did, "collection": "app.bsky.feed.post", "rkey": "one", "record": { "text": "hi" } });
    own.procedure("com.atproto.repo.putRecord", &post).await.ok();

    // By anybody: nobody, somebody of another host, somebody with a token that is no longer good.
    let stale = net.visitor().bearer("not.a.token");
    for reader in [net.visitor(), net.client_of(&bob), stale] {
        for repo in [alice.did.as_str(), &alice.handle] {
            let parameters = [("repo", repo), ("collection", "app.bsky.feed.post"), ("rkey", "one")];
            let record = reader.query("com.atproto.repo.getRecord", &parameters).await.ok();
            assert_eq!(record.text("/value/text"), "hi");
            let seen = net.home_of(&alice.did).last("com.atproto.repo.getRecord").unwrap();
            for credential in ["authorization", "cookie", "dpop"] {
                assert_eq!(seen.header(credential), "", "{credential}");
            }
        }
    }
    let read = [("did", alice.did.as_str())];
    for nsid in
        ["com.atproto.sync.getRepo", "com.atproto.sync.getLatestCommit", "com.atproto.sync.getRepoStatus"]
    {
        net.visitor().query(nsid, &read).await.ok();
        let crooked = nsid.replace("com.", "COM.").replace("sync", "Sync");
        // The name goes on as it came, by the same way and as bare of credentials.
        net.client_of(&bob).query(&crooked, &read).await;
        let seen = net.home_of(&alice.did).last(&crooked).unwrap();
        assert_eq!(seen.header("authorization"), "", "{crooked}");
    }
    for (nsid, parameters, expected) in [
        (
            "com.atproto.repo.getRecord",
            vec![("repo", "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"), ("collection", "a.b.c"), ("rkey", "x")],
            "502 DidResolutionFailed",
        ),
        ("com.atproto.repo.describeRepo", vec![("repo", "nobody.genkan.test")], "400 RepoNotFound"),
        (
            "com.atproto.sync.getRepo",
            vec![("did", "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")],
            "502 DidResolutionFailed",
        ),
        ("com.atproto.sync.getRepo", vec![("did", "did:web:other.example")], "502 DidResolutionFailed"),
        ("com.atproto.sync.getRepo", vec![], "400 InvalidRequest"),
        ("com.atproto.sync.getRepo", vec![("did", "")], "400 InvalidRequest"),
        ("com.atproto.sync.getRepo", vec![("did", "alice.genkan.test")], "400 InvalidRequest"),
        (
            "com.atproto.sync.getRepo",
            vec![("did", alice.did.as_str()), ("did", alice.did.as_str())],
            "400 InvalidRequest",
        ),
        ("com.atproto.repo.describeRepo", vec![("repo", "not a handle")], "400 InvalidRequest"),
    ] {
        for host in net.hosts() {
            host.forget();
        }
        let answer = net.visitor().query(nsid, &parameters).await;
        assert_eq!(answer.summary(), expected, "{nsid} {parameters:?}");
        assert!(net.hosts().iter().all(|host| host.asked(nsid) == 0), "{nsid} {parameters:?}");
    }
}

async fn what_a_host_answers_comes_back_as_it_is(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let nsid = "app.bsky.feed.getTimeline";
    for status in [400, 403, 404, 429, 500, 502, 503] {
        net.host(0).trouble_times(nsid, Trouble::Refusal(status, "OfTheHost"), 1);
        let answer = net.client_of(&alice).query(nsid, &[]).await;
        assert_eq!(
            answer.transcript(),
            format!("{status} {{\"error\":\"OfTheHost\",\"message\":\"as the test asked\"}}")
        );
        assert_eq!(answer.header("x-genkan-error"), "", "{status}");
    }
}

async fn a_host_that_lost_the_account_makes_clients_refresh(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    net.host(0).lose(&alice.did);
    let own = net.client_of(&alice);
    assert_eq!(own.query("app.bsky.feed.getTimeline", &[]).await.summary(), "400 ExpiredToken");
    let post = json!({ "repo": alice.did, "collection": "app.bsky.feed.post", "record": {} });
    assert_eq!(own.procedure("com.atproto.repo.createRecord", &post).await.summary(), "400 ExpiredToken");
    // Another 403 of the same name in a public read is passed on as it is.
    net.host(0).trouble("com.atproto.sync.getRepo", Trouble::Refusal(403, "AccountNotFound"));
    let read = [("did", alice.did.as_str())];
    assert_eq!(net.visitor().query("com.atproto.sync.getRepo", &read).await.summary(), "403 AccountNotFound");
}

async fn blobs_and_repositories_stream_both_ways(plan: Plan) {
    const SIZE: u64 = 32 * 1024 * 1024;
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let own = net.client_of(&alice);
    // Warm up whatever is made once.
    net.host(0).put_blob(&alice.did, 1000);
    let small = [("did", alice.did.as_str()), ("cid", "pattern-1000")];
    net.visitor().query("com.atproto.sync.getBlob", &small).await.ok();
    let before = net.genkan().resident_bytes();

    let cid = net.host(0).put_blob(&alice.did, SIZE);
    let blob = net
        .visitor()
        .query("com.atproto.sync.getBlob", &[("did", alice.did.as_str()), ("cid", &cid)])
        .await
        .ok();
    assert_eq!((blob.body.len() as u64, blob.header("content-length")), (SIZE, "33554432"));
    assert!(
        blob.body.iter().take(200_000).enumerate().all(|(at, byte)| usize::from(*byte) == at % 65536 % 251)
    );
    assert_ne!(blob.header("content-security-policy"), "");
    drop(blob);
    net.host(0).set_repo_size(&alice.did, SIZE);
    let repo = net.visitor().query("com.atproto.sync.getRepo", &[("did", alice.did.as_str())]).await.ok();
    assert_eq!((repo.body.len() as u64, repo.header("content-type")), (SIZE, "application/vnd.ipld.car"));
    drop(repo);

    let request = own.request(http::Method::POST, "/xrpc/com.atproto.repo.uploadBlob");
    let request = request.header("content-type", "video/mp4").header("content-length", SIZE.to_string());
    let uploaded = own.send(request.body(pattern(SIZE)).unwrap()).await.ok();
    assert_eq!(uploaded.json()["blob"]["size"], SIZE);
    let request = own.request(http::Method::POST, "/xrpc/com.atproto.repo.importRepo");
    let request = request.header("content-type", "application/vnd.ipld.car");
    own.send(request.body(pattern(SIZE)).unwrap()).await.ok();

    let grown = net.genkan().resident_bytes().saturating_sub(before);
    assert!(grown < 8 * 1024 * 1024, "resident memory grew by {grown} bytes");
}

async fn methods_that_genkan_does_not_have_are_refused_by_name(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let own = net.client_of(&alice);
    net.host(0).forget();
    for nsid in ["com.atproto.server.reserveSigningKey", "com.atproto.admin.searchAccounts"] {
        for client in [net.visitor(), own.clone()] {
            let answer = client.procedure(nsid, &json!({})).await;
            assert_eq!(answer.summary(), "501 MethodNotImplemented", "{nsid}");
            assert!(answer.message().len() > 10);
        }
        assert_eq!(net.host(0).asked(nsid), 0);
    }
    let subscription = net.visitor().query("com.atproto.sync.subscribeRepos", &[]).await;
    assert_eq!(subscription.summary(), "501 MethodNotImplemented");
}
