//! Ends of grants: by revocation, by their account, or with their client.

use std::time::Duration;

use genkan_testing::network::eventually;
use serde_json::json;

use super::app::TestApp;
use super::server::OAuthServer;
use super::tokens::refresh_of;
use crate::db::{Db, on_each_database};
use crate::oauth::ClientTrust;

on_each_database!(
    a_revoked_grant_has_ended,
    a_grant_that_its_account_revokes_has_ended,
    a_blocked_client_gets_nothing,
    a_blocked_client_with_many_grants_loses_them_in_batches,
    an_access_token_ends_with_its_grant,
);

async fn a_revoked_grant_has_ended(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let other = TestApp::published(&server, "other", &json!({}));
    let tokens = server.tokens(&app).await;
    let refresh = refresh_of(&tokens);
    // None of these ends anything, and the answer does not tell why.
    for (who, token) in [(&app, "unknown"), (&other, &*refresh), (&other, &*tokens.text("/access_token"))] {
        assert_eq!(who.revoke(&server, token).await.summary(), "200", "59");
    }
    let refresh = refresh_of(&app.refresh(&server, &refresh).await);
    assert_eq!(app.post(&server, "/oauth/revoke", &[], &[]).await.summary(), "400 invalid_request", "60");
    // An access token names the grant too, even after it has expired.
    server.clock.advance(Duration::from_mins(10));
    assert_eq!(app.revoke(&server, &tokens.text("/access_token")).await.summary(), "200");
    assert_eq!(app.refresh(&server, &refresh).await.summary(), "400 invalid_grant");
    let refresh = refresh_of(&server.tokens(&app).await);
    assert_eq!(app.revoke(&server, &refresh).await.summary(), "200");
    assert_eq!(app.refresh(&server, &refresh).await.summary(), "400 invalid_grant");
    let code = server.code(&app).await;
    let refresh = refresh_of(&app.redeem(&server, &code, &[]).await);
    assert_eq!(app.revoke(&server, &code).await.summary(), "200");
    assert_eq!(app.refresh(&server, &refresh).await.summary(), "400 invalid_grant");
}

async fn a_grant_that_its_account_revokes_has_ended(db: Db) {
    let server = OAuthServer::start(db).await;
    let did = &server.ann.did;
    let oauth = &server.app.oauth;
    let app = TestApp::published(&server, "app", &json!({ "client_name": "Anything" }));
    let refresh = refresh_of(&server.tokens(&app).await);
    let listed = oauth.list_of(did).await.unwrap();
    assert_eq!((listed.len(), &*listed[0].client.id, &listed[0].client.name), (1, &*app.id, &None));
    let grant = &listed[0].grant.id;
    // Another account must not end the grant.
    assert!(!oauth.end(&"did:plc:bbbbbbbbbbbbbbbbbbbbbbbb".parse().unwrap(), grant).await.unwrap());
    assert!(oauth.end(did, grant).await.unwrap());
    assert!(!oauth.end(did, grant).await.unwrap());
    assert_eq!(app.refresh(&server, &refresh).await.summary(), "400 invalid_grant");
    assert!(oauth.list_of(did).await.unwrap().is_empty());
}

async fn a_blocked_client_gets_nothing(db: Db) {
    let server = OAuthServer::start(db).await;
    let oauth = &server.app.oauth;
    let app = TestApp::published(&server, "app", &json!({ "client_name": "Anything" }));
    let refresh = refresh_of(&server.tokens(&app).await);
    // A trusted public client may use `prompt=none`, and pages show its name.
    assert_eq!(oauth.set_trust(&app.id, ClientTrust::Trusted).await.unwrap(), 0);
    let shown = &oauth.list_of(&server.ann.did).await.unwrap()[0].client;
    assert_eq!((shown.trusted, shown.name.as_deref()), (true, Some("Anything")));
    assert_eq!(app.push(&server, &[("prompt", "none")]).await.summary(), "201");
    assert_eq!(oauth.set_trust(&app.id, ClientTrust::Blocked).await.unwrap(), 1);
    assert_eq!(app.push(&server, &[]).await.summary(), "400 invalid_client");
    assert_eq!(app.refresh(&server, &refresh).await.summary(), "400 invalid_client");
    oauth.set_trust(&app.id, ClientTrust::Known).await.unwrap();
    assert_eq!(app.refresh(&server, &refresh).await.summary(), "400 invalid_grant");
}

async fn a_blocked_client_with_many_grants_loses_them_in_batches(db: Db) {
    let server = OAuthServer::start(db.clone()).await;
    let oauth = &server.app.oauth;
    let app = TestApp::published(&server, "app", &json!({ "client_name": "Anything" }));
    let refresh = refresh_of(&server.tokens(&app).await);
    // Twice as many each time.
    for step in 0..11 {
        sqlx::query(
            "INSERT INTO oauth_grants (id, did, client_id, scope, dpop_key, client_auth, device, refreshable,
                generation, rotated_at, rotated_before_at, idle_until, expires_at, created_at)
             SELECT id || $1, did, client_id, scope, dpop_key, client_auth, device, refreshable,
                generation, rotated_at, rotated_before_at, idle_until, expires_at, created_at
             FROM oauth_grants",
        )
        .bind(format!("-{step}"))
        .execute(db.writer())
        .await
        .unwrap();
    }
    let alive = async || -> i64 {
        let count = "SELECT COUNT(*) FROM oauth_grants WHERE ended_at IS NULL";
        sqlx::query_scalar(count).fetch_one(db.reader()).await.unwrap()
    };
    let blocking = tokio::spawn({
        let (oauth, client) = (oauth.clone(), app.id.clone());
        async move { oauth.set_trust(&client, ClientTrust::Blocked).await }
    });
    // Between two batches the grants of the first have ended, and others have not.
    eventually("the first batch has ended", async || alive().await < 2048).await;
    let batch = i64::try_from(db.rows_at_once()).unwrap();
    assert_eq!((2048 - alive().await) % batch, 0, "a batch ends as a whole");
    assert_eq!(app.refresh(&server, &refresh).await.summary(), "400 invalid_client");
    // A process that is killed here leaves the rest to the job.
    blocking.abort();
    drop(blocking.await);
    let left = alive().await;
    assert!(left > 0, "the test stopped it in between");
    assert_eq!(oauth.end_of_blocked_clients().await.unwrap(), u64::try_from(left).unwrap());
    assert_eq!(alive().await, 0);
}

async fn an_access_token_ends_with_its_grant(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let tokens = server.tokens(&app).await;
    // The grant of a public client lives for two weeks.
    server.clock.advance(Duration::from_hours(14 * 24) - Duration::from_mins(2));
    let refreshed = app.refresh(&server, &refresh_of(&tokens)).await;
    assert_eq!((refreshed.summary().as_str(), &refreshed.json()["expires_in"]), ("200", &json!(120)));
}
