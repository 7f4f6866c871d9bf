//! An action that ends all sign-ins and grants of an account also ends requests that are in
//! progress.

use genkan_protocol::jwt::session::Scope;
use serde_json::json;

use super::tokens::refresh_of;
use super::world::{TestApp, World, said};
use crate::db::audit::Actor;
use crate::db::on_each_database;
use crate::sessions;

on_each_database!(
    a_session_is_not_opened_by_a_password_from_before,
    a_page_from_before_a_reset_gives_no_code,
    a_code_from_before_a_deactivation_gives_no_grant,
    a_deletion_that_begins_ends_everything
);

async fn reset(world: &World) {
    world.app.standings.set_password_hash(&world.ann.did, "another", Actor::Genkan).await.unwrap();
}

async fn a_session_is_not_opened_by_a_password_from_before(db: crate::db::Db) {
    let world = World::new(db).await;
    world.app.sessions.open_for(world.ann.clone(), Scope::Access, None).await.unwrap();
    reset(&world).await;
    let late = world.app.sessions.open_for(world.ann.clone(), Scope::Access, None).await;
    assert!(matches!(late, Err(sessions::Error::WrongPassword)));
    let removed = world.app.sessions.open_for(world.ann.clone(), Scope::AppPass, Some("phone")).await;
    assert!(matches!(removed, Err(sessions::Error::WrongPassword)));
}

async fn a_page_from_before_a_reset_gives_no_code(db: crate::db::Db) {
    let world = World::new(db).await;
    let app = TestApp::published(&world, "app", &json!({}));
    let (visit, signed_in) = world.browser().await;
    let pushed = app.push(&world, &[]).await;
    let request = pushed.text("request_uri");
    let opened = world.app.oauth.open(&request, &app.id, &visit.device).await.unwrap();
    reset(&world).await;
    let redirect = world.app.oauth.approve(&opened, &signed_in, None).await.unwrap();
    assert_eq!(said(&redirect, "error"), "access_denied");
}

async fn a_code_from_before_a_deactivation_gives_no_grant(db: crate::db::Db) {
    let world = World::new(db).await;
    let app = TestApp::published(&world, "app", &json!({}));
    let code = world.code(&app).await;
    assert!(world.set_deactivated(true).await);
    assert_eq!(app.redeem(&world, &code, &[]).await.summary(), "400 invalid_grant");
    assert!(world.set_deactivated(false).await);
    assert_eq!(app.redeem(&world, &code, &[]).await.summary(), "400 invalid_grant", "dead");
}

/// The host is not there: the deletion goes on later, and nobody uses the account meanwhile.
async fn a_deletion_that_begins_ends_everything(db: crate::db::Db) {
    let world = World::new(db).await;
    let app = TestApp::published(&world, "app", &json!({}));
    let tokens = world.tokens(&app).await;
    let did = &world.ann.did;
    assert!(world.app.standings.delete(did, Actor::Genkan).await.is_err());
    assert_eq!(app.refresh(&world, &refresh_of(&tokens)).await.summary(), "400 invalid_grant");
    assert!(world.app.accounts.find(did).await.unwrap().is_none());
    assert!(!world.set_deactivated(false).await);
    world.later(std::time::Duration::from_mins(2));
    let due = world.app.accounts.due_for_deletion(world.app.clock.now(), 10).await.unwrap();
    assert_eq!(due, std::slice::from_ref(did));
}
