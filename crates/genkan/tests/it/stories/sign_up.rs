//! Sign-up: what is asked, what is refused, and what comes of it.

use genkan_protocol::crypto::K256PrivateKey;
use genkan_testing::network::claims_of;
use genkan_testing::{Plan, User};
use serde_json::{Value, json};

use crate::store::on_each_database;

on_each_database!(
    a_new_account_is_whole_everywhere,
    invalid_sign_ups_are_refused_by_name,
    handle_and_address_belong_to_one,
    of_many_at_once_one_gets_the_handle,
    the_same_request_again_leads_to_the_same_account,
    an_invite_code_is_used_once,
    recovery_keys_stand_before_ours,
);

const CREATE: &str = "com.atproto.server.createAccount";

async fn a_new_account_is_whole_everywhere(plan: Plan) {
    let net = plan.hosts(2).await;
    let answer = net.visitor().procedure(CREATE, &User::form("alice")).await.ok();
    let alice = User::of("alice", &answer);
    assert_eq!(alice.handle, "alice.genkan.test");

    let home = net.home_of(&alice.did);
    let at_home = home.account(&alice.did).unwrap();
    assert_eq!(at_home.handle, "alice.genkan.test");
    let data = net.directory().data(&alice.did).unwrap();
    assert_eq!(data.rotation_keys, [net.rotation_key().public().to_did_key()]);
    assert_eq!(data.pds_endpoint(), Some(home.url().as_str()));
    assert_eq!(data.signing_key(), Some(at_home.key.public().to_did_key().as_str()));
    assert_eq!(data.also_known_as, ["at://alice.genkan.test"]);
    assert_eq!(net.directory().operations(&alice.did).len(), 1);

    let document = answer.json()["didDoc"].clone();
    assert_eq!(document["id"], alice.did.as_str());
    assert_eq!(document["service"][0]["serviceEndpoint"], home.url());
    let access = claims_of(&alice.access);
    assert_eq!((&access["aud"], &access["sub"]), (&json!(home.did()), &json!(alice.did)));
    assert_eq!(access["scope"], "com.atproto.access");
    assert_eq!(access["exp"].as_i64().unwrap() - access["iat"].as_i64().unwrap(), 120 * 60);
    let refresh = claims_of(&alice.refresh);
    assert_eq!(refresh["aud"], net.service_did());
    assert_eq!(refresh["exp"].as_i64().unwrap() - refresh["iat"].as_i64().unwrap(), 90 * 24 * 3600);

    let post =
        json!({ "repo": alice.did, "collection": "app.bsky.feed.post", "record": { "text": "hello" } });
    net.client_at(home, &alice).procedure("com.atproto.repo.createRecord", &post).await.ok();
    let resolved =
        net.visitor().query("com.atproto.identity.resolveHandle", &[("handle", &alice.handle)]).await;
    assert_eq!(resolved.ok().text("/did"), alice.did.as_str());
    let raw = format!(
        "GET /.well-known/atproto-did HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        alice.handle
    );
    assert!(net.visitor().raw(raw.as_bytes()).await.ends_with(alice.did.as_str()));

    // What the host answered to the creation is thrown away, and nothing of the form went there.
    let asked = home.last(CREATE).unwrap();
    assert_eq!(asked.header("authorization"), "");
}

async fn invalid_sign_ups_are_refused_by_name(plan: Plan) {
    let net = plan
        .set("GENKAN_BLOCKED_EMAIL_DOMAINS", "throwaway.example")
        .set("GENKAN_RESERVED_HANDLES", "operator")
        .await;
    let with = |name: &str, value: Value| {
        let mut form = User::form("alice");
        form[name] = value;
        form
    };
    let without = |name: &str| {
        let mut form = User::form("alice");
        form.as_object_mut().unwrap().remove(name);
        form
    };
    let cases = [
        (with("handle", json!("alice")), "400 InvalidHandle"),
        (with("handle", json!("ali ce.genkan.test")), "400 InvalidHandle"),
        (with("handle", json!("al.genkan.test")), "400 InvalidHandle"),
        (with("handle", json!("alice-with-a-very-long-name.genkan.test")), "400 InvalidHandle"),
        (with("handle", json!("alice.bob.genkan.test")), "400 InvalidHandle"),
        (with("handle", json!("alice.other.test")), "400 UnsupportedDomain"),
        (with("handle", json!("genkan.test")), "400 HandleNotAvailable"),
        (with("handle", json!("admin.genkan.test")), "400 HandleNotAvailable"),
        (with("handle", json!("operator.genkan.test")), "400 HandleNotAvailable"),
        (with("handle", json!(7)), "400 InvalidRequest"),
        (without("handle"), "400 InvalidRequest"),
        (without("email"), "400 InvalidRequest"),
        (with("email", json!("alice")), "400 InvalidRequest"),
        (with("email", json!("a@b.example, c@d.example")), "400 InvalidRequest"),
        (with("email", json!("a@b.example\r\nBcc: c@d.example")), "400 InvalidRequest"),
        (with("email", json!("alice@throwaway.example")), "400 InvalidRequest"),
        (with("email", json!("alice@THROWAWAY.example")), "400 InvalidRequest"),
        (without("password"), "400 InvalidRequest"),
        (with("password", json!("short")), "400 InvalidPassword"),
        (with("password", json!("x".repeat(257))), "400 InvalidPassword"),
        (with("recoveryKey", json!("did:key:nonsense")), "400 InvalidRequest"),
        (with("did", json!("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")), "400 InvalidRequest"),
    ];
    for (form, expected) in cases {
        let answer = net.visitor().procedure(CREATE, &form).await;
        assert_eq!(answer.summary(), expected, "{form}");
    }
    assert!(net.directory().dids().is_empty());
    assert_eq!(net.host(0).asked("com.atproto.server.reserveSigningKey"), 0);
    net.sign_up("alice").await;
}

async fn handle_and_address_belong_to_one(plan: Plan) {
    let net = plan.await;
    net.sign_up("alice").await;
    for (name, value, expected) in [
        ("handle", "alice.genkan.test", "400 HandleNotAvailable"),
        ("handle", "ALICE.genkan.test", "400 HandleNotAvailable"),
        ("email", "alice@mail.example", "400 InvalidRequest"),
        ("email", "Alice@Mail.Example", "400 InvalidRequest"),
    ] {
        let mut form = User::form("bobby");
        form[name] = json!(value);
        let answer = net.visitor().procedure(CREATE, &form).await;
        assert_eq!(answer.summary(), expected, "{name} {value}");
    }
    assert_eq!(net.directory().dids().len(), 1);
}

async fn of_many_at_once_one_gets_the_handle(plan: Plan) {
    let net = plan.hosts(2).await;
    let attempts = (0..6).map(|index| {
        let mut form = User::form("alice");
        form["email"] = json!(format!("alice{index}@mail.example"));
        let visitor = net.visitor();
        async move { visitor.procedure(CREATE, &form).await.summary() }
    });
    let mut outcomes = futures_util::future::join_all(attempts).await;
    outcomes.sort();
    assert_eq!(outcomes[0], "200");
    assert!(outcomes[1..].iter().all(|outcome| outcome == "400 HandleNotAvailable"), "{outcomes:?}");
    assert_eq!(net.directory().dids().len(), 1);
    assert_eq!(net.hosts().iter().map(|host| host.accounts().len()).sum::<usize>(), 1);
}

async fn the_same_request_again_leads_to_the_same_account(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let again = net.sign_up("alice").await;
    assert_eq!(again.did, alice.did);
    assert_ne!(again.refresh, alice.refresh);
    // A form with another password is not a repetition: it does not come from the owner.
    let mut form = User::form("alice");
    form["password"] = json!("not her password");
    assert_eq!(net.visitor().procedure(CREATE, &form).await.summary(), "400 HandleNotAvailable");

    // Both at once, as a client does whose first answer was lost.
    let (first, second) = tokio::join!(net.try_sign_up("bobby"), net.try_sign_up("bobby"));
    assert_eq!(first.ok().text("/did"), second.ok().text("/did"));
    assert_eq!(net.directory().dids().len(), 2);
}

async fn an_invite_code_is_used_once(plan: Plan) {
    let net = plan.set("GENKAN_INVITE_REQUIRED", "true").await;
    let described = net.visitor().query("com.atproto.server.describeServer", &[]).await.ok();
    assert_eq!(described.json()["inviteCodeRequired"], true);
    let create = json!({ "useCount": 1 });
    let method = "com.atproto.server.createInviteCode";
    assert_eq!(net.visitor().procedure(method, &create).await.status, 401);
    let code = net.operator().procedure(method, &create).await.ok().text("/code");

    let form = |name: &str, code: Option<&str>| {
        let mut form = User::form(name);
        form["inviteCode"] = json!(code);
        form
    };
    for wrong in [None, Some("genkan-test-aaaaa-bbbbb")] {
        let answer = net.visitor().procedure(CREATE, &form("alice", wrong)).await;
        assert_eq!(answer.summary(), "400 InvalidInviteCode", "{wrong:?}");
    }
    net.visitor().procedure(CREATE, &form("alice", Some(&code))).await.ok();
    let answer = net.visitor().procedure(CREATE, &form("bobby", Some(&code))).await;
    assert_eq!(answer.summary(), "400 InvalidInviteCode");

    // One that fails for another reason is not used up.
    let code = net.operator().procedure(method, &create).await.ok().text("/code");
    let mut taken = form("carol", Some(&code));
    taken["handle"] = json!("alice.genkan.test");
    assert_eq!(net.visitor().procedure(CREATE, &taken).await.summary(), "400 HandleNotAvailable");
    let attempts = ["carol", "dave", "erin"].map(|name| {
        let (visitor, form) = (net.visitor(), form(name, Some(&code)));
        async move { visitor.procedure(CREATE, &form).await.summary() }
    });
    let mut outcomes = futures_util::future::join_all(attempts).await;
    outcomes.sort();
    assert_eq!(outcomes, ["200", "400 InvalidInviteCode", "400 InvalidInviteCode"]);
}

async fn recovery_keys_stand_before_ours(plan: Plan) {
    let of_operator = K256PrivateKey::from_bytes(&[7; 32]).unwrap().public().to_did_key();
    let of_alice = K256PrivateKey::from_bytes(&[8; 32]).unwrap().public().to_did_key();
    let net = plan.set("GENKAN_RECOVERY_DID_KEY", &of_operator).await;
    let mut form = User::form("alice");
    form["recoveryKey"] = json!(of_alice);
    let alice = User::of("alice", &net.visitor().procedure(CREATE, &form).await.ok());
    let ours = net.rotation_key().public().to_did_key();
    assert_eq!(net.directory().data(&alice.did).unwrap().rotation_keys, [of_alice, of_operator, ours]);
}
