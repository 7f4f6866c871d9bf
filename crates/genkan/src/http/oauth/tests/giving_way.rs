//! Transactions of people and apps that have to give way to others.

use super::app::TestApp;
use super::server::{OAuthServer, parameter};
use super::tokens::refresh_of;
use crate::db::testing::Fresh;
use crate::limits::{Limit, address};

#[tokio::test]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn a_transaction_that_gives_way_is_repeated() {
    let fresh = Fresh::postgres().await;
    let db = &fresh.db;
    let server = OAuthServer::start(db.clone()).await;
    let (oauth, sign_ins) = (&server.app.oauth, &server.app.sign_ins);
    let app = TestApp::confidential(&server, "app");

    db.giving_way("devices", server.signed_in()).await;
    let (mut visit, signed_in) = db.giving_way("device_accounts", server.signed_in()).await;
    db.giving_way("devices", sign_ins.rotate(&mut visit)).await.unwrap();
    let (now, client) = (server.clock.now(), address([192, 0, 2, 7].into()));
    let counting = server.app.limits.attempt(db, Limit::SignInAddress, &client, now);
    db.giving_way("rate_counters", counting).await.unwrap();

    let request_uri = db.giving_way("oauth_requests", server.pushed(&app, &[])).await;
    let opening = oauth.open(&request_uri, &app.id, &visit.device);
    let opened = db.giving_way("oauth_requests", opening).await.unwrap();
    let approving = oauth.approve(&opened, &signed_in, None);
    let redirect = db.giving_way("oauth_codes", approving).await.unwrap();
    let tokens = app.redeem(&server, &parameter(&redirect, "code"), &[]).await.ok();
    let revoked = db.giving_way("oauth_grants", app.revoke(&server, &refresh_of(&tokens))).await;
    assert_eq!(revoked.summary(), "200");
    assert!(oauth.list_of(&server.ann.did).await.unwrap().is_empty());

    let request_uri = server.pushed(&app, &[]).await;
    let opened = oauth.open(&request_uri, &app.id, &visit.device).await.unwrap();
    db.giving_way("oauth_requests", oauth.reject(&opened)).await.unwrap();

    for by_operator in [false, true] {
        server.tokens(&app).await;
        let grant = oauth.list_of(&server.ann.did).await.unwrap().remove(0).grant.id;
        let ended = if by_operator {
            db.giving_way("oauth_grants", oauth.end_by_operator(&grant)).await
        } else {
            db.giving_way("oauth_grants", oauth.end(&server.ann.did, &grant)).await
        };
        assert!(ended.unwrap());
    }
    let leaving = sign_ins.sign_out_at(&visit.device, &server.ann.did);
    assert!(db.giving_way("device_accounts", leaving).await.unwrap());
}
