//! Sessions of clients that call Genkan.

use std::time::Duration;

use genkan_protocol::plc;
use genkan_testing::network::{claims_of, within};
use genkan_testing::{Plan, Trouble, User};
use serde_json::{Value, json};

use crate::store::on_each_database;

on_each_database!(
    one_signs_in_by_handle_address_or_did,
    a_wrong_password_and_an_unknown_account_look_alike,
    every_session_answer_says_where_home_is,
    no_session_answer_needs_the_directory,
    an_operation_through_the_plc_proxy_is_in_the_next_answer,
    a_used_refresh_token_has_one_successor,
    after_the_grace_only_the_used_token_ends,
    ten_at_once_get_one_successor,
    a_sign_out_ends_all_of_the_session,
    a_sign_out_beats_a_refresh_at_once,
    app_passwords_open_lesser_sessions,
    sessions_outlive_a_kill,
);

const GET: &str = "com.atproto.server.getSession";

async fn one_signs_in_by_handle_address_or_did(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    for identifier in [
        "alice.genkan.test",
        "Alice.Genkan.Test",
        "alice@mail.example",
        "ALICE@mail.example",
        alice.did.as_str(),
    ] {
        let answer = net.sign_in(identifier, &alice.password).await.ok();
        assert_eq!(answer.text("/did"), alice.did.as_str(), "{identifier}");
        let session = net.client_of(&alice.with_session(&answer)).query(GET, &[]).await.ok();
        assert_eq!(session.text("/handle"), alice.handle);
    }
}

/// The copies outlive a restart, and so does the handle's change.
async fn no_session_answer_needs_the_directory(plan: Plan) {
    let mut net = plan.await;
    let mut users = Vec::new();
    for index in 0..5 {
        users.push(net.sign_up(&format!("user-{index}")).await);
    }
    let input = json!({ "handle": "renamed.genkan.test" });
    net.client_of(&users[0]).procedure("com.atproto.identity.updateHandle", &input).await.ok();
    "renamed.genkan.test".clone_into(&mut users[0].handle);
    net.client_of(&users[0]).query(GET, &[]).await.ok();
    net.restart().await;
    net.directory().trouble("*", Trouble::Status(503));
    let before = net.directory().journal().len();
    for user in &users {
        let refreshed = net.refresh(&user.refresh).await.ok();
        let session = user.with_session(&refreshed);
        let answers = [
            refreshed,
            net.client_of(&session).query(GET, &[]).await.ok(),
            net.sign_in(&user.handle, &user.password).await.ok(),
        ];
        for answer in answers {
            let document = &answer.json()["didDoc"];
            assert_eq!(document["id"], user.did.as_str());
            assert_eq!(document["alsoKnownAs"], json!([format!("at://{}", user.handle)]));
            let host = net.home_of(&user.did).url();
            assert_eq!(document["service"][0]["serviceEndpoint"], host);
        }
    }
    assert_eq!(net.directory().journal().len(), before, "the directory was not asked");
}

/// Hosts pass on the operations that their owners submit.
async fn an_operation_through_the_plc_proxy_is_in_the_next_answer(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    net.client_of(&alice).query(GET, &[]).await.ok();
    let last = net.directory().operations(&alice.did).pop().unwrap();
    let mut data = last.data().unwrap();
    data.also_known_as.push("at://second.example.com".to_owned());
    let update = plc::update(&last.cid(), data, net.rotation_key());
    let body = serde_json::to_vec(&update).unwrap();
    net.genkan().plc_proxy().post(&format!("/{}", alice.did), "application/json", body).await.ok();
    let session = net.client_of(&alice).query(GET, &[]).await.ok();
    assert_eq!(session.json()["didDoc"]["alsoKnownAs"][1], "at://second.example.com");
}

async fn a_wrong_password_and_an_unknown_account_look_alike(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let wrong = net.sign_in(&alice.handle, "not her password").await;
    assert_eq!(wrong.summary(), "401 AuthenticationRequired");
    for (identifier, password) in [
        ("nobody.genkan.test", "whatever it is"),
        ("nobody@mail.example", "whatever it is"),
        ("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "whatever it is"),
        ("no identifier at all", "whatever it is"),
        ("", "whatever it is"),
        (alice.handle.as_str(), ""),
        (alice.handle.as_str(), &"x".repeat(513)),
    ] {
        let answer = net.sign_in(identifier, password).await;
        assert_eq!((answer.status, &answer.body), (wrong.status, &wrong.body), "{identifier}");
    }
}

async fn every_session_answer_says_where_home_is(plan: Plan) {
    let net = plan.hosts(2).await;
    let alice = net.sign_up("alice").await;
    let home = net.home_of(&alice.did).url();
    let opened = net.sign_in(&alice.handle, &alice.password).await.ok();
    let continued = net.refresh(&alice.refresh).await.ok();
    let seen = net.client_of(&alice).query(GET, &[]).await.ok();
    for answer in [&opened, &continued, &seen] {
        let body = answer.json();
        assert_eq!(body["didDoc"]["service"][0]["serviceEndpoint"], home);
        assert_eq!(body["didDoc"]["id"], alice.did.as_str());
        assert_eq!((&body["active"], &body["status"]), (&json!(true), &Value::Null));
        assert_eq!((&body["email"], &body["emailConfirmed"]), (&json!(alice.email), &json!(false)));
    }

    // Directory away: the same from our own records, and no failure.
    net.directory().set_wire(genkan_testing::Wire::Refusing).await;
    let without = net.sign_in(&alice.handle, &alice.password).await.ok();
    assert_eq!(without.json()["didDoc"]["service"][0]["serviceEndpoint"], home);
}

async fn a_used_refresh_token_has_one_successor(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let first = net.refresh(&alice.refresh).await.ok().text("/refreshJwt");
    let again = net.refresh(&alice.refresh).await.ok().text("/refreshJwt");
    let jti = |token: &str| claims_of(token)["jti"].clone();
    assert_eq!(jti(&first), jti(&again));
    assert_ne!(jti(&first), jti(&alice.refresh));
    // Also when the successor was used meanwhile.
    let third = net.refresh(&first).await.ok().text("/refreshJwt");
    let again = net.refresh(&alice.refresh).await.ok().text("/refreshJwt");
    assert_eq!(jti(&first), jti(&again));
    net.refresh(&third).await.ok();
}

async fn after_the_grace_only_the_used_token_ends(plan: Plan) {
    let net = plan.set("GENKAN_REFRESH_GRACE", "3s").await;
    let alice = net.sign_up("alice").await;
    let newer = net.refresh(&alice.refresh).await.ok().text("/refreshJwt");
    net.refresh(&alice.refresh).await.ok();
    // Asking again and again does not extend the grace.
    within(Duration::from_secs(20), "the grace ends", async || {
        net.refresh(&alice.refresh).await.summary() == "400 ExpiredToken"
    })
    .await;
    net.refresh(&newer).await.ok();
}

async fn ten_at_once_get_one_successor(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let answers = futures_util::future::join_all((0..10).map(|_| net.refresh(&alice.refresh))).await;
    let mut successors: Vec<_> = answers
        .into_iter()
        .map(|answer| claims_of(&answer.ok().text("/refreshJwt"))["jti"].to_string())
        .collect();
    successors.dedup();
    assert_eq!(successors.len(), 1);
}

async fn a_sign_out_ends_all_of_the_session(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let other = alice.with_session(&net.sign_in(&alice.handle, &alice.password).await.ok());
    let newer = alice.with_session(&net.refresh(&alice.refresh).await.ok());
    net.client_of(&alice).query(GET, &[]).await.ok();

    let answer = net.sign_out(&alice.refresh).await.ok();
    assert_eq!(answer.body.len(), 0);
    for token in [&alice.refresh, &newer.refresh] {
        assert_eq!(net.refresh(token).await.summary(), "400 ExpiredToken");
    }
    for user in [&alice, &newer] {
        assert_eq!(net.client_of(user).query(GET, &[]).await.summary(), "400 ExpiredToken");
        let timeline = net.client_of(user).query("app.bsky.feed.getTimeline", &[]).await;
        assert_eq!(timeline.summary(), "400 ExpiredToken");
    }
    net.sign_out(&alice.refresh).await.ok();
    net.refresh(&other.refresh).await.ok();
}

async fn a_sign_out_beats_a_refresh_at_once(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    for round in 0..20 {
        let session = alice.with_session(&net.sign_in(&alice.handle, &alice.password).await.ok());
        let (refreshed, ended) = tokio::join!(net.refresh(&session.refresh), net.sign_out(&session.refresh));
        assert_eq!(ended.status, 200, "{round}");
        let mut tokens = vec![session.refresh.clone()];
        match refreshed.summary().as_str() {
            "200" => tokens.push(refreshed.text("/refreshJwt")),
            other => assert_eq!(other, "400 ExpiredToken", "{round}"),
        }
        for token in tokens {
            assert_eq!(net.refresh(&token).await.summary(), "400 ExpiredToken", "{round}");
        }
    }
}

async fn app_passwords_open_lesser_sessions(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let create = |privileged: bool| json!({ "name": format!("app {privileged}"), "privileged": privileged });
    let method = "com.atproto.server.createAppPassword";
    let mut opened: Vec<(String, User)> = Vec::new();
    for (privileged, scope) in [(false, "com.atproto.appPass"), (true, "com.atproto.appPassPrivileged")] {
        let made = net.client_of(&alice).procedure(method, &create(privileged)).await.ok();
        let password = made.text("/password");
        assert_eq!(password.len(), 19);
        let session = alice.with_session(&net.sign_in(&alice.handle, &password).await.ok());
        assert_eq!(claims_of(&session.access)["scope"], scope);
        let newer = session.with_session(&net.refresh(&session.refresh).await.ok());
        assert_eq!(claims_of(&newer.access)["scope"], scope);
        net.client_of(&session).query("app.bsky.feed.getTimeline", &[]).await.ok();
        let refused = net.client_of(&session).procedure(method, &create(false)).await;
        assert_eq!(refused.summary(), "400 InvalidToken");
        opened.push((made.text("/name"), session));
    }
    assert_eq!(net.client_of(&alice).procedure(method, &create(true)).await.summary(), "400 InvalidRequest");
    let listed = net.client_of(&alice).query("com.atproto.server.listAppPasswords", &[]).await.ok();
    assert_eq!(listed.json()["passwords"].as_array().unwrap().len(), 2);
    assert!(!String::from_utf8_lossy(&listed.body).contains("\"password\""));

    let (name, session) = &opened[0];
    let revoke = "com.atproto.server.revokeAppPassword";
    net.client_of(&alice).procedure(revoke, &json!({ "name": name })).await.ok();
    assert_eq!(net.refresh(&session.refresh).await.summary(), "400 ExpiredToken");
    assert_eq!(net.client_of(session).query(GET, &[]).await.summary(), "400 ExpiredToken");
    net.client_of(&opened[1].1).query(GET, &[]).await.ok();
    net.client_of(&alice).query(GET, &[]).await.ok();
}

async fn sessions_outlive_a_kill(plan: Plan) {
    let mut net = plan.await;
    let alice = net.sign_up("alice").await;
    let newer = alice.with_session(&net.refresh(&alice.refresh).await.ok());
    let ended = alice.with_session(&net.sign_in(&alice.handle, &alice.password).await.ok());
    net.sign_out(&ended.refresh).await.ok();
    net.restart().await;
    net.client_of(&newer).query(GET, &[]).await.ok();
    net.refresh(&newer.refresh).await.ok();
    assert_eq!(net.refresh(&ended.refresh).await.summary(), "400 ExpiredToken");
}
