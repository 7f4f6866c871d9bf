//! Whose signature counts: of apps with several keys, and of our own tokens.

use genkan_protocol::oauth::access_token::{self, Token};
use genkan_protocol::oauth::jwk::Jwk;
use serde_json::json;

use super::app::{TestApp, confidential_members, fresh_key};
use super::server::OAuthServer;
use crate::db::{Db, on_each_database};
use crate::keys::WebPurpose;
use crate::oauth::Call;

on_each_database!(
    a_client_goes_on_with_the_key_that_it_began_with,
    an_assertion_is_signed_as_the_metadata_says,
    a_token_of_another_issuer_is_refused,
    a_key_for_another_purpose_signs_no_tokens
);

async fn a_client_goes_on_with_the_key_that_it_began_with(db: Db) {
    let server = OAuthServer::start(db).await;
    let (first, second) = (fresh_key(), fresh_key());
    let mut members = confidential_members(&first, "one");
    members["jwks"] =
        json!({ "keys": [Jwk::of(&first.public()).named("one"), Jwk::of(&second.public()).named("two")] });
    let mut app = TestApp::published(&server, "app", &members);
    let other = "the client authenticated with another key before";

    app.own_key = Some((first.clone(), "one"));
    let code = server.code(&app).await;
    app.own_key = Some((second.clone(), "two"));
    let refused = app.redeem(&server, &code, &[]).await;
    assert_eq!((refused.summary().as_str(), refused.description().as_str()), ("400 invalid_grant", other));

    let token = server.tokens(&app).await.text("/refresh_token");
    app.own_key = Some((first, "one"));
    let refused = app.refresh(&server, &token).await;
    assert_eq!((refused.summary().as_str(), refused.description().as_str()), ("400 invalid_grant", other));
    app.own_key = Some((second, "two"));
    assert_eq!(app.refresh(&server, &token).await.summary(), "200", "nothing has ended by that");
}

async fn an_assertion_is_signed_as_the_metadata_says(db: Db) {
    let server = OAuthServer::start(db).await;
    let key = fresh_key();
    let mut members = confidential_members(&key, "one");
    members["token_endpoint_auth_signing_alg"] = json!("ES256K");
    let app = TestApp { own_key: Some((key, "one")), ..TestApp::published(&server, "app", &members) };
    let refused = app.push(&server, &[]).await;
    assert_eq!(refused.summary(), "400 invalid_client");
    assert!(refused.description().contains("token_endpoint_auth_signing_alg"), "{refused:?}");
}

/// The signing key stays when Genkan's origin changes. A token with the earlier origin as its
/// issuer is no longer accepted.
async fn a_token_of_another_issuer_is_refused(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let token = server.tokens(&app).await.text("/access_token");
    let key = server.app.ring.host_key("oak").unwrap();
    let mut claims = Token::parse(&token).unwrap().verify(&key.public).unwrap().clone();
    for (issuer, expected) in [
        (claims.iss.clone(), None),
        ("https://before.example.com".to_owned(), Some("the token could not be verified")),
    ] {
        claims.iss = issuer;
        let token = access_token::sign(&key.private, &claims);
        let path = "/xrpc/app.bsky.feed.getTimeline";
        let proof = app.proof_for(&server, path, Some(&token));
        let call = Call { method: "POST", path, proofs: vec![&proof] };
        let refused = server.app.oauth.check_access(&token, &call).await.err().map(|error| error.to_string());
        assert_eq!(refused.as_deref(), expected, "{}", claims.iss);
    }
}

/// Genkan's client key is in its key set too. What it signs goes to other servers.
async fn a_key_for_another_purpose_signs_no_tokens(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let token = server.tokens(&app).await.text("/access_token");
    let key = server.app.ring.host_key("oak").unwrap();
    let mut claims = Token::parse(&token).unwrap().verify(&key.public).unwrap().clone();
    claims.aud = server.app.config.service.did.to_string();
    for (purpose, is_accepted) in [(WebPurpose::Tokens, true), (WebPurpose::Client, false)] {
        let key = server.app.ring.web_key(purpose);
        let token = access_token::sign_linked(&key.private, &key.id, &claims);
        let path = "/xrpc/com.atproto.repo.createRecord";
        let proof = app.proof_for(&server, path, Some(&token));
        let call = Call { method: "POST", path, proofs: vec![&proof] };
        let checked = server.app.oauth.check_access(&token, &call).await;
        assert_eq!(checked.is_ok(), is_accepted, "{purpose:?}: {checked:?}");
    }
}
