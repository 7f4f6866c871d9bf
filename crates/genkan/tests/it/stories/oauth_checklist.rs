//! Lines of the checklist (§6.B) that take the whole program: `b` and the line's number.

use genkan_testing::{Client, Plan};
use http::Method;
use serde_json::json;

use super::emails::with_mail;
use crate::store::on_each_database;

on_each_database!(b21_limits_answer_429_in_the_words_of_oauth, b24_a_new_handle_or_address_ends_no_grant,);

const SCOPE: &str = "atproto transition:generic";

/// Before any endpoint is reached: all requests of the address together are too many.
async fn b21_limits_answer_429_in_the_words_of_oauth(plan: Plan) {
    let net = plan.set("GENKAN_RATE_LIMITS_ENABLED", "true").set("GENKAN_RATE_GLOBAL", "60/5m").await;
    let alice = net.sign_up("alice").await;
    let mut app = net.authorize(&alice, SCOPE).await;
    for _ in 0..60 {
        net.visitor().get("/xrpc/_health").await;
    }
    let answer = app.refresh().await;
    assert_eq!(answer.summary(), "429 temporarily_unavailable", "{}", answer.transcript());
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_ne!(answer.header("dpop-nonce"), "");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}

async fn b24_a_new_handle_or_address_ends_no_grant(plan: Plan) {
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
    assert_eq!(session.text("/handle"), "alison.genkan.test");
}

const SESSION: &str = "/xrpc/com.atproto.server.getSession";
