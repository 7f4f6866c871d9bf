//! Lines of `docs/oauth-checklist.md`, list B, that take the whole program.

use genkan_testing::{Client, Plan};
use http::Method;
use serde_json::json;

use super::emails::with_mail;
use crate::store::on_each_database;

on_each_database!(limits_answer_429_with_an_error_of_oauth, a_new_handle_or_address_ends_no_grant,);

const SCOPE: &str = "atproto transition:generic";

/// Before any endpoint is reached: all requests of the address together are too many.
async fn limits_answer_429_with_an_error_of_oauth(plan: Plan) {
    // A window that no run of the tests crosses: a count starts again with the next window.
    let net = plan.set("GENKAN_RATE_LIMITS_ENABLED", "true").set("GENKAN_RATE_GLOBAL", "60/3650d").await;
    let alice = net.sign_up("alice").await;
    let mut app = net.authorize(&alice, SCOPE).await;
    for _ in 0..60 {
        net.visitor().get("/xrpc/_health").await;
    }
    let answer = app.refresh().await;
    assert_eq!(answer.summary(), "429 temporarily_unavailable", "6.B.21: {}", answer.transcript());
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_ne!(answer.header("dpop-nonce"), "");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}

async fn a_new_handle_or_address_ends_no_grant(plan: Plan) {
    let (net, _mail) = with_mail(plan).await;
    let alice = net.sign_up("alice").await;
    let mut app = net.authorize(&alice, SCOPE).await;
    let session = net.client_of(&alice);
    let renamed = json!({ "handle": "alison.genkan.test" });
    session.procedure("com.atproto.identity.updateHandle", &renamed).await.ok();
    let moved = json!({ "email": "alison@mail.example" });
    session.procedure("com.atproto.server.updateEmail", &moved).await.ok();
    for _ in 0..2 {
        let path = "/xrpc/app.bsky.feed.getTimeline";
        app.ask(&net.visitor(), &net.origin(), Method::GET, path, "").await.ok();
        let host = net.home_of(&alice.did);
        let at_host = Client::new(&format!("http://{}", host.address()));
        app.ask(&at_host, &host.url(), Method::GET, path, "").await.ok();
        app.refresh().await.ok();
    }
    let session = app.ask(&net.visitor(), &net.origin(), Method::GET, SESSION, "").await.ok();
    assert_eq!(session.text("/handle"), "alison.genkan.test", "6.B.24");
}

const SESSION: &str = "/xrpc/com.atproto.server.getSession";
