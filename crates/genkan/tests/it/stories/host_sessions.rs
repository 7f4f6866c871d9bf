//! Sessions seen from the account's host: it verifies, and asks Genkan in the account's or the
//! client's name.

use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::plc;
use genkan_protocol::service_auth::{self, Claims};
use genkan_testing::{FakeHost, Plan, TestNetwork, User};
use serde_json::{Value, json};

use crate::store::on_each_database;

on_each_database!(
    a_session_is_the_same_from_both_sides,
    the_host_does_in_the_accounts_name_what_clients_ask_of_it,
    service_auth_is_for_protected_methods_and_names_one,
    the_hosts_key_is_remembered_after_the_document_moved_on,
    a_key_that_was_rotated_in_the_document_is_looked_up,
    a_token_that_a_user_got_of_the_host_is_not_enough,
    bad_tokens_cost_few_lookups,
    a_name_that_a_host_gives_an_error_is_no_label,
    a_hosts_admin_password_is_good_for_its_own_accounts_only,
);

const GET: &str = "com.atproto.server.getSession";

async fn a_session_is_the_same_from_both_sides(plan: Plan) {
    let net = plan.hosts(2).await;
    let alice = net.sign_up("alice").await;
    let home = net.home_of(&alice.did);
    let at_host = net.client_at(home, &alice);
    let (direct, through) = (net.client_of(&alice).query(GET, &[]).await, at_host.query(GET, &[]).await.ok());
    assert_eq!(direct.ok().json(), through.json());

    // Signing in, continuing and ending, all at the host.
    let visitor = genkan_testing::Client::new(&format!("http://{}", home.address()));
    let input = json!({ "identifier": alice.handle, "password": alice.password });
    let opened = visitor.procedure("com.atproto.server.createSession", &input).await.ok();
    let there = alice.with_session(&opened);
    let newer = visitor.clone().bearer(&there.refresh).call("com.atproto.server.refreshSession").await.ok();
    let newer = alice.with_session(&newer);
    net.client_of(&newer).query(GET, &[]).await.ok();
    visitor.clone().bearer(&newer.refresh).call("com.atproto.server.deleteSession").await.ok();
    assert_eq!(net.refresh(&newer.refresh).await.summary(), "400 ExpiredToken");
    let wrong = json!({ "identifier": alice.handle, "password": "not her password" });
    let answer = visitor.procedure("com.atproto.server.createSession", &wrong).await;
    assert_eq!(answer.summary(), "401 AuthenticationRequired");
}

async fn the_host_does_in_the_accounts_name_what_clients_ask_of_it(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let at_host = net.client_at(net.host(0), &alice);
    let create = json!({ "name": "phone" });
    let made = at_host.procedure("com.atproto.server.createAppPassword", &create).await.ok();
    net.sign_in(&alice.handle, &made.text("/password")).await.ok();
    let listed = at_host.query("com.atproto.server.listAppPasswords", &[]).await.ok();
    assert_eq!(listed.text("/passwords/0/name"), "phone");
    at_host.procedure("com.atproto.server.revokeAppPassword", &create).await.ok();
    let refused = net.sign_in(&alice.handle, &made.text("/password")).await;
    assert_eq!(refused.summary(), "401 AuthenticationRequired");

    at_host.procedure("com.atproto.server.deactivateAccount", &json!({})).await.ok();
    assert!(net.host(0).account(&alice.did).unwrap().deactivated);
    assert_eq!(at_host.query(GET, &[]).await.ok().text("/status"), "deactivated");
    at_host.call("com.atproto.server.activateAccount").await.ok();
    assert!(!net.host(0).account(&alice.did).unwrap().deactivated);
}

fn claims(net: &TestNetwork, user: &User, lxm: Option<&str>) -> Claims {
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    Claims {
        iss: user.did.clone(),
        iss_fragment: None,
        aud: net.service_did(),
        lxm: lxm.map(|lxm| lxm.parse().unwrap()),
        iat: Some(now),
        exp: now + 60,
        jti: Some("0123456789abcdef0123456789abcdef".to_owned()),
    }
}

async fn get_session(net: &TestNetwork, token: &str) -> String {
    net.visitor().bearer(token).query(GET, &[]).await.summary()
}

async fn service_auth_is_for_protected_methods_and_names_one(plan: Plan) {
    let net = plan.await;
    let (alice, bob) = (net.sign_up("alice").await, net.sign_up("bobby").await);
    let key = net.host(0).account_key(&alice.did).unwrap();
    let good = claims(&net, &alice, Some(GET));
    assert_eq!(get_session(&net, &service_auth::sign(&key, &good)).await, "200");

    let bad = [
        ("no method named", Claims { lxm: None, ..good.clone() }, "400 InvalidToken"),
        (
            "another method",
            claims(&net, &alice, Some("com.atproto.server.listAppPasswords")),
            "400 InvalidToken",
        ),
        (
            "for another service",
            Claims { aud: "did:web:else.example".to_owned(), ..good.clone() },
            "400 InvalidToken",
        ),
        ("for the host", Claims { aud: net.host(0).did(), ..good.clone() }, "400 InvalidToken"),
        ("late", Claims { exp: 1, ..good.clone() }, "400 ExpiredToken"),
        ("for another account", Claims { iss: bob.did.clone(), ..good.clone() }, "400 InvalidToken"),
        (
            "for an unknown account",
            Claims { iss: "did:web:localhost%3A9".parse().unwrap(), ..good.clone() },
            "400 InvalidToken",
        ),
    ];
    for (case, claims, expected) in bad {
        assert_eq!(get_session(&net, &service_auth::sign(&key, &claims)).await, expected, "{case}");
    }
    let foreign = K256PrivateKey::from_bytes(&[9; 32]).unwrap();
    assert_eq!(get_session(&net, &service_auth::sign(&foreign, &good)).await, "400 InvalidToken");

    // Methods that are not protected take a session only, whatever the token names.
    for (nsid, is_query) in [
        ("com.atproto.repo.createRecord", false),
        ("com.atproto.server.getServiceAuth", true),
        ("com.atproto.server.checkAccountStatus", true),
        ("com.atproto.server.refreshSession", false),
        ("app.bsky.feed.getTimeline", true),
    ] {
        let client = net.visitor().bearer(&service_auth::sign(&key, &claims(&net, &alice, Some(nsid))));
        let answer =
            if is_query { client.query(nsid, &[]).await } else { client.procedure(nsid, &json!({})).await };
        assert_eq!(answer.summary(), "400 InvalidToken", "{nsid}");
        assert_eq!(net.host(0).asked(nsid), 0, "{nsid}");
    }
}

/// Lets the directory name another place and key for an account, as its owner's own rotation key
/// could.
fn move_document(net: &TestNetwork, user: &User, endpoint: &str, key: &K256PrivateKey) {
    let last = net.directory().operations(&user.did).pop().unwrap();
    let mut data = last.data().unwrap();
    data.set_pds_endpoint(endpoint);
    data.set_signing_key(&key.public());
    let update = plc::update(&last.cid(), data, net.rotation_key());
    net.directory().submit(&user.did, &update).unwrap();
}

async fn the_hosts_key_is_remembered_after_the_document_moved_on(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let other_key = K256PrivateKey::from_bytes(&[9; 32]).unwrap();
    move_document(&net, &alice, "https://other.example", &other_key);

    let at_host = net.client_at(net.host(0), &alice);
    let session = at_host.query(GET, &[]).await.ok();
    assert_eq!(session.text("/did"), alice.did.as_str());
    at_host.procedure("com.atproto.server.deactivateAccount", &json!({})).await.ok();
    assert!(net.host(0).account(&alice.did).unwrap().deactivated);
}

async fn a_key_that_was_rotated_in_the_document_is_looked_up(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    // Warm every memory with the old document.
    net.client_at(net.host(0), &alice).query(GET, &[]).await.ok();
    let newer = K256PrivateKey::from_bytes(&[9; 32]).unwrap();
    move_document(&net, &alice, &net.host(0).url(), &newer);
    let token = service_auth::sign(&newer, &claims(&net, &alice, Some(GET)));
    assert_eq!(get_session(&net, &token).await, "200");
    // Rotated again, while the directory is away: not the token's fault.
    let newest = K256PrivateKey::from_bytes(&[8; 32]).unwrap();
    let token = service_auth::sign(&newest, &claims(&net, &alice, Some(GET)));
    net.directory().trouble("document", genkan_testing::Trouble::Status(500));
    assert_eq!(get_session(&net, &token).await, "503 NotEnoughResources");
    net.directory().mend();
    assert_eq!(get_session(&net, &token).await, "400 InvalidToken");
}

async fn bad_tokens_cost_few_lookups(plan: Plan) {
    let net = plan.await;
    let (alice, bob) = (net.sign_up("alice").await, net.sign_up("bobby").await);
    let foreign = K256PrivateKey::from_bytes(&[9; 32]).unwrap();
    let asked = || net.directory().asked("document");
    let first = asked();
    for _ in 0..30 {
        let token = service_auth::sign(&foreign, &claims(&net, &alice, Some(GET)));
        let before = asked();
        let answer = get_session(&net, &token).await;
        // Without a lookup nothing is known of the key: the account may have a new one.
        let expected = if asked() > before { "400 InvalidToken" } else { "503 NotEnoughResources" };
        assert_eq!(answer, expected);
    }
    // Five in a window, of which two may have been used.
    let asked_in_all = asked() - first;
    assert!(asked_in_all <= 10, "{asked_in_all} requests to the directory");
    // A token for another service or method costs none.
    let before = net.directory().asked("document");
    for other in [
        Claims { aud: "did:web:else.example".to_owned(), ..claims(&net, &bob, Some(GET)) },
        claims(&net, &bob, Some("com.atproto.server.listAppPasswords")),
        Claims { exp: 1, ..claims(&net, &bob, Some(GET)) },
    ] {
        get_session(&net, &service_auth::sign(&foreign, &other)).await;
    }
    assert_eq!(net.directory().asked("document"), before);
    // The host itself is not affected.
    net.client_at(net.host(0), &alice).query(GET, &[]).await.ok();
}

async fn a_name_that_a_host_gives_an_error_is_no_label(plan: Plan) {
    const STATUS: &str = "com.atproto.admin.updateSubjectStatus";
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    for name in ["ChosenByTheHost1", "ChosenByTheHost2"] {
        net.host(0).mend();
        net.host(0).trouble(STATUS, genkan_testing::Trouble::Refusal(400, name));
        let answer = net.client_of(&alice).call("com.atproto.server.activateAccount").await;
        assert_eq!(answer.summary(), format!("400 {name}"), "the client still reads it");
    }
    let metrics = net.metrics().await;
    assert!(!metrics.contains("ChosenByTheHost"), "{metrics}");
    assert!(metrics.contains("genkan_refusals_total{error=\"other\"} 2"), "{metrics}");
}

async fn a_token_that_a_user_got_of_the_host_is_not_enough(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let method = "com.atproto.server.createAppPassword";
    let made = net.client_of(&alice).procedure(method, &json!({ "name": "app" })).await.ok();
    let lesser = alice.with_session(&net.sign_in(&alice.handle, &made.text("/password")).await.ok());

    let host: &FakeHost = net.host(0);
    let service = net.service_did();
    let parameters = [("aud", service.as_str())];
    let at_host = net.client_at(host, &lesser);
    let token = at_host.query("com.atproto.server.getServiceAuth", &parameters).await.ok().text("/token");
    let climbing = net.visitor().bearer(&token).procedure(method, &json!({ "name": "more" })).await;
    assert_eq!(climbing.summary(), "400 InvalidToken");
    let protected = [("aud", service.as_str()), ("lxm", method)];
    assert_eq!(at_host.query("com.atproto.server.getServiceAuth", &protected).await.status, 400);
}

async fn a_hosts_admin_password_is_good_for_its_own_accounts_only(plan: Plan) {
    let net = plan.hosts(2).await;
    let alice = net.sign_up("alice").await;
    let home = net.home_of(&alice.did);
    let other = net.hosts().iter().find(|host| host.did() != home.did()).unwrap();
    let ask = async |host: &FakeHost, method: &str, input: &Value| {
        let credential = data_encoding::BASE64.encode(format!("admin:{}", host.admin_password()).as_bytes());
        let client = net.visitor().with("authorization", &format!("Basic {credential}"));
        client.procedure(method, input).await.summary()
    };
    let email = json!({ "account": alice.did, "email": "new@mail.example" });
    let password = json!({ "did": alice.did, "password": "the password of another" });
    for (method, input) in [
        ("com.atproto.admin.updateAccountEmail", &email),
        ("com.atproto.admin.updateAccountPassword", &password),
    ] {
        assert_eq!(ask(other, method, input).await, "401 AuthenticationRequired", "{method}");
        assert_eq!(ask(home, method, input).await, "200", "{method}");
    }
    assert_eq!(net.refresh(&alice.refresh).await.summary(), "400 ExpiredToken", "her sessions have ended");
    net.sign_in("new@mail.example", "the password of another").await.ok();
}
