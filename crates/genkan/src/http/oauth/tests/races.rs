//! An action that ends all sign-ins and grants of an account also ends requests that are in
//! progress.

use genkan_protocol::jwt::session::Scope;
use serde_json::json;

use super::app::TestApp;
use super::server::{OAuthServer, parameter};
use super::tokens::refresh_of;
use crate::db::audit::Actor;
use crate::db::on_each_database;
use crate::sessions;

on_each_database!(
    a_session_is_not_opened_by_a_password_from_before,
    a_page_from_before_a_reset_gives_no_code,
    a_code_from_before_a_deactivation_gives_no_grant,
    a_deletion_that_begins_ends_everything
);

async fn reset(server: &OAuthServer) {
    server.app.standings.set_password_hash(&server.ann.did, "another", Actor::Genkan).await.unwrap();
}

async fn a_session_is_not_opened_by_a_password_from_before(db: crate::db::Db) {
    let server = OAuthServer::start(db).await;
    server.app.sessions.open_for(server.ann.clone(), Scope::Access, None).await.unwrap();
    reset(&server).await;
    let late = server.app.sessions.open_for(server.ann.clone(), Scope::Access, None).await;
    assert!(matches!(late, Err(sessions::Error::WrongPassword)));
    let removed = server.app.sessions.open_for(server.ann.clone(), Scope::AppPass, Some("phone")).await;
    assert!(matches!(removed, Err(sessions::Error::WrongPassword)));
}

async fn a_page_from_before_a_reset_gives_no_code(db: crate::db::Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let (visit, signed_in) = server.signed_in().await;
    let pushed = app.push(&server, &[]).await;
    let request = pushed.text("/request_uri");
    let opened = server.app.oauth.open(&request, &app.id, &visit.device).await.unwrap();
    reset(&server).await;
    let redirect = server.app.oauth.approve(&opened, &signed_in, None).await.unwrap();
    assert_eq!(parameter(&redirect, "error"), "access_denied");
}

async fn a_code_from_before_a_deactivation_gives_no_grant(db: crate::db::Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let code = server.code(&app).await;
    assert!(server.set_deactivated(true).await);
    assert_eq!(app.redeem(&server, &code, &[]).await.summary(), "400 invalid_grant");
    assert!(server.set_deactivated(false).await);
    assert_eq!(app.redeem(&server, &code, &[]).await.summary(), "400 invalid_grant", "dead");
}

/// The host is not there: the deletion goes on later, and nobody uses the account meanwhile.
async fn a_deletion_that_begins_ends_everything(db: crate::db::Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let tokens = server.tokens(&app).await;
    let did = &server.ann.did;
    assert!(server.app.standings.delete(did, Actor::Genkan).await.is_err());
    assert_eq!(app.refresh(&server, &refresh_of(&tokens)).await.summary(), "400 invalid_grant");
    assert!(server.app.accounts.find(did).await.unwrap().is_none());
    assert!(!server.set_deactivated(false).await);
    server.clock.advance(std::time::Duration::from_mins(2));
    let due =
        server.app.accounts.take_due_for_deletion(&server.ann.host, server.app.clock.now()).await.unwrap();
    assert_eq!(due, std::slice::from_ref(did));
}
