//! A directory or a host that fails while an account is made: the saga goes on, or leaves nothing.

use std::time::Duration;

use genkan_testing::network::within;
use genkan_testing::{Plan, TestNetwork, Trouble, User, Wire};
use serde_json::json;

use crate::store::on_each_database;

on_each_database!(
    a_lost_answer_of_the_directory_costs_nothing,
    a_directory_that_is_away_is_waited_for,
    a_lost_answer_of_the_host_costs_nothing,
    an_account_that_failed_after_its_operation_keeps_its_did,
    a_host_that_refuses_the_account_leaves_nothing,
    a_slow_directory_is_not_asked_twice,
);

const CREATE: &str = "com.atproto.server.createAccount";

/// Asks again, as clients do, until the account is there. Refusals are not allowed on the way.
async fn insist(net: &TestNetwork, name: &str) -> User {
    let mut made = None;
    within(Duration::from_mins(1), "the account is made", async || {
        let answer = net.try_sign_up(name).await;
        assert!(answer.status == 200 || answer.status >= 502, "{}", answer.transcript());
        if answer.status == 503 {
            assert_ne!(answer.header("retry-after"), "");
        }
        made = (answer.status == 200).then(|| User::of(name, &answer));
        made.is_some()
    })
    .await;
    made.unwrap()
}

async fn assert_one_whole_account(net: &TestNetwork, user: &User) {
    assert_eq!(net.home_of(&user.did).account(&user.did).unwrap().handle.as_str(), user.handle);
    // A DID that a failed attempt published must have been ended.
    for did in net.directory().dids() {
        assert!(did == user.did || net.directory().is_tombstoned(&did), "{did} names an account nobody has");
    }
    assert_eq!(net.hosts().iter().map(|host| host.accounts().len()).sum::<usize>(), 1);
    let data = net.directory().data(&user.did).unwrap();
    let at_home = net.home_of(&user.did).account(&user.did).unwrap();
    // A sign-up that was settled with another key would leave an account that cannot sign.
    assert_eq!(data.signing_key(), Some(at_home.key.public().to_did_key().as_str()));
    let post = json!({ "repo": user.did, "collection": "app.bsky.feed.post", "record": {} });
    net.client_of(user).procedure("com.atproto.repo.createRecord", &post).await.ok();
    net.sign_in(&user.handle, &user.password).await.ok();
}

async fn a_lost_answer_of_the_directory_costs_nothing(plan: Plan) {
    let net = plan.await;
    net.directory().trouble_times("submit", Trouble::CutAfter, 1);
    let alice = insist(&net, "alice").await;
    assert_one_whole_account(&net, &alice).await;
}

async fn a_directory_that_is_away_is_waited_for(plan: Plan) {
    let net = plan.await;
    net.directory().set_wire(Wire::Refusing).await;
    let answer = net.try_sign_up("alice").await;
    assert!([502, 503].contains(&answer.status), "{}", answer.transcript());
    // Who is there already is served as before.
    net.directory().set_wire(Wire::Well).await;
    let alice = insist(&net, "alice").await;
    assert_one_whole_account(&net, &alice).await;
}

async fn a_lost_answer_of_the_host_costs_nothing(plan: Plan) {
    let net = plan.await;
    net.host(0).trouble_times(CREATE, Trouble::CutAfter, 1);
    let alice = insist(&net, "alice").await;
    assert_one_whole_account(&net, &alice).await;
    // The operation was accepted once. A second one would mean that the lost answer caused a new
    // submission.
    assert_eq!(net.directory().operations(&alice.did).len(), 1);
    assert_eq!(net.host(0).asked(CREATE), 1);
}

async fn an_account_that_failed_after_its_operation_keeps_its_did(plan: Plan) {
    let net = plan.await;
    net.host(0).fail_after_publishing(1);
    let alice = insist(&net, "alice").await;
    assert_one_whole_account(&net, &alice).await;
    assert_eq!(net.directory().dids(), [alice.did]);
}

async fn a_host_that_refuses_the_account_leaves_nothing(plan: Plan) {
    let net = plan.await;
    net.host(0).trouble(CREATE, Trouble::Refusal(400, "InvalidRequest"));
    let answer = net.try_sign_up("alice").await;
    assert_eq!(answer.status, 502, "{}", answer.transcript());
    net.host(0).mend();
    // With another password the form cannot count as a repetition of the first.
    let mut form = User::form("alice");
    form["password"] = json!("somebody else entirely");
    let other = net.visitor().procedure(CREATE, &form).await.ok();
    assert_eq!(net.directory().dids().len(), 1);
    assert_eq!(other.text("/handle"), "alice.genkan.test");

    // A host that fails after the operation was published: the DID gets a tombstone.
    // More failures than Genkan makes attempts.
    net.host(0).fail_after_publishing(100);
    let answer = net.try_sign_up("bobby").await;
    assert!(answer.status >= 502, "{}", answer.transcript());
    // The job clears up in the background, so the test waits for the tombstone.
    within(Duration::from_mins(1), "the DID is ended", async || {
        net.directory().dids().iter().filter(|did| net.directory().is_tombstoned(did)).count() == 1
    })
    .await;
    net.host(0).fail_after_publishing(0);
    net.sign_up("bobby").await;
}

async fn a_slow_directory_is_not_asked_twice(plan: Plan) {
    let net = plan.await;
    net.directory().trouble_times("submit", Trouble::Slow(Duration::from_secs(3)), 1);
    let alice = insist(&net, "alice").await;
    assert_one_whole_account(&net, &alice).await;
    assert_eq!(net.directory().operations(&alice.did).len(), 1);
}
