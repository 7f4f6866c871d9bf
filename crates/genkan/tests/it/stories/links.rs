//! Linked accounts: signed in at their own server, and used by apps that have only Genkan's
//! token.

use std::time::Duration;

use genkan_testing::network::{App, Genkan, within};
use genkan_testing::{Answer, Plan, TestNetwork, Trouble};
use http::Method;
use serde_json::{Value, json};

use crate::store::on_each_database;

on_each_database!(
    an_app_with_our_token_alone_writes_at_the_account_s_pds,
    each_app_has_a_session_of_its_own,
    a_session_that_its_server_ended_ends_here,
    a_server_that_is_away_ends_no_session,
    the_database_holds_no_usable_secret,
);

mod replicas {
    use super::{
        a_killed_refresher_loses_no_session, an_ended_session_is_over_everywhere_within_five_seconds,
        of_many_calls_at_three_processes_one_refreshes,
    };

    crate::store::on_postgres!(
        of_many_calls_at_three_processes_one_refreshes,
        a_killed_refresher_loses_no_session,
        an_ended_session_is_over_everywhere_within_five_seconds,
    );
}

const CREATE: &str = "/xrpc/com.atproto.repo.createRecord";
const SCOPE: &str = "atproto transition:generic";

/// Zoe, who has an account at an external PDS, has signed in to an app.
async fn zoe(net: &TestNetwork) -> (String, App) {
    let did = net.external_pds(0).make_account(net.directory(), "zoe.external.com").to_string();
    (did.clone(), app_of(net, &did).await)
}

async fn app_of(net: &TestNetwork, did: &str) -> App {
    let mut app = App::at(net.visitor(), &net.origin(), SCOPE);
    app.sign_in_external(did).await;
    app
}

async fn access_token_expires(net: &TestNetwork) {
    within(Duration::from_secs(30), "the access token expires", async || {
        net.external_pds(0).access_tokens_have_expired()
    })
    .await;
}

fn record(did: &str) -> Value {
    json!({ "repo": did, "collection": "app.bsky.feed.post", "record": { "text": "hi" } })
}

async fn write_at(net: &TestNetwork, at: &Genkan, app: &App, did: &str) -> Answer {
    app.ask(&at.client(), &net.origin(), Method::POST, CREATE, record(did).to_string()).await
}

async fn write(net: &TestNetwork, app: &App, did: &str) -> Answer {
    write_at(net, net.genkan(), app, did).await
}

async fn an_app_with_our_token_alone_writes_at_the_account_s_pds(plan: Plan) {
    let net = plan.external_pds(1).await;
    let (did, app) = zoe(&net).await;
    let pds = net.external_pds(0);
    write(&net, &app, &did).await.ok();
    let seen = pds.last("com.atproto.repo.createRecord").unwrap();
    let sent = seen.header("authorization").to_owned();
    assert!(sent.starts_with("DPoP ") && !sent.contains(&app.access), "{sent}");
    assert_ne!(seen.header("dpop"), "");
    for unsaid in ["cookie", "x-forwarded-for", "forwarded", "origin"] {
        assert_eq!(seen.header(unsaid), "", "{unsaid}");
    }
    let sessions = pds.sessions();
    assert_eq!((sessions.len(), sessions[0].did.as_str(), &*sessions[0].scope), (1, &*did, SCOPE));
    // What the app holds opens nothing there.
    let path = "/xrpc/com.atproto.repo.createRecord";
    let direct =
        app.ask(&genkan_testing::Client::new(&pds.url()), &pds.url(), Method::POST, path, "{}").await;
    assert_eq!(direct.status, 401, "{}", direct.transcript());
    // What is not forwarded says where to go; nobody is signed out by it.
    let other =
        app.ask(&net.visitor(), &net.origin(), Method::GET, "/xrpc/app.bsky.feed.getTimeline", "").await;
    assert_eq!(other.summary(), "501 MethodNotImplemented");
    write(&net, &app, &did).await.ok();
}

async fn each_app_has_a_session_of_its_own(plan: Plan) {
    let net = plan.external_pds(1).await;
    let (did, first) = zoe(&net).await;
    let second = app_of(&net, &did).await;
    assert_eq!(net.external_pds(0).sessions().len(), 2);
    first.revoke().await.ok();
    assert_eq!(write(&net, &first, &did).await.summary(), "401 invalid_token");
    write(&net, &second, &did).await.ok();
    within(Duration::from_secs(10), "the other server hears of the end", async || {
        let sessions = net.external_pds(0).sessions();
        sessions.iter().filter(|session| session.ended.is_some()).count() == 1
    })
    .await;
}

/// C11 of `docs/contract.md`
async fn a_session_that_its_server_ended_ends_here(plan: Plan) {
    let net = plan.external_pds(1).await;
    let (did, mut app) = zoe(&net).await;
    write(&net, &app, &did).await.ok();
    net.external_pds(0).end_sessions();
    let refused = write(&net, &app, &did).await;
    assert_eq!(refused.summary(), "401 invalid_token", "{}", refused.transcript());
    assert!(refused.header("www-authenticate").contains("invalid_token"));
    assert_eq!(app.refresh().await.summary(), "400 invalid_grant");
    // A new sign-in is as good as the first.
    let again = app_of(&net, &did).await;
    write(&net, &again, &did).await.ok();
}

/// C10 of `docs/contract.md`, in seconds instead of minutes
async fn a_server_that_is_away_ends_no_session(plan: Plan) {
    let net = plan.external_pds(1).await;
    net.external_pds(0).set(|quirks| quirks.expires_in = Some(4));
    let (did, mut app) = zoe(&net).await;
    write(&net, &app, &did).await.ok();
    net.external_pds(0).trouble("/oauth/token", Trouble::Status(503));
    access_token_expires(&net).await;
    let waiting = write(&net, &app, &did).await;
    assert_eq!(waiting.summary(), "502 UpstreamAuthUnavailable", "{}", waiting.transcript());
    assert_ne!(waiting.header("retry-after"), "");
    app.refresh().await.ok();
    net.external_pds(0).mend();
    net.external_pds(0).set(|quirks| quirks.expires_in = Some(3600));
    within(Duration::from_secs(40), "it goes on without a sign-in", async || {
        write(&net, &app, &did).await.status == 200
    })
    .await;
    assert_eq!(net.external_pds(0).sessions().len(), 1);
}

/// C18 of `docs/contract.md`
async fn the_database_holds_no_usable_secret(plan: Plan) {
    let net = plan.external_pds(1).await;
    let (did, app) = zoe(&net).await;
    write(&net, &app, &did).await.ok();
    let seen = net.external_pds(0).last("com.atproto.repo.createRecord").unwrap();
    let token = seen.header("authorization").strip_prefix("DPoP ").unwrap().to_owned();
    let printed = net.printed() + &net.metrics().await;
    for secret in [&token, &app.access, &app.refresh] {
        assert!(!printed.contains(secret.as_str()), "a secret is printed");
    }
    let file = net.database_file();
    if file.exists() {
        for file in [file.clone(), file.with_extension("db-wal")] {
            let bytes = std::fs::read(&file).unwrap_or_default();
            for secret in [&token, &app.access, &app.refresh] {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "a secret lies open in {}", file.display());
            }
        }
    }
}

/// C9 of `docs/contract.md`
async fn of_many_calls_at_three_processes_one_refreshes(plan: Plan) {
    // An account gets an eighth of these places, and all calls of a process may be on one thread.
    let net = plan.external_pds(1).set("GENKAN_UPSTREAM_CONNECTIONS", "1024").await;
    let (second, third) = (net.another_genkan().await, net.another_genkan().await);
    net.external_pds(0).set(|quirks| quirks.expires_in = Some(3));
    let (did, app) = zoe(&net).await;
    net.external_pds(0).set(|quirks| quirks.expires_in = Some(3600));
    access_token_expires(&net).await;
    let calls = (0..200).map(|index| {
        let at = [net.genkan(), &second, &third][index % 3];
        write_at(&net, at, &app, &did)
    });
    let answers = futures_util::future::join_all(calls).await;
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.transcript());
    }
    let sessions = net.external_pds(0).sessions();
    assert_eq!((sessions.len(), sessions[0].refreshes, sessions[0].ended), (1, 1, None));
}

/// It is killed while it looks whether the server still speaks for the account, its lease in hand.
async fn a_killed_refresher_loses_no_session(plan: Plan) {
    let mut net = plan.external_pds(1).await;
    let second = net.another_genkan().await;
    net.external_pds(0).set(|quirks| quirks.expires_in = Some(3));
    let (did, app) = zoe(&net).await;
    net.external_pds(0).set(|quirks| quirks.expires_in = Some(3600));
    access_token_expires(&net).await;
    net.external_pds(0).trouble("/.well-known/oauth-protected-resource", Trouble::Silent);
    let before = net.external_pds(0).asked("/.well-known/oauth-protected-resource");
    let client = net.genkan().client();
    let origin = net.origin();
    let body = record(&did).to_string();
    {
        let stuck = app.ask(&client, &origin, Method::POST, CREATE, body);
        let asked = within(Duration::from_secs(10), "it refreshes", async || {
            net.external_pds(0).asked("/.well-known/oauth-protected-resource") > before
        });
        tokio::select! {
            biased;
            () = asked => {}
            answer = stuck => panic!("{}", answer.transcript()),
        }
    }
    net.genkan_mut().kill();
    net.external_pds(0).mend();
    within(Duration::from_mins(1), "another one takes over", async || {
        write_at(&net, &second, &app, &did).await.status == 200
    })
    .await;
    let sessions = net.external_pds(0).sessions();
    assert_eq!((sessions.len(), sessions[0].refreshes, sessions[0].ended), (1, 1, None));
}

/// C12 of `docs/contract.md`
async fn an_ended_session_is_over_everywhere_within_five_seconds(plan: Plan) {
    let net = plan.external_pds(1).await;
    let second = net.another_genkan().await;
    let (did, app) = zoe(&net).await;
    write(&net, &app, &did).await.ok();
    write_at(&net, &second, &app, &did).await.ok();
    app.revoke().await.ok();
    assert_eq!(write(&net, &app, &did).await.summary(), "401 invalid_token", "at once where it was ended");
    within(Duration::from_secs(5), "it is over at the other one", async || {
        write_at(&net, &second, &app, &did).await.summary() == "401 invalid_token"
    })
    .await;
}
