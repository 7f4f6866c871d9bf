//! Two Genkans on one database behave as one.

use serde_json::json;

use super::app::TestApp;
use super::server::{OAuthServer, parameter};
use crate::db::{Db, on_each_database};

on_each_database!(two_replicas_act_as_one);

async fn two_replicas_act_as_one(db: Db) {
    let one = OAuthServer::start(db).await;
    let two = one.another().await;
    let app = TestApp::published(&one, "app", &json!({}));

    // A proof used at both works once, and so does a code.
    let proof = app.proof(&one, "/oauth/par");
    let proofs = [&*proof];
    let (first, second) = tokio::join!(app.push_with(&one, &[], &proofs), app.push_with(&two, &[], &proofs));
    let mut both = [first.summary(), second.summary()];
    both.sort();
    assert_eq!(both, ["201", "401 invalid_dpop_proof"]);

    // A request pushed at one is opened at the other, and decided once.
    let uri = app.push(&one, &[]).await.text("/request_uri");
    let (browser, ann) = two.signed_in().await;
    let opened = two.app.oauth.open(&uri, &app.id, &browser.device).await.unwrap();
    let (first, second) =
        tokio::join!(one.app.oauth.approve(&opened, &ann, None), two.app.oauth.approve(&opened, &ann, None));
    assert!(first.is_ok() != second.is_ok());
    let code = parameter(&first.or(second).unwrap(), "code");

    let (first, second) = tokio::join!(app.redeem(&one, &code, &[]), app.redeem(&two, &code, &[]));
    let mut both = [first.summary(), second.summary()];
    both.sort();
    assert_eq!(both, ["200", "400 invalid_grant"], "73");

    let token = one.tokens(&app).await.text("/refresh_token");
    let all = (0..50).map(|index| app.refresh(if index % 2 == 0 { &one } else { &two }, &token));
    let answers = futures_util::future::join_all(all).await;
    let successor = answers[0].text("/refresh_token");
    for answer in &answers {
        assert_eq!(
            (answer.status, answer.text("/refresh_token")),
            (200, successor.clone()),
            "74, 6.B.4: {answer:?}"
        );
    }
    // Revoked at one, over at the other.
    assert_eq!(app.revoke(&one, &successor).await.summary(), "200");
    assert_eq!(app.refresh(&two, &successor).await.summary(), "400 invalid_grant");
}
