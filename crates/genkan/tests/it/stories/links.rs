//! Sessions of accounts that live elsewhere, through the real program. `cNN` are lines of the contract's checklist.

use std::time::Duration;

use genkan_testing::network::{App, Genkan, within};
use genkan_testing::{Answer, FakePds, Plan, TestNetwork, Trouble};
use http::Method;

use crate::store::on_each_database;

on_each_database!(
    c11_a_session_that_its_server_ended_makes_the_app_ask_again,
    c12_what_the_app_gives_back_is_given_back_there,
);

mod replicas {
    use super::{
        c09_200_calls_over_3_processes_make_one_refresh,
        c09_killing_the_process_that_refreshes_loses_no_session,
    };

    crate::store::on_postgres!(
        c09_200_calls_over_3_processes_make_one_refresh,
        c09_killing_the_process_that_refreshes_loses_no_session,
    );
}

const READ: &str = "/xrpc/com.atproto.repo.listMissingBlobs";

async fn read(net: &TestNetwork, at: &Genkan, app: &App) -> Answer {
    app.ask(&at.client(), &net.origin(), Method::GET, READ, "").await
}

/// An app of Ann's, whose account lives at `pds`.
async fn app_of_ann(net: &TestNetwork, pds: &FakePds) -> App {
    let ann = pds.make_account(net.directory(), "ann.elsewhere.com");
    let mut app = App::at(net.visitor(), &net.origin(), "atproto transition:generic");
    app.sign_in(ann.as_str(), "").await;
    app
}

async fn c11_a_session_that_its_server_ended_makes_the_app_ask_again(plan: Plan) {
    let pds = FakePds::start().await;
    let net = plan.listing(&pds.url()).await;
    let mut app = app_of_ann(&net, &pds).await;
    let seen = read(&net, net.genkan(), &app).await.ok().json();
    assert_eq!(
        (seen["pds"].as_str(), seen["did"].as_str()),
        (Some(&*pds.url()), Some(pds.sessions()[0].did.as_str()))
    );
    assert_eq!(app.refresh().await.status, 200);
    read(&net, net.genkan(), &app).await.ok();

    pds.end_sessions();
    let over = read(&net, net.genkan(), &app).await;
    assert_eq!(over.status, 401, "{}", over.transcript());
    assert!(over.header("www-authenticate").contains("error=\"invalid_token\""), "{:?}", over.headers);
    within(Duration::from_secs(5), "the grant ends with its link", async || {
        app.refresh().await.summary() == "400 invalid_grant"
    })
    .await;
    let shown = net.command(&["link", "list", pds.sessions()[0].did.as_str()]).await.ok();
    assert!(shown.contains("No links."), "{shown}");
}

async fn c12_what_the_app_gives_back_is_given_back_there(plan: Plan) {
    let pds = FakePds::start().await;
    let net = plan.listing(&pds.url()).await;
    let app = app_of_ann(&net, &pds).await;
    read(&net, net.genkan(), &app).await.ok();
    assert_eq!(app.revoke().await.status, 200);
    assert_eq!(read(&net, net.genkan(), &app).await.status, 401);
    within(Duration::from_secs(10), "its server hears of it", async || {
        pds.sessions()[0].ended == Some("revoked")
    })
    .await;
}

/// An app whose session has to be refreshed with the next call.
async fn app_that_is_due(net: &TestNetwork, pds: &FakePds) -> App {
    pds.set(|quirks| quirks.expires_in = Some(2));
    let app = app_of_ann(net, pds).await;
    pds.set(|quirks| quirks.expires_in = Some(3600));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    app
}

async fn c09_200_calls_over_3_processes_make_one_refresh(plan: Plan) {
    let pds = FakePds::start().await;
    let net = plan.listing(&pds.url()).await;
    let (second, third) = (net.another_genkan().await, net.another_genkan().await);
    let app = app_that_is_due(&net, &pds).await;
    pds.trouble("/oauth/token", Trouble::Slow(Duration::from_millis(300)));
    let calls = (0..200).map(|number| {
        let at = [net.genkan(), &second, &third][number % 3];
        read(&net, at, &app)
    });
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.status, 200, "{}", answer.transcript());
    }
    assert_eq!((pds.sessions()[0].refreshes, pds.sessions()[0].ended), (1, None));
}

async fn c09_killing_the_process_that_refreshes_loses_no_session(plan: Plan) {
    let pds = FakePds::start().await;
    let net = plan.listing(&pds.url()).await;
    let mut second = net.another_genkan().await;
    let app = app_that_is_due(&net, &pds).await;
    // It has the lease, the refresh token is on its way, and nobody answers.
    pds.trouble("/oauth/token", Trouble::Silent);
    let before = pds.asked("/oauth/token");
    let dying = tokio::time::timeout(Duration::from_secs(5), read(&net, &second, &app));
    let asked = within(Duration::from_secs(5), "the refresh token is on its way", async || {
        pds.asked("/oauth/token") > before
    });
    let _ = tokio::join!(dying, asked);
    second.kill();
    pds.mend();
    within(Duration::from_secs(75), "another one refreshes when the lease is over", async || {
        read(&net, net.genkan(), &app).await.status == 200
    })
    .await;
    assert_eq!((pds.sessions()[0].refreshes, pds.sessions()[0].ended), (1, None));
}
