//! Handles: changed from either side, resolved everywhere.

use genkan_testing::{FakeNames, Plan, TestNetwork, Trouble, User, Wire};
use serde_json::json;

use crate::store::on_each_database;

on_each_database!(
    a_handle_changed_at_genkan_is_seen_everywhere,
    a_handle_changed_at_the_host_is_seen_everywhere,
    what_may_not_be_a_handle_is_refused_by_name,
    a_change_that_the_directory_refuses_changes_nothing,
    a_host_that_is_away_gets_the_new_handle_later,
    names_resolve_by_method_and_by_well_known,
    a_handle_of_ones_own_has_to_lead_here,
);

const UPDATE: &str = "com.atproto.identity.updateHandle";

async fn resolved(net: &TestNetwork, handle: &str) -> String {
    let answer = net.visitor().query("com.atproto.identity.resolveHandle", &[("handle", handle)]).await;
    match answer.status {
        200 => answer.text("/did"),
        _ => answer.summary(),
    }
}

async fn assert_named(net: &TestNetwork, user: &User, handle: &str) {
    let data = net.directory().data(&user.did).unwrap();
    assert_eq!(data.also_known_as, [format!("at://{handle}")]);
    assert_eq!(net.home_of(&user.did).account(&user.did).unwrap().handle.as_str(), handle);
    assert_eq!(resolved(net, handle).await, user.did.as_str());
    let session = net.client_of(user).query("com.atproto.server.getSession", &[]).await.ok();
    assert_eq!(session.text("/handle"), handle);
    assert_eq!(session.text("/didDoc/alsoKnownAs/0"), format!("at://{handle}"));
    net.sign_in(handle, &user.password).await.ok();
}

async fn a_handle_changed_at_genkan_is_seen_everywhere(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    net.client_of(&alice).procedure(UPDATE, &json!({ "handle": "Alicia.genkan.test" })).await.ok();
    assert_named(&net, &alice, "alicia.genkan.test").await;
    assert_eq!(resolved(&net, "alice.genkan.test").await, "400 HandleNotFound");
    // What she left is free, and she may have it back while nobody took it.
    net.client_of(&alice).procedure(UPDATE, &json!({ "handle": "alice.genkan.test" })).await.ok();
    assert_named(&net, &alice, "alice.genkan.test").await;
    // Changing to the handle that the account already has is not an error.
    net.client_of(&alice).procedure(UPDATE, &json!({ "handle": "alice.genkan.test" })).await.ok();
    assert_eq!(net.directory().data(&alice.did).unwrap().rotation_keys.len(), 1);
}

async fn a_handle_changed_at_the_host_is_seen_everywhere(plan: Plan) {
    let net = plan.hosts(2).await;
    let alice = net.sign_up("alice").await;
    let at_host = net.client_at(net.home_of(&alice.did), &alice);
    at_host.procedure(UPDATE, &json!({ "handle": "alicia.genkan.test" })).await.ok();
    assert_named(&net, &alice, "alicia.genkan.test").await;
    let refused = at_host.procedure(UPDATE, &json!({ "handle": "alicia.other.test" })).await;
    assert_eq!(refused.status, 400, "{}", refused.transcript());
}

async fn what_may_not_be_a_handle_is_refused_by_name(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    net.sign_up("bobby").await;
    for (handle, expected) in [
        (json!("bobby.genkan.test"), "400 HandleNotAvailable"),
        (json!("BOBBY.genkan.test"), "400 HandleNotAvailable"),
        (json!("admin.genkan.test"), "400 HandleNotAvailable"),
        (json!("al.genkan.test"), "400 InvalidHandle"),
        (json!("a.b.genkan.test"), "400 InvalidHandle"),
        (json!("alice"), "400 InvalidHandle"),
        (json!("alice@genkan.test"), "400 InvalidHandle"),
        (json!(7), "400 InvalidRequest"),
        (json!(null), "400 InvalidRequest"),
    ] {
        let answer = net.client_of(&alice).procedure(UPDATE, &json!({ "handle": handle })).await;
        assert_eq!(answer.summary(), expected, "{handle}");
    }
    let anonymous = net.visitor().procedure(UPDATE, &json!({ "handle": "alicia.genkan.test" })).await;
    assert_eq!(anonymous.summary(), "401 AuthMissing");
    assert_named(&net, &alice, "alice.genkan.test").await;
    // Only the genesis operation: the refused names never reached the directory.
    assert_eq!(net.directory().operations(&alice.did).len(), 1);
}

async fn a_change_that_the_directory_refuses_changes_nothing(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    net.directory().trouble("submit", Trouble::Refusal(400, "refused"));
    let answer = net.client_of(&alice).procedure(UPDATE, &json!({ "handle": "alicia.genkan.test" })).await;
    assert!(answer.status >= 400, "{}", answer.transcript());
    net.directory().mend();
    // The reserved handle is released when the change is undone. A sign-up is the proof that it is
    // free.
    genkan_testing::network::eventually("the handle is free again", async || {
        let mut form = User::form("bobby");
        form["handle"] = json!("alicia.genkan.test");
        net.visitor().procedure("com.atproto.server.createAccount", &form).await.status == 200
    })
    .await;
    assert_named(&net, &alice, "alice.genkan.test").await;
}

async fn a_host_that_is_away_gets_the_new_handle_later(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    net.host(0).set_wire(Wire::Refusing).await;
    net.client_of(&alice).procedure(UPDATE, &json!({ "handle": "alicia.genkan.test" })).await.ok();
    net.host(0).set_wire(Wire::Well).await;
    let limit = std::time::Duration::from_mins(1);
    // The host was away when the handle changed. A job tells it later.
    genkan_testing::network::within(limit, "the host knows the handle", async || {
        net.host(0).account(&alice.did).unwrap().handle == "alicia.genkan.test"
    })
    .await;
    assert_named(&net, &alice, "alicia.genkan.test").await;
}

async fn a_handle_of_ones_own_has_to_lead_here(plan: Plan) {
    let names = FakeNames::start().await;
    let net = plan.set("GENKAN_DNS_SERVERS", &names.address().to_string()).await;
    let (alice, bobby) = (net.sign_up("alice").await, net.sign_up("bobby").await);
    let host = net.host(0);
    for (door, handle) in
        [(net.client_of(&alice), "alice.example.com"), (net.client_at(host, &alice), "al.example.org")]
    {
        let change = async || door.procedure(UPDATE, &json!({ "handle": handle })).await;
        assert_eq!(change().await.summary(), "400 InvalidHandle", "it leads nowhere");
        names.publish(handle, &[bobby.did.as_str()]);
        assert_eq!(change().await.summary(), "400 InvalidHandle", "it leads to another");
        names.publish(handle, &[alice.did.as_str(), bobby.did.as_str()]);
        assert_eq!(change().await.summary(), "400 InvalidHandle", "it leads to two");
        names.publish(handle, &[alice.did.as_str()]);
        // The host resolves names by itself, so it is told what DNS says.
        host.know_name(&handle.parse().unwrap(), &alice.did);
        change().await.ok();
        assert_named(&net, &alice, handle).await;
    }
    // A name that leads to somebody of another server, and whose account says so.
    let far = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
    names.publish("far.example.net", &[far]);
    assert_eq!(resolved(&net, "far.example.net").await, far);
    assert_eq!(resolved(&net, "nobody.example.net").await, "400 InvalidRequest");
}

async fn names_resolve_by_method_and_by_well_known(plan: Plan) {
    // Handles are compared without regard to case.
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    assert_eq!(resolved(&net, "ALICE.genkan.test").await, alice.did.as_str());
    assert_eq!(resolved(&net, "nobody.genkan.test").await, "400 HandleNotFound");
    assert_eq!(resolved(&net, "not a handle").await, "400 InvalidRequest");
    assert_eq!(resolved(&net, "somebody.localhost").await, "400 InvalidRequest");
    for (host, status) in [
        ("alice.genkan.test", "200"),
        ("ALICE.GENKAN.TEST:443", "200"),
        ("nobody.genkan.test", "404"),
        ("other.example", "404"),
    ] {
        let raw =
            format!("GET /.well-known/atproto-did HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = net.visitor().raw(raw.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
        assert_eq!(answer.ends_with(alice.did.as_str()), status == "200", "{host}: {answer}");
    }
    let own = net.visitor().get("/.well-known/did.json").await.ok();
    assert_eq!(own.text("/id"), net.service_did());
}
