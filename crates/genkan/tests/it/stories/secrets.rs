//! No secret comes out of Genkan but in the answer that hands it over.

use genkan_testing::{Plan, Trouble, Wire};
use serde_json::json;

use crate::store::on_each_database;

on_each_database!(nothing_secret_is_printed_counted_or_told);

async fn nothing_secret_is_printed_counted_or_told(plan: Plan) {
    let mut net = plan.set("GENKAN_LOG_LEVEL", "trace").await;
    let mut told = Vec::new();
    let mut secrets = vec![
        "the-operators-own-password".to_owned(),
        net.host(0).admin_password(),
        data_encoding::HEXLOWER.encode(&*net.rotation_key().to_bytes()),
        data_encoding::HEXLOWER.encode(&*net.key_of(net.host(0)).to_bytes()),
    ];

    let alice = net.sign_up("alice").await;
    let made = net
        .client_of(&alice)
        .procedure("com.atproto.server.createAppPassword", &json!({ "name": "app" }))
        .await
        .ok();
    let newer = alice.with_session(&net.refresh(&alice.refresh).await.ok());
    let service_token = net.host(0).service_token(&alice.did, Some("com.atproto.server.getSession"));
    secrets.extend([
        alice.password.clone(),
        alice.email.clone(),
        made.text("/password"),
        "wrong-guess-4711".to_owned(),
    ]);
    // A token is a secret as a whole, and its signature is what makes it one.
    for token in [&alice.access, &alice.refresh, &newer.access, &newer.refresh, &service_token] {
        secrets.push(token.rsplit('.').next().unwrap().to_owned());
    }

    told.push(net.sign_in(&alice.handle, "wrong-guess-4711").await);
    told.push(net.sign_in(&alice.email, "wrong-guess-4711").await);
    let spoiled = format!("{}x", alice.access);
    for token in [&spoiled, &alice.refresh, &service_token] {
        told.push(net.visitor().bearer(token).query("app.bsky.feed.getTimeline", &[]).await);
        told.push(net.visitor().bearer(token).query("com.atproto.server.listAppPasswords", &[]).await);
    }
    told.push(net.refresh(&spoiled).await);
    // Forwarded to the host, whose answer repeats what it saw: only our log counts.
    net.client_of(&alice).query("com.example.unknown", &[("token", &alice.access)]).await;
    let mut form = genkan_testing::User::form("bobby");
    form["password"] = json!("secret-of-bobby");
    form["email"] = json!("alice@mail.example");
    secrets.push("secret-of-bobby".to_owned());
    told.push(net.visitor().procedure("com.atproto.server.createAccount", &form).await);

    // Failures are where secrets slip into errors.
    net.host(0).trouble("*", Trouble::Garbage);
    told.push(net.try_sign_up("carol").await);
    told.push(net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await);
    net.host(0).mend();
    net.host(0).set_wire(Wire::Refusing).await;
    told.push(net.try_sign_up("dave1").await);
    told.push(net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await);
    secrets.extend(["secret-of-carol".to_owned(), "secret-of-dave1".to_owned()]);
    net.host(0).set_wire(Wire::Well).await;
    net.restart().await;
    let metrics = net.metrics().await;
    let shown = net.command(&["config", "show"]).await.ok();

    let printed = net.printed();
    assert!(
        printed.contains("createAccount") || printed.contains("sign"),
        "the log says nothing:\n{printed}"
    );
    for secret in &secrets {
        for (place, text) in [("log", &printed), ("metrics", &metrics), ("config show", &shown)] {
            if let Some(at) = text.find(secret.as_str()) {
                let line = text[..at].rfind('\n').map_or(0, |start| start + 1);
                panic!("{secret} is in the {place}: {}", text[line..].lines().next().unwrap());
            }
        }
        for answer in &told {
            assert!(
                !answer.transcript().contains(secret.as_str()),
                "{secret} is told: {}",
                answer.transcript()
            );
        }
    }
}
