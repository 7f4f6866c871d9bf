//! Several Genkans on one PostgreSQL.

use std::time::Duration;

use genkan_testing::network::{Genkan, claims_of, within};
use genkan_testing::{Answer, Plan, User};
use serde_json::json;

use crate::store::on_postgres;

on_postgres!(
    one_refresh_token_has_one_successor_on_all,
    after_a_sign_out_nothing_refreshes_anywhere,
    a_revocation_binds_all_within_five_seconds,
    of_many_at_once_one_gets_the_handle,
    a_killed_ones_sign_ups_are_finished_by_another,
    a_command_waits_for_every_replica_that_runs,
);

async fn refresh(at: &Genkan, token: &str) -> Answer {
    at.client().bearer(token).call("com.atproto.server.refreshSession").await
}

async fn one_refresh_token_has_one_successor_on_all(plan: Plan) {
    let net = plan.await;
    let second = net.another_genkan().await;
    let mut alice = net.sign_up("alice").await;
    for _ in 0..5 {
        // Ten requests at once, alternating between two processes, race for the one successor.
        let both =
            (0..10).map(|index| refresh(if index % 2 == 0 { net.genkan() } else { &second }, &alice.refresh));
        let answers = futures_util::future::join_all(both).await;
        let mut successors: Vec<String> = Vec::new();
        for answer in &answers {
            assert_eq!(answer.status, 200, "{}", answer.transcript());
            successors.push(claims_of(&answer.text("/refreshJwt"))["jti"].to_string());
        }
        successors.sort();
        successors.dedup();
        // All ten answers carry the same new token: losers of the race get the winner's.
        assert_eq!(successors.len(), 1);
        alice = alice.with_session(&answers[0]);
    }
}

async fn after_a_sign_out_nothing_refreshes_anywhere(plan: Plan) {
    let net = plan.await;
    let second = net.another_genkan().await;
    let alice = net.sign_up("alice").await;
    // Many rounds, because either of the two requests may be first.
    for round in 0..30 {
        let session = alice.with_session(&net.sign_in(&alice.handle, &alice.password).await.ok());
        let (refreshed, ended) =
            tokio::join!(refresh(&second, &session.refresh), net.sign_out(&session.refresh));
        assert_eq!(ended.status, 200, "{round}");
        // If the refresh was first, its new token must be dead as well.
        let mut tokens = vec![session.refresh.clone()];
        match refreshed.summary().as_str() {
            "200" => tokens.push(refreshed.text("/refreshJwt")),
            other => assert_eq!(other, "400 ExpiredToken", "{round}"),
        }
        for token in tokens {
            for at in [net.genkan(), &second] {
                assert_eq!(refresh(at, &token).await.summary(), "400 ExpiredToken", "{round}");
            }
        }
    }
}

async fn a_revocation_binds_all_within_five_seconds(plan: Plan) {
    let net = plan.await;
    let second = net.another_genkan().await;
    let alice = net.sign_up("alice").await;
    let at_second = second.client().bearer(&alice.access);
    let timeline = async || at_second.query("app.bsky.feed.getTimeline", &[]).await.summary();
    // This loads the token into the second process's cache, which is what the revocation must
    // reach.
    assert_eq!(timeline().await, "200");
    net.sign_out(&alice.refresh).await.ok();
    // The process that did the sign-out knows of it at once.
    assert_eq!(
        net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await.summary(),
        "400 ExpiredToken"
    );
    // The other process learns of it from the changes feed.
    within(Duration::from_secs(5), "the other one refuses", async || timeline().await == "400 ExpiredToken")
        .await;

    // A takedown likewise.
    let bob = net.sign_up("bobby").await;
    let at_second = second.client().bearer(&bob.access);
    assert_eq!(at_second.query("app.bsky.feed.getTimeline", &[]).await.status, 200);
    let input = json!({
        "subject": { "$type": "com.atproto.admin.defs#repoRef", "did": bob.did }, "takedown": { "applied": true },
    });
    net.operator().procedure("com.atproto.admin.updateSubjectStatus", &input).await.ok();
    // The host refuses at once by itself; Genkan's own methods must too.
    within(Duration::from_secs(5), "the other one refuses", async || {
        at_second.query("com.atproto.server.getSession", &[]).await.summary() == "400 ExpiredToken"
    })
    .await;
}

async fn of_many_at_once_one_gets_the_handle(plan: Plan) {
    let net = plan.hosts(2).await;
    let second = net.another_genkan().await;
    let attempts = (0..6).map(|index| {
        let mut form = User::form("alice");
        // Different addresses, so that only the handle can be in conflict.
        form["email"] = json!(format!("alice{index}@mail.example"));
        let client = if index % 2 == 0 { net.visitor() } else { second.client() };
        async move { client.procedure("com.atproto.server.createAccount", &form).await.summary() }
    });
    let mut outcomes = futures_util::future::join_all(attempts).await;
    outcomes.sort();
    assert_eq!(outcomes[0], "200");
    assert!(outcomes[1..].iter().all(|outcome| outcome == "400 HandleNotAvailable"), "{outcomes:?}");
    // The losers published nothing.
    assert_eq!(net.directory().dids().len(), 1);
}

async fn a_killed_ones_sign_ups_are_finished_by_another(plan: Plan) {
    use genkan_testing::Trouble;
    let mut net = plan.await;
    let second = net.another_genkan().await;
    // The host is slow enough that the process can be killed before it answers.
    net.host(0).trouble_times("com.atproto.server.createAccount", Trouble::Slow(Duration::from_secs(1)), 1);
    let client = net.visitor();
    let asking = tokio::spawn(async move {
        let request = client.request(http::Method::POST, "/xrpc/com.atproto.server.createAccount");
        let request = request.header("content-type", "application/json");
        client.try_send(request.body(User::form("alice").to_string()).unwrap()).await
    });
    // The kill comes after the request has reached the host: this is the ambiguous case.
    genkan_testing::network::eventually("the host is asked", async || {
        net.host(0).asked("com.atproto.server.createAccount") == 1
    })
    .await;
    net.genkan_mut().kill();
    // Its PLC proxy is gone too; a balancer would lead the host to the other's.
    net.host(0).configure(&format!("PDS_DID_PLC_URL={}", second.plc_proxy().origin()));
    assert!(asking.await.unwrap().is_err());
    // The lease of the killed process must end before another process takes the sign-up.
    within(Duration::from_mins(1), "the other one finishes it", async || {
        let input = json!({ "identifier": "alice.genkan.test", "password": "secret-of-alice" });
        second.client().procedure("com.atproto.server.createSession", &input).await.status == 200
    })
    .await;
}

async fn a_command_waits_for_every_replica_that_runs(plan: Plan) {
    let net = plan.await;
    let mut second = net.another_genkan().await;
    let sign_up = async |at: &Genkan, name: &str| {
        at.client().procedure("com.atproto.server.createAccount", &User::form(name)).await.summary()
    };
    net.command(&["host", "drain", "host-0"]).await.ok();
    for at in [net.genkan(), &second] {
        assert_eq!(sign_up(at, "early").await, "503 NotEnoughResources");
    }
    net.command(&["host", "enable", "host-0"]).await.ok();
    assert_eq!(sign_up(net.genkan(), "alice").await, "200");
    assert_eq!(sign_up(&second, "bobby").await, "200");

    // One of two is stopped: it is named, and the other is not.
    // A suspended process still counts as running, but it reads no changes.
    second.suspend();
    let drained = net.command(&["host", "drain", "host-0"]).await;
    assert_eq!(drained.status, 3, "{}", drained.output);
    assert!(drained.output.contains(&format!("process {} ", second.process_id())), "{}", drained.output);
    assert!(!drained.output.contains(&format!("process {} ", net.genkan().process_id())));
    assert_eq!(sign_up(net.genkan(), "later").await, "503 NotEnoughResources");
    second.resume();

    // One that stopped in good order is not waited for.
    // At a graceful stop a replica removes its own row, so a later command does not wait for it.
    second.terminate();
    assert_eq!(second.end(Duration::from_secs(30)).await, Some(0));
    net.command(&["host", "enable", "host-0"]).await.ok();
    assert_eq!(sign_up(net.genkan(), "later").await, "200");
}
