//! Apps that send their requests to Genkan's own origin instead of the host (rows 61 to 64 of the
//! table of bad input).

use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::jwt;
use genkan_testing::network::{App, claims_of, within};
use genkan_testing::{Answer, Client, Plan, TestNetwork, User};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

use crate::store::on_each_database;

on_each_database!(
    a_request_is_signed_again_with_the_same_scope,
    what_the_scope_does_not_allow_is_refused_here_and_at_the_host,
    local_methods_ask_for_the_same_permissions,
    bad_tokens_and_proofs_are_refused,
    a_revoked_grant_stops_at_once,
    a_host_with_its_own_nonces_still_gets_the_upload,
    an_account_that_left_makes_the_app_refresh,
);

mod replicas {
    use super::two_replicas_take_a_proof_once_and_hear_of_the_end;

    crate::store::on_postgres!(two_replicas_take_a_proof_once_and_hear_of_the_end);
}

const TIMELINE: &str = "/xrpc/app.bsky.feed.getTimeline?limit=3";
const SESSION: &str = "/xrpc/com.atproto.server.getSession";
const CREATE: &str = "/xrpc/com.atproto.repo.createRecord";

async fn get(net: &TestNetwork, app: &App, path: &str) -> Answer {
    app.ask(&net.visitor(), &net.origin(), Method::GET, path, "").await
}

async fn post(net: &TestNetwork, app: &App, path: &str, body: &Value) -> Answer {
    app.ask(&net.visitor(), &net.origin(), Method::POST, path, body.to_string()).await
}

fn post_of(user: &User, collection: &str) -> Value {
    json!({ "repo": user.did, "collection": collection, "record": { "$type": collection, "text": "hi" } })
}

async fn a_request_is_signed_again_with_the_same_scope(plan: Plan) {
    let net = plan.hosts(2).await;
    let alice = net.sign_up("alice").await;
    let app = net.authorize(&alice, "atproto transition:generic").await;
    let home = net.home_of(&alice.did);
    let answer = get(&net, &app, TIMELINE).await.ok();
    assert_eq!(answer.json()["host"], json!(home.did()));
    assert_eq!(answer.json()["scope"], "atproto transition:generic");
    assert_ne!(answer.header("dpop-nonce"), "");
    assert!(answer.header("access-control-expose-headers").contains("dpop-nonce"));
    let seen = home.journal().into_iter().rfind(|seen| seen.name == "app.bsky.feed.getTimeline").unwrap();
    let sent = seen.header("authorization").strip_prefix("DPoP ").unwrap().to_owned();
    assert_ne!(sent, app.access);
    let (ours, theirs) = (claims_of(&sent), claims_of(&app.access));
    for same in ["iss", "aud", "sub", "scope", "client_id"] {
        assert_eq!(ours[same], theirs[same], "{same}");
    }
    assert!(ours["exp"].as_i64() <= theirs["exp"].as_i64());
    assert_ne!(ours["cnf"], theirs["cnf"], "bound to our own key");
    let refused = home.asked("app.bsky.feed.getTimeline");
    assert_eq!(refused, 1, "the first try had the nonce that both compute");
    // The proof and the token are nobody else's to use.
    let stolen =
        Client::new(&format!("http://{}", home.address())).with("authorization", &format!("DPoP {sent}"));
    assert_eq!(stolen.get(TIMELINE).await.summary(), "401 invalid_dpop_proof");
    let replayed = stolen.with("dpop", seen.header("dpop")).get(TIMELINE).await;
    assert_eq!(replayed.summary(), "401 invalid_dpop_proof");
    // The host's own nonce is no business of the client.
    let again = get(&net, &app, TIMELINE).await.ok();
    assert_eq!(again.headers.get_all("dpop-nonce").iter().count(), 1);
    // A repository of one's own, and of another, where the token is ignored.
    let own = format!("/xrpc/com.atproto.sync.getRepoStatus?did={}", alice.did);
    get(&net, &app, &own).await.ok();
    let seen = home.journal().into_iter().rfind(|seen| seen.name.ends_with("getRepoStatus")).unwrap();
    assert!(seen.header("authorization").starts_with("DPoP "));
    get(&net, &app, &format!("/xrpc/com.atproto.repo.describeRepo?repo={}", alice.did)).await.ok();
    let seen = home.journal().into_iter().rfind(|seen| seen.name.ends_with("describeRepo")).unwrap();
    assert_eq!(seen.header("authorization"), "");
}

async fn what_the_scope_does_not_allow_is_refused_here_and_at_the_host(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let app = net.authorize(&alice, "atproto repo:app.bsky.feed.post?action=create").await;
    let host = net.home_of(&alice.did);
    let at_host = Client::new(&format!("http://{}", host.address()));
    let (allowed, forbidden) = (post_of(&alice, "app.bsky.feed.post"), post_of(&alice, "app.bsky.feed.like"));
    let direct =
        async |body: &Value| app.ask(&at_host, &host.url(), Method::POST, CREATE, body.to_string()).await;
    post(&net, &app, CREATE, &allowed).await.ok();
    direct(&allowed).await.ok();
    for answer in [post(&net, &app, CREATE, &forbidden).await, direct(&forbidden).await] {
        assert_eq!(answer.summary(), "403 ScopeMissingError", "{}", answer.transcript());
        assert_eq!(answer.message(), "Missing required scope \"repo:app.bsky.feed.like?action=create\"");
    }
    let update = json!({ "handle": "other.genkan.test" });
    let path = "/xrpc/com.atproto.identity.updateHandle";
    let at = app.ask(&at_host, &host.url(), Method::POST, path, update.to_string()).await;
    for answer in [post(&net, &app, path, &update).await, at] {
        assert_eq!(answer.summary(), "403 ScopeMissingError", "{}", answer.transcript());
        assert_eq!(answer.message(), "Missing required scope \"identity:handle\"");
    }
}

async fn local_methods_ask_for_the_same_permissions(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let narrow = net.authorize(&alice, "atproto").await;
    let session = get(&net, &narrow, SESSION).await.ok();
    assert_eq!(session.text("/did"), alice.did.to_string());
    for hidden in ["email", "emailConfirmed", "emailAuthFactor"] {
        assert!(session.json().get(hidden).is_none(), "{hidden}");
    }
    let wide = net.authorize(&alice, "atproto transition:email identity:handle").await;
    assert_eq!(get(&net, &wide, SESSION).await.ok().text("/email"), alice.email);
    let renamed = json!({ "handle": "alison.genkan.test" });
    post(&net, &wide, "/xrpc/com.atproto.identity.updateHandle", &renamed).await.ok();
    assert_eq!(get(&net, &narrow, SESSION).await.ok().text("/handle"), "alison.genkan.test");
    for (method, body) in [
        ("createAppPassword", json!({ "name": "x" })),
        ("requestAccountDelete", json!({})),
        ("activateAccount", json!({})),
        ("updateEmail", json!({ "email": "a@b.example" })),
    ] {
        let answer = post(&net, &wide, &format!("/xrpc/com.atproto.server.{method}"), &body).await;
        assert_eq!(answer.summary(), "403 Forbidden", "{method} {}", answer.transcript());
    }
    let codes = get(&net, &wide, "/xrpc/com.atproto.server.getAccountInviteCodes").await;
    assert_eq!(codes.summary(), "403 Forbidden");
}

async fn bad_tokens_and_proofs_are_refused(plan: Plan) {
    let net = plan.hosts(2).await;
    let alice = net.sign_up("alice").await;
    let mut app = net.authorize(&alice, "atproto transition:generic").await;
    let (origin, visitor) = (net.origin(), net.visitor());
    let good = app.access.clone();
    for path in [TIMELINE, SESSION] {
        get(&net, &app, path).await.ok();
        let url = format!("{origin}{path}");
        // 61: its owner, but without the key.
        let bearer = visitor.clone().bearer(&good);
        assert_eq!(bearer.get(path).await.summary(), "400 InvalidToken", "61 {path}");
        let both = bearer.with("dpop", &app.proof("GET", &url, Some(&good)));
        assert_eq!(both.get(path).await.summary(), "400 InvalidToken", "61 {path}");

        let key = net.key_of(net.home_of(&alice.did));
        let other = net.hosts().iter().find(|host| host.account(&alice.did).is_none()).unwrap();
        let claims = claims_of(&good);
        let header = json!({ "typ": "at+jwt", "alg": "ES256K" });
        let with = |name: &str, value: &str| {
            let mut header = header.clone();
            header[name] = json!(value);
            header
        };
        let mut for_other = claims.clone();
        for_other["aud"] = json!(other.did());
        let unknown = K256PrivateKey::from_bytes(&[9; 32]).unwrap();
        for (case, token) in [
            ("62 of another key", jwt::sign_with_header(&unknown, &header, &claims)),
            ("62 alg", jwt::sign_with_header(key, &with("alg", "ES256"), &claims)),
            ("62 kid", jwt::sign_with_header(key, &with("kid", "x"), &claims)),
            ("62 a session's", alice.access.clone()),
            ("63 of another host", jwt::sign_with_header(net.key_of(other), &header, &for_other)),
            ("64 of a page", "ephemeral-sign-in-token".to_owned()),
        ] {
            app.access = token;
            let answer = get(&net, &app, path).await;
            assert_eq!(answer.summary(), "401 invalid_token", "{case} {path} {}", answer.transcript());
            let challenge = answer.header("www-authenticate");
            assert!(
                challenge.starts_with("DPoP ") && challenge.contains("error=\"invalid_token\""),
                "{challenge}"
            );
            assert_ne!(answer.header("dpop-nonce"), "", "{case}");
        }
        app.access.clone_from(&good);
        let thief = net.authorize(&alice, "atproto transition:generic").await;
        get(&net, &thief, path).await.ok();
        let proof = thief.proof("GET", &url, Some(&good));
        let answer = app.ask_with(&visitor, &proof, Method::GET, path, "").await;
        assert_eq!(answer.summary(), "401 invalid_token", "another key {path}");
        for (case, proof) in [
            ("another method", app.proof("POST", &url, Some(&good))),
            ("another path", app.proof("GET", &format!("{origin}/xrpc/a.b.c"), Some(&good))),
            ("the host's URL", app.proof("GET", &format!("{}{path}", net.host(0).url()), Some(&good))),
            ("no ath", app.proof("GET", &url, None)),
            ("nonsense", "nonsense".to_owned()),
        ] {
            let answer = app.ask_with(&visitor, &proof, Method::GET, path, "").await;
            assert_eq!(answer.summary(), "401 invalid_dpop_proof", "{case} {path}");
        }
        let proof = app.proof("GET", &url, Some(&good));
        app.ask_with(&visitor, &proof, Method::GET, path, "").await.ok();
        let replayed = app.ask_with(&visitor, &proof, Method::GET, path, "").await;
        assert_eq!(replayed.summary(), "401 invalid_dpop_proof", "replayed {path}");
        let bare = visitor.clone().with("authorization", &format!("DPoP {good}")).get(path).await;
        assert_eq!(bare.summary(), "401 invalid_dpop_proof", "no proof {path}");
    }
}

async fn a_revoked_grant_stops_at_once(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let mut app = net.authorize(&alice, "atproto transition:generic").await;
    get(&net, &app, TIMELINE).await.ok();
    app.refresh().await.ok();
    get(&net, &app, TIMELINE).await.ok();
    let before = net.host(0).asked("app.bsky.feed.getTimeline");
    app.revoke().await.ok();
    for path in [TIMELINE, SESSION] {
        assert_eq!(get(&net, &app, path).await.summary(), "401 invalid_token", "{path}");
    }
    assert_eq!(net.host(0).asked("app.bsky.feed.getTimeline"), before);
    assert_eq!(app.refresh().await.summary(), "400 invalid_grant");
}

async fn a_host_with_its_own_nonces_still_gets_the_upload(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let app = net.authorize(&alice, "atproto transition:generic").await;
    get(&net, &app, SESSION).await.ok();
    let upload = async |size: usize| {
        let bytes = vec![b'x'; size];
        app.ask(&net.visitor(), &net.origin(), Method::POST, "/xrpc/com.atproto.repo.uploadBlob", bytes).await
    };
    let asked = || net.host(0).asked("com.atproto.repo.uploadBlob");
    upload(500_000).await.ok();
    assert_eq!(asked(), 1, "its nonce was computed");
    net.host(0).configure(&format!("PDS_DPOP_SECRET={}", "ab".repeat(32)));
    let blob = upload(500_000).await.ok();
    assert_eq!((blob.json()["blob"]["size"].as_u64(), asked()), (Some(500_000), 3), "asked again");
    upload(500_000).await.ok();
    assert_eq!(asked(), 4, "its nonce is known now");
    net.host(0).configure(&format!("PDS_DPOP_SECRET={}", "cd".repeat(32)));
    let answer = upload(3_000_000).await;
    assert_eq!(answer.summary(), "503 UpstreamNotReady", "{}", answer.transcript());
    upload(3_000_000).await.ok();
}

async fn an_account_that_left_makes_the_app_refresh(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let app = net.authorize(&alice, "atproto transition:generic").await;
    get(&net, &app, TIMELINE).await.ok();
    net.host(0).lose(&alice.did);
    assert_eq!(get(&net, &app, TIMELINE).await.summary(), "401 invalid_token");
}

async fn two_replicas_take_a_proof_once_and_hear_of_the_end(plan: Plan) {
    let net = plan.await;
    let second = net.another_genkan().await;
    let alice = net.sign_up("alice").await;
    let app = net.authorize(&alice, "atproto transition:generic").await;
    get(&net, &app, TIMELINE).await.ok();
    let proof = app.proof("GET", &format!("{}{TIMELINE}", net.origin()), Some(&app.access));
    app.ask_with(&second.client(), &proof, Method::GET, TIMELINE, "").await.ok();
    let replayed = app.ask_with(&net.visitor(), &proof, Method::GET, TIMELINE, "").await;
    assert_eq!(replayed.summary(), "401 invalid_dpop_proof");
    app.revoke().await.ok();
    assert_eq!(get(&net, &app, TIMELINE).await.summary(), "401 invalid_token");
    // The token itself is good for minutes; what ends it is the feed of changes.
    within(Duration::from_secs(5), "6.B.18: the other one refuses", async || {
        let answer = app.ask(&second.client(), &net.origin(), Method::GET, TIMELINE, "").await;
        answer.summary() == "401 invalid_token"
    })
    .await;
}
