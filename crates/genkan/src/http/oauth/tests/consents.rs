//! What a person allowed an app before, and what makes the app ask again.

use super::app::TestApp;
use super::server::OAuthServer;
use super::tokens::refresh_of;
use crate::db::audit::Actor;
use crate::db::{Db, on_each_database};
use crate::oauth::{Outcome, Page};

on_each_database!(
    a_reset_leaves_nothing_that_was_allowed_before,
    an_app_that_lost_its_access_has_to_ask_again,
);

async fn a_reset_leaves_nothing_that_was_allowed_before(db: Db) {
    let mut server = OAuthServer::start(db).await;
    let app = TestApp::confidential(&server, "app");
    let tokens = server.tokens(&app).await;
    assert!(matches!(chosen(&server, &app).await, Outcome::Redirect(_)), "it was allowed before");
    let (visit, _) = server.signed_in().await;
    let code = server.code(&app).await;
    server.app.standings.set_password_hash(&server.ann.did, "another", Actor::Operator).await.unwrap();
    let did = server.ann.did.clone();
    assert!(server.app.sign_ins.signed_in(&visit, None).await.unwrap().is_empty());
    assert_eq!(app.redeem(&server, &code, &[]).await.summary(), "400 invalid_grant");
    assert_eq!(app.refresh(&server, &refresh_of(&tokens)).await.summary(), "400 invalid_grant");
    assert!(server.app.oauth.list_of(&did).await.unwrap().is_empty());
    // The person with the new password is asked about the app.
    server.ann = server.app.accounts.find(&did).await.unwrap().unwrap();
    let outcome = chosen(&server, &app).await;
    assert!(matches!(outcome, Outcome::Show(Page::Consent(_))), "{outcome:?}");
}

async fn an_app_that_lost_its_access_has_to_ask_again(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::confidential(&server, "app");
    server.tokens(&app).await;
    assert!(matches!(chosen(&server, &app).await, Outcome::Redirect(_)), "it was allowed before");
    let did = &server.ann.did;
    for view in server.app.oauth.list_of(did).await.unwrap() {
        assert!(server.app.oauth.end(did, &view.grant.id).await.unwrap());
    }
    let outcome = chosen(&server, &app).await;
    assert!(matches!(outcome, Outcome::Show(Page::Consent(_))), "{outcome:?}");
}

/// What becomes of a new request of the app for which Ann is chosen.
async fn chosen(server: &OAuthServer, app: &TestApp) -> Outcome {
    let (visit, signed_in) = server.signed_in().await;
    let request_uri = server.pushed(app, &[]).await;
    let opened = server.app.oauth.open(&request_uri, &app.id, &visit.device).await.unwrap();
    server.app.oauth.chosen(&opened, &signed_in).await.unwrap()
}
