//! Which host a new account goes to.

use std::time::Duration;

use genkan_testing::network::within;
use genkan_testing::{Plan, TestNetwork, Wire};

use crate::store::on_each_database;

on_each_database!(
    new_accounts_spread_by_weight,
    a_draining_host_gets_no_new_accounts,
    with_a_host_down_sign_ups_go_on_and_only_its_accounts_suffer,
    with_no_host_left_nothing_is_held,
);

fn counts(net: &TestNetwork) -> Vec<usize> {
    net.hosts().iter().map(|host| host.accounts().len()).collect()
}

async fn sign_up_many(net: &TestNetwork, of: &str, count: usize) {
    for index in 0..count {
        net.sign_up(&format!("{of}{index}")).await;
    }
}

async fn new_accounts_spread_by_weight(plan: Plan) {
    let net = plan.hosts(2).await;
    net.command(&["host", "set", "host-0", "--weight", "0"]).await.ok();
    let explained = net.command(&["host", "place", "--explain"]).await.ok();
    assert!(explained.contains("host-0") && explained.contains("host-1"), "{explained}");
    sign_up_many(&net, "only", 5).await;
    assert_eq!(counts(&net), [0, 5]);
    net.command(&["host", "set", "host-0", "--weight", "1"]).await.ok();
    sign_up_many(&net, "both", 20).await;
    let counts = counts(&net);
    assert!(counts[0] >= 3 && counts[1] >= 8, "{counts:?}");
}

async fn a_draining_host_gets_no_new_accounts(plan: Plan) {
    let net = plan.hosts(2).await;
    sign_up_many(&net, "early", 6).await;
    let early = counts(&net);
    net.command(&["host", "drain", "host-0"]).await.ok();
    sign_up_many(&net, "later", 6).await;
    assert_eq!(counts(&net), [early[0], early[1] + 6]);
    net.command(&["host", "enable", "host-0"]).await.ok();
    net.command(&["host", "drain", "host-1"]).await.ok();
    sign_up_many(&net, "again", 2).await;
    assert_eq!(counts(&net), [early[0] + 2, early[1] + 6]);
}

async fn with_a_host_down_sign_ups_go_on_and_only_its_accounts_suffer(plan: Plan) {
    let net = plan.hosts(2).await;
    let mut users = Vec::new();
    while net.hosts().iter().any(|host| host.accounts().is_empty()) {
        users.push(net.sign_up(&format!("user{}", users.len())).await);
    }
    net.host(0).set_wire(Wire::Refusing).await;
    let before = net.host(1).accounts().len();
    sign_up_many(&net, "while", 5).await;
    assert_eq!(net.host(1).accounts().len(), before + 5);
    for user in &users {
        let answer = net.client_of(user).query("app.bsky.feed.getTimeline", &[]).await;
        let lives_there = net.home_of(&user.did).did() == net.host(0).did();
        assert_eq!(answer.summary(), if lives_there { "502 UpstreamFailure" } else { "200" });
        net.client_of(user).query("com.atproto.server.getSession", &[]).await.ok();
    }
    net.host(0).set_wire(Wire::Well).await;
    within(Duration::from_secs(30), "the host is used again", async || {
        let mut all_well = true;
        for user in &users {
            all_well &= net.client_of(user).query("app.bsky.feed.getTimeline", &[]).await.status == 200;
        }
        all_well
    })
    .await;
}

async fn with_no_host_left_nothing_is_held(plan: Plan) {
    let net = plan.await;
    net.host(0).set_wire(Wire::Refusing).await;
    let answer = net.try_sign_up("alice").await;
    assert_eq!(answer.summary(), "503 NotEnoughResources");
    assert_ne!(answer.header("retry-after"), "");
    net.host(0).set_wire(Wire::Well).await;
    // The handle was not held: somebody else may have it at once.
    within(Duration::from_secs(40), "the host is used again", async || {
        let mut form = genkan_testing::User::form("alice");
        form["email"] = serde_json::json!("another@mail.example");
        let answer = net.visitor().procedure("com.atproto.server.createAccount", &form).await;
        assert_ne!(answer.summary(), "400 HandleNotAvailable");
        answer.status == 200
    })
    .await;
    assert_eq!(net.directory().dids().len(), 1);
}
