//! A link and its grant end together, in one transaction: what is over in these tests was over when
//! the call returned.

use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::json;

use super::app::TestApp;
use super::linked::{allowed, bob, tokens};
use super::server::{OAuthServer, parameter};
use super::tokens::refresh_of;
use crate::base::random;
use crate::credentials::Ending;
use crate::db::{Db, on_each_database};
use crate::links::{LinkId, Reason};
use crate::oauth::{ClientTrust, GrantId, GrantsOf};

on_each_database!(
    a_link_that_ends_for_any_reason_ends_its_grant,
    a_grant_that_ends_in_any_way_ends_its_link,
    an_end_that_fails_half_way_ends_neither,
    a_code_whose_link_is_over_gives_no_grant,
    a_grant_whose_link_is_over_is_not_refreshed,
    ends_from_both_sides_at_once_end_both,
    a_link_that_ends_while_its_code_is_redeemed_leaves_no_grant
);

fn fresh_id() -> GrantId {
    HEXLOWER.encode(&random::bytes::<12>()).into()
}

/// A pair of the app, and its refresh token.
async fn pair(server: &OAuthServer, app: &TestApp) -> (GrantId, String) {
    let id = fresh_id();
    let answer = tokens(server, app, &bob(id.as_str())).await;
    assert!(!server.app.links.is_over(&(&id).into()).await.unwrap());
    (id, refresh_of(&answer))
}

async fn grant_is_over(server: &OAuthServer, id: &GrantId) -> bool {
    !server.app.oauth.over_among(std::slice::from_ref(id)).await.unwrap().is_empty()
}

async fn a_link_that_ends_for_any_reason_ends_its_grant(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let (other, _) = pair(&server, &app).await;
    for reason in Reason::ALL {
        let (id, refresh) = pair(&server, &app).await;
        assert!(server.app.links.end(&(&id).into(), reason).await.unwrap());
        assert!(grant_is_over(&server, &id).await, "{reason:?}");
        assert_eq!(app.refresh(&server, &refresh).await.summary(), "400 invalid_grant", "{reason:?}");
    }
    assert!(!grant_is_over(&server, &other).await);
}

async fn a_grant_that_ends_in_any_way_ends_its_link(db: Db) {
    let server = OAuthServer::start(db).await;
    let oauth = &server.app.oauth;
    let app = TestApp::published(&server, "app", &json!({}));
    let are_over = async |id: &GrantId, way: &str| {
        assert!(grant_is_over(&server, id).await, "{way}");
        assert!(server.app.links.is_over(&id.into()).await.unwrap(), "{way}");
        let link = server.app.links.find(&id.into()).await.unwrap().unwrap();
        assert_eq!(link.reason, Some("grant_ended"), "{way}");
    };

    let (id, refresh) = pair(&server, &app).await;
    assert_eq!(app.revoke(&server, &refresh).await.summary(), "200");
    are_over(&id, "the client revokes it").await;

    let (id, _) = pair(&server, &app).await;
    assert!(oauth.end(&bob(id.as_str()).did, &id).await.unwrap());
    are_over(&id, "the person revokes it").await;

    let (id, _) = pair(&server, &app).await;
    assert!(oauth.end_by_operator(&id).await.unwrap());
    are_over(&id, "the operator ends it").await;

    let (id, refresh) = pair(&server, &app).await;
    assert_eq!(app.refresh(&server, &refresh).await.summary(), "200");
    server.clock.advance(Duration::from_hours(1));
    assert_eq!(app.refresh(&server, &refresh).await.summary(), "400 invalid_grant");
    are_over(&id, "its refresh token is replayed").await;

    let id = fresh_id();
    let code = parameter(&allowed(&server, &app, &bob(id.as_str()), &[]).await, "code");
    assert_eq!(app.redeem(&server, &code, &[]).await.summary(), "200");
    assert_eq!(app.redeem(&server, &code, &[]).await.summary(), "400 invalid_grant");
    are_over(&id, "its code is used twice").await;

    let ((one, _), (two, _)) = (pair(&server, &app).await, pair(&server, &app).await);
    let mut tx = server.app.db.begin().await.unwrap();
    server.app.credentials.end(&mut tx, &bob(one.as_str()).did, Ending::Grants).await.unwrap();
    tx.commit().await.unwrap();
    are_over(&one, "all that the account allowed ends").await;
    are_over(&two, "all that the account allowed ends").await;

    let ((one, _), (two, _)) = (pair(&server, &app).await, pair(&server, &app).await);
    assert_eq!(oauth.set_trust(&app.id, ClientTrust::Blocked).await.unwrap(), 2);
    are_over(&one, "the client is blocked").await;
    are_over(&two, "the client is blocked").await;
}

/// As a process that stops in between, or a database that refuses the second write.
async fn an_end_that_fails_half_way_ends_neither(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let (id, refresh) = pair(&server, &app).await;
    let rename = async |from: &str, to: &str| {
        let statement = format!("ALTER TABLE {from} RENAME TO {to}");
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(server.app.db.writer()).await.unwrap();
    };
    rename("oauth_grants", "out_of_reach").await;
    let ended = server.app.links.end(&(&id).into(), Reason::Operator).await;
    rename("out_of_reach", "oauth_grants").await;
    assert!(ended.is_err());
    assert!(!server.app.links.is_over(&(&id).into()).await.unwrap() && !grant_is_over(&server, &id).await);

    let mut tx = server.app.db.begin().await.unwrap();
    server.app.credentials.end(&mut tx, &bob(id.as_str()).did, Ending::Grants).await.unwrap();
    drop(tx);
    assert!(!server.app.links.is_over(&(&id).into()).await.unwrap() && !grant_is_over(&server, &id).await);
    assert_eq!(app.refresh(&server, &refresh).await.summary(), "200");
}

async fn a_code_whose_link_is_over_gives_no_grant(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let id = fresh_id();
    let code = parameter(&allowed(&server, &app, &bob(id.as_str()), &[]).await, "code");
    assert!(server.app.links.end(&(&id).into(), Reason::GrantGone).await.unwrap());
    assert_eq!(app.redeem(&server, &code, &[]).await.summary(), "400 invalid_grant");
    assert!(server.app.oauth.list(GrantsOf::Everybody, 9).await.unwrap().is_empty());
}

/// One half of a pair is left in a database that was repaired by hand, until the job compares them.
async fn a_grant_whose_link_is_over_is_not_refreshed(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let (id, refresh) = pair(&server, &app).await;
    sqlx::query("UPDATE links SET state = 'dead' WHERE id = $1")
        .bind(id.as_str())
        .execute(server.app.db.writer())
        .await
        .unwrap();
    assert_eq!(app.refresh(&server, &refresh).await.summary(), "400 invalid_grant");
    assert!(server.app.oauth.end_dead(&id).await.unwrap());
    assert!(grant_is_over(&server, &id).await);
}

/// If the two transactions took the rows in different orders, PostgreSQL would break one of them off.
async fn ends_from_both_sides_at_once_end_both(db: Db) {
    let server = OAuthServer::start(db).await;
    let (app, oauth, links) =
        (TestApp::published(&server, "app", &json!({})), &server.app.oauth, &server.app.links);
    for round in 0..ROUNDS {
        let (id, refresh) = pair(&server, &app).await;
        let link = LinkId::from(&id);
        let (did, form) = (bob(id.as_str()).did, app.refresh(&server, &refresh));
        let (link, person, operator, refreshed) = tokio::join!(
            links.end(&link, Reason::GrantGone),
            oauth.end(&did, &id),
            oauth.end_by_operator(&id),
            form
        );
        link.unwrap();
        person.unwrap();
        operator.unwrap();
        let summary = refreshed.summary();
        assert!(["200", "400 invalid_grant"].contains(&&*summary), "{round}: {refreshed:?}");
        assert!(links.is_over(&(&id).into()).await.unwrap() && grant_is_over(&server, &id).await, "{round}");
    }
}

async fn a_link_that_ends_while_its_code_is_redeemed_leaves_no_grant(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    for round in 0..ROUNDS {
        let id = fresh_id();
        let code = parameter(&allowed(&server, &app, &bob(id.as_str()), &[]).await, "code");
        let link = LinkId::from(&id);
        let (redeemed, ended) =
            tokio::join!(app.redeem(&server, &code, &[]), server.app.links.end(&link, Reason::GrantGone));
        assert!(ended.unwrap());
        let summary = redeemed.summary();
        assert!(["200", "400 invalid_grant"].contains(&&*summary), "{round}: {redeemed:?}");
        assert!(grant_is_over(&server, &id).await, "{round}");
    }
}

const ROUNDS: usize = 12;
