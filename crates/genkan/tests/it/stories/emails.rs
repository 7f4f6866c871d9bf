//! What a code from the mailbox allows: asked of Genkan by clients, and of a host that passes it
//! on.

use std::time::Instant;

use genkan_protocol::plc::Operation;
use genkan_testing::{Client, FakeMail, Plan, TestNetwork, User};
use serde_json::json;

use crate::store::on_each_database;

on_each_database!(
    an_address_is_confirmed_and_then_guarded,
    a_lost_password_is_reset,
    every_requester_gets_the_same_answer,
    an_account_is_deleted_by_password_and_code,
    an_operation_is_signed_by_code,
    an_operation_is_not_signed_by_the_code_of_another_account,
    the_operator_and_hosts_write_to_people,
    codes_are_asked_for_a_few_times_an_hour,
    without_a_way_to_send_nothing_is_promised,
    emails_are_in_the_readers_language,
);

const SESSION: &str = "com.atproto.server.getSession";
const REQUEST_RESET: &str = "com.atproto.server.requestPasswordReset";
const RESET: &str = "com.atproto.server.resetPassword";

/// A network whose Genkan sends mail here.
pub(super) async fn with_mail(plan: Plan) -> (TestNetwork, FakeMail) {
    let mail = FakeMail::start().await;
    let net = plan
        .set("GENKAN_MAIL_SMTP_URL", &mail.url())
        .set("GENKAN_MAIL_FROM", "post@genkan.example")
        .set("GENKAN_MAIL_TIMEOUT", "1s")
        .await;
    (net, mail)
}

/// Genkan and the account's host.
fn doors(net: &TestNetwork, user: &User) -> [Client; 2] {
    [net.client_of(user), net.client_at(net.home_of(&user.did), user)]
}

/// Clients without a token at Genkan and at the account's host.
fn open_doors(net: &TestNetwork, user: &User) -> [Client; 2] {
    [net.visitor(), Client::new(&format!("http://{}", net.home_of(&user.did).address()))]
}

async fn an_address_is_confirmed_and_then_guarded(plan: Plan) {
    let (net, mail) = with_mail(plan).await;
    for (name, index) in [("alice", 0), ("bobby", 1)] {
        let user = net.sign_up(name).await;
        let door = &doors(&net, &user)[index];
        let (confirm, update) = ("com.atproto.server.confirmEmail", "com.atproto.server.updateEmail");

        door.call("com.atproto.server.requestEmailConfirmation").await.ok();
        let email = mail.email_to(&user.email).await;
        assert_eq!(email.from, "post@genkan.example");
        assert!(email.raw.contains(&user.handle), "{}", email.raw);
        let code = email.code();
        let ask = |email: &str, token: &str| json!({ "email": email, "token": token });
        let other = door.procedure(confirm, &ask("eve@mail.example", &code)).await;
        assert_eq!(other.summary(), "400 InvalidEmail");
        let wrong = door.procedure(confirm, &ask(&user.email, "AAAAA-AAAAA")).await;
        assert_eq!(wrong.summary(), "400 InvalidToken");
        let loudly = user.email.to_uppercase();
        door.procedure(confirm, &ask(&loudly, &code.to_lowercase())).await.ok();
        let again = door.procedure(confirm, &ask(&user.email, &code)).await;
        assert_eq!(again.summary(), "400 InvalidToken");
        assert_eq!(door.query(SESSION, &[]).await.ok().json()["emailConfirmed"], true);

        // Confirmed: from now on a code is needed to change it.
        let asked = door.call("com.atproto.server.requestEmailUpdate").await.ok();
        assert_eq!(asked.json(), json!({ "tokenRequired": true }));
        let code = mail.email_to(&user.email).await.code();
        let newer = format!("newer-{}", user.email);
        let without = door.procedure(update, &json!({ "email": newer })).await;
        assert_eq!(without.summary(), "400 TokenRequired");
        let factor = json!({ "email": newer, "token": code, "emailAuthFactor": true });
        assert_eq!(door.procedure(update, &factor).await.summary(), "400 InvalidRequest");
        let unusable = door.procedure(update, &ask("no address", &code)).await;
        assert_eq!(unusable.summary(), "400 InvalidRequest");
        door.procedure(update, &ask(&newer, &code)).await.ok();
        let session = door.query(SESSION, &[]).await.ok().json();
        assert_eq!((&session["email"], &session["emailConfirmed"]), (&json!(newer), &json!(false)));

        // Not confirmed: no code, and none is sent.
        let asked = door.call("com.atproto.server.requestEmailUpdate").await.ok();
        assert_eq!(asked.json(), json!({ "tokenRequired": false }));
        let stale = door.procedure(update, &ask(&user.email, &code)).await;
        assert_eq!(stale.summary(), "400 InvalidToken");
        door.procedure(update, &json!({ "email": user.email })).await.ok();
        assert_eq!(mail.emails().len(), 0);
    }
    let alice = net.sign_in("alice.genkan.test", "secret-of-alice").await.ok();
    let client = net.visitor().bearer(&alice.text("/accessJwt"));
    let taken = json!({ "email": "bobby@mail.example" });
    assert_eq!(
        client.procedure("com.atproto.server.updateEmail", &taken).await.summary(),
        "400 InvalidRequest"
    );
}

async fn a_lost_password_is_reset(plan: Plan) {
    let (net, mail) = with_mail(plan).await;
    for (name, index) in [("alice", 0), ("bobby", 1)] {
        let user = net.sign_up(name).await;
        let door = &open_doors(&net, &user)[index];
        let app = net
            .client_of(&user)
            .procedure("com.atproto.server.createAppPassword", &json!({ "name": "app" }))
            .await
            .ok();
        let by_app = net.sign_in(&user.handle, &app.text("/password")).await.ok();

        door.procedure(REQUEST_RESET, &json!({ "email": user.email.to_uppercase() })).await.ok();
        let code = mail.email_to(&user.email).await.code();
        let reset = |token: &str, password: &str| json!({ "token": token, "password": password });
        let short = door.procedure(RESET, &reset(&code, "short")).await;
        assert_eq!(short.summary(), "400 InvalidPassword");
        let wrong = door.procedure(RESET, &reset("AAAAA-AAAAA", "another secret")).await;
        assert_eq!(wrong.summary(), "400 InvalidToken");
        door.procedure(RESET, &reset(&code, "another secret")).await.ok();
        let again = door.procedure(RESET, &reset(&code, "a third secret")).await;
        assert_eq!(again.summary(), "400 InvalidToken");

        // Everything that was open is over, here at once.
        assert_eq!(net.sign_in(&user.handle, &user.password).await.summary(), "401 AuthenticationRequired");
        assert_eq!(net.refresh(&user.refresh).await.summary(), "400 ExpiredToken");
        assert_eq!(net.client_of(&user).query(SESSION, &[]).await.summary(), "400 ExpiredToken");
        assert_eq!(net.refresh(&by_app.text("/refreshJwt")).await.summary(), "400 ExpiredToken");
        // The new password opens, and so do app passwords, as at the reference PDS.
        net.sign_in(&user.handle, "another secret").await.ok();
        net.sign_in(&user.handle, &app.text("/password")).await.ok();
    }
}

async fn every_requester_gets_the_same_answer(plan: Plan) {
    let (net, mail) = with_mail(plan).await;
    let alice = net.sign_up("alice").await;
    let mut told = Vec::new();
    for email in [alice.email.as_str(), "nobody@mail.example", "no address at all"] {
        let mut took = Vec::new();
        let mut heard = String::new();
        for _ in 0..5 {
            let start = Instant::now();
            let answer = net.visitor().procedure(REQUEST_RESET, &json!({ "email": email })).await.ok();
            took.push(start.elapsed());
            heard = format!("{} {:?}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        took.sort();
        told.push((heard, took[2]));
    }
    assert!(told.iter().all(|(heard, _)| *heard == told[0].0), "{told:?}");
    let ratio = told[0].1.as_secs_f64() / told[1].1.as_secs_f64();
    assert!((0.7..1.4).contains(&ratio), "{told:?}");
    mail.email_to(&alice.email).await;
    assert!(mail.emails().iter().all(|email| email.to == [alice.email.clone()]));
}

async fn an_account_is_deleted_by_password_and_code(plan: Plan) {
    let (net, mail) = with_mail(plan).await;
    let delete = "com.atproto.server.deleteAccount";
    for (name, index) in [("alice", 0), ("bobby", 1)] {
        let user = net.sign_up(name).await;
        let (door, open) = (&doors(&net, &user)[index], &open_doors(&net, &user)[index]);
        door.call("com.atproto.server.requestAccountDelete").await.ok();
        let code = mail.email_to(&user.email).await.code();
        let ask =
            |password: &str, token: &str| json!({ "did": user.did, "password": password, "token": token });
        let wrong = open.procedure(delete, &ask("not the password", &code)).await;
        assert_eq!(wrong.summary(), "401 AuthenticationRequired");
        let wrong = open.procedure(delete, &ask(&user.password, "AAAAA-AAAAA")).await;
        assert_eq!(wrong.summary(), "400 InvalidToken");
        assert!(net.home_of(&user.did).account(&user.did).is_some());
        open.procedure(delete, &ask(&user.password, &code)).await.ok();
        assert!(net.host(0).account(&user.did).is_none());
        assert_eq!(net.sign_in(&user.handle, &user.password).await.status, 401);
        let again = net.visitor().procedure(delete, &ask(&user.password, &code)).await;
        assert_eq!(again.summary(), "400 InvalidRequest");
    }
}

async fn an_operation_is_signed_by_code(plan: Plan) {
    let (net, mail) = with_mail(plan).await;
    let sign = "com.atproto.identity.signPlcOperation";
    for (name, index) in [("alice", 0), ("bobby", 1)] {
        let user = net.sign_up(name).await;
        let door = &doors(&net, &user)[index];
        door.call("com.atproto.identity.requestPlcOperationSignature").await.ok();
        let code = mail.email_to(&user.email).await.code();
        let own_key = net.key_of(net.host(0)).public().to_did_key();
        let keys = json!([own_key, net.rotation_key().public().to_did_key()]);
        assert_eq!(
            door.procedure(sign, &json!({ "rotationKeys": keys })).await.summary(),
            "400 InvalidRequest"
        );
        let wrong = json!({ "token": "AAAAA-AAAAA", "rotationKeys": keys });
        assert_eq!(door.procedure(sign, &wrong).await.summary(), "400 InvalidToken");
        // What the directory would refuse is not signed, and does not cost the code.
        let unfit = json!({ "token": code, "rotationKeys": ["did:key:zNone"] });
        assert_eq!(door.procedure(sign, &unfit).await.summary(), "400 InvalidRequest");

        let signed = door.procedure(sign, &json!({ "token": code, "rotationKeys": keys })).await.ok();
        let operation: Operation = serde_json::from_value(signed.json()["operation"].clone()).unwrap();
        let before = net.directory().data(&user.did).unwrap();
        let after = operation.data().unwrap();
        assert_eq!(json!(after.rotation_keys), keys);
        assert_eq!(
            (after.also_known_as, after.services, after.verification_methods),
            (before.also_known_as.clone(), before.services.clone(), before.verification_methods.clone())
        );
        assert_eq!(net.directory().operations(&user.did).len(), 1, "nothing was submitted");
        net.directory().submit(&user.did, &operation).unwrap();
        let again = door.procedure(sign, &json!({ "token": code })).await;
        assert_eq!(again.summary(), "400 InvalidToken");
    }
}

async fn an_operation_is_not_signed_by_the_code_of_another_account(plan: Plan) {
    let (net, mail) = with_mail(plan).await;
    let (alice, bobby) = (net.sign_up("alice").await, net.sign_up("bobby").await);
    for user in [&alice, &bobby] {
        net.client_of(user).call("com.atproto.identity.requestPlcOperationSignature").await.ok();
    }
    let alices = json!({ "token": mail.email_to(&alice.email).await.code() });
    for (user, expected) in [(&bobby, "400 InvalidToken"), (&alice, "200")] {
        let signed = net.client_of(user).procedure("com.atproto.identity.signPlcOperation", &alices).await;
        assert_eq!(signed.summary(), expected, "{}", user.handle);
    }
}

async fn the_operator_and_hosts_write_to_people(plan: Plan) {
    let (net, mail) = with_mail(plan).await;
    let alice = net.sign_up("alice").await;
    let bobby = net.sign_up("bobby").await;
    let send = "com.atproto.admin.sendEmail";
    let email = |subject: &str| json!({ "recipientDid": alice.did, "senderDid": bobby.did, "subject": subject, "content": "<p>Be <b>kind</b></p>" });
    let answer = net.operator().procedure(send, &email("From the operator")).await.ok();
    assert_eq!(answer.json(), json!({ "sent": true }));
    let got = mail.email_to(&alice.email).await;
    assert_eq!(got.header("subject"), "From the operator");
    assert!(got.raw.contains("Be kind") && got.raw.contains("<b>kind</b>"), "{}", got.raw);

    let by_host = |of: &User| net.visitor().bearer(&net.host(0).service_token(&of.did, Some(send)));
    by_host(&alice).procedure(send, &email("From the host")).await.ok();
    assert_eq!(mail.email_to(&alice.email).await.header("subject"), "From the host");
    assert_eq!(by_host(&bobby).procedure(send, &email("x")).await.summary(), "400 InvalidRequest");
    assert_eq!(net.client_of(&alice).procedure(send, &email("x")).await.summary(), "400 InvalidToken");
    assert_eq!(net.visitor().procedure(send, &email("x")).await.status, 401);
    let nobody = json!({ "recipientDid": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "content": "x" });
    assert_eq!(net.operator().procedure(send, &nobody).await.summary(), "400 InvalidRequest");
}

async fn codes_are_asked_for_a_few_times_an_hour(plan: Plan) {
    let (net, _mail) = with_mail(plan.set("GENKAN_RATE_LIMITS_ENABLED", "true")).await;
    let alice = net.sign_up("alice").await;
    let confirm = "com.atproto.server.requestEmailConfirmation";
    let mut last = None;
    for _ in 0..6 {
        last = Some(net.client_of(&alice).call(confirm).await);
    }
    let last = last.unwrap();
    assert_eq!(last.summary(), "429 RateLimitExceeded");
    let wait: u64 = last.header("retry-after").parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    // Another kind of code has a count of its own; a reset counts by address, be it anybody's or
    // not.
    net.client_of(&alice).call("com.atproto.server.requestAccountDelete").await.ok();
    for email in [alice.email.as_str(), "nobody@mail.example"] {
        let mut told = Vec::new();
        for _ in 0..6 {
            told.push(net.visitor().procedure(REQUEST_RESET, &json!({ "email": email })).await.summary());
        }
        assert_eq!(told, ["200", "200", "200", "200", "200", "429 RateLimitExceeded"], "{email}");
    }
}

async fn without_a_way_to_send_nothing_is_promised(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let client = net.client_of(&alice);
    for method in [
        "com.atproto.server.requestEmailConfirmation",
        "com.atproto.server.requestAccountDelete",
        "com.atproto.identity.requestPlcOperationSignature",
    ] {
        assert_eq!(client.call(method).await.summary(), "501 MethodNotImplemented", "{method}");
    }
    for email in [alice.email.as_str(), "nobody@mail.example"] {
        let answer = net.visitor().procedure(REQUEST_RESET, &json!({ "email": email })).await;
        assert_eq!(answer.summary(), "501 MethodNotImplemented");
    }
    // What needs no email works.
    let asked = client.call("com.atproto.server.requestEmailUpdate").await.ok();
    assert_eq!(asked.json(), json!({ "tokenRequired": false }));
    client.procedure("com.atproto.server.updateEmail", &json!({ "email": "new@mail.example" })).await.ok();
    assert!(net.printed().contains("no mail is sent"), "{}", net.printed());
}

async fn emails_are_in_the_readers_language(plan: Plan) {
    let (net, mail) = with_mail(plan.set("GENKAN_NAME", "Tor")).await;
    let alice = net.sign_up("alice").await;
    let reader = net.client_of(&alice).with("accept-language", "de-CH, en;q=0.5");
    reader.call("com.atproto.server.requestEmailConfirmation").await.ok();
    let email = mail.email_to(&alice.email).await;
    assert_eq!(email.header("content-language"), "de");
    assert_eq!(email.header("from"), "Tor <post@genkan.example>");
    assert!(email.raw.contains("Guten Tag"), "{}", email.raw);
    assert!(mail.has_signed_in());
}
