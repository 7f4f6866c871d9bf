//! Grants of linked accounts, and clients that get plain Bearer tokens.

use data_encoding::HEXLOWER;
use genkan_protocol::oauth::access_token::Token;
use genkan_testing::Answer;
use serde_json::json;

use super::app::TestApp;
use super::server::{OAuthServer, parameter};
use crate::base::{WaitingClient, random};
use crate::db::{Db, on_each_database};
use crate::http::testing::ORIGIN;
use crate::keys::WebPurpose;
use crate::links::testing::{insert_live, insert_waiting};
use crate::oauth::{Call, CallerPlace, ExpandedScope, GrantId, LinkedAccount};

on_each_database!(
    a_linked_grant_s_token_is_addressed_to_us,
    a_linked_account_gets_what_its_server_granted,
    a_permission_set_that_its_server_expanded_is_not_lost,
    a_linked_grant_refreshes_and_ends_as_any_other,
    a_hint_keeps_another_account_out,
    a_linked_consent_that_ran_out_of_time_can_be_sent_again,
    only_registered_clients_come_without_a_proof,
    a_bearer_token_is_valid_without_a_proof_and_a_bound_one_is_not,
    tokens_signed_before_a_rotation_stay_valid
);

const BOB: &str = "did:plc:bobbobbobbobbobbobbobbob";
const PATH: &str = "/xrpc/com.atproto.repo.createRecord";

pub(super) fn bob(id: &str) -> LinkedAccount {
    LinkedAccount {
        id: id.into(),
        did: BOB.parse().unwrap(),
        handle: "bob.external.example".to_owned(),
        scope: ExpandedScope::for_tests("atproto transition:generic"),
    }
}

/// The app's redirect after Bob allowed it.
pub(super) async fn allowed(
    server: &OAuthServer,
    app: &TestApp,
    linked: &LinkedAccount,
    changes: &[(&str, &str)],
) -> crate::oauth::Redirect {
    let (visit, _) = server.signed_in().await;
    let request_uri = server.pushed(app, changes).await;
    let opened = server.app.oauth.open(&request_uri, &app.id, &visit.device).await.unwrap();
    insert_live(&server.app.db, &(&linked.id).into(), &linked.did, server.clock.now()).await;
    server.app.oauth.approve_linked(&opened, linked).await.unwrap()
}

pub(super) async fn tokens(server: &OAuthServer, app: &TestApp, linked: &LinkedAccount) -> Answer {
    let code = parameter(&allowed(server, app, linked, &[]).await, "code");
    let answer = app.redeem(server, &code, &[]).await;
    assert_eq!(answer.summary(), "200", "{answer:?}");
    answer
}

async fn a_linked_grant_s_token_is_addressed_to_us(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let link = bob("aaaaaaaaaaaaaaaaaaaaaaaa");
    let answer = tokens(&server, &app, &link).await;
    assert_eq!((answer.text("/token_type"), answer.text("/sub")), ("DPoP".into(), BOB.into()));
    let text = answer.text("/access_token");
    let token = Token::parse(&text).unwrap();
    let key = server.app.ring.web_key(WebPurpose::Tokens);
    assert_eq!(token.kid(), Some(&*key.id));
    let claims = token.verify(&key.public).unwrap();
    assert_eq!((&*claims.iss, &*claims.aud), (ORIGIN, server.app.config.service.did.as_str()));
    assert_eq!(claims.cnf.unwrap().jkt, app.proof_key.thumbprint());
    let published = server.get("/oauth/jwks").await;
    let published = published.json();
    let names = published["keys"].as_array().unwrap();
    assert!(names.iter().any(|one| one["kid"] == key.id.as_str() && one["alg"] == "ES256"), "{published:?}");
    let proof = app.proof_for(&server, PATH, Some(&text));
    let call = Call { method: "POST", path: PATH, proofs: vec![&proof] };
    let caller = server.app.oauth.check_access(&text, &call).await.unwrap();
    assert_eq!((&caller.place, caller.did.as_str(), &caller.grant), (&CallerPlace::Link, BOB, &link.id));
}

async fn a_linked_consent_that_ran_out_of_time_can_be_sent_again(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let linked = bob("aaaaaaaaaaaaaaaaaaaaaaaa");
    let (visit, _) = server.signed_in().await;
    let request_uri = server.pushed(&app, &[]).await;
    let mut opened = server.app.oauth.open(&request_uri, &app.id, &visit.device).await.unwrap();
    let link = (&linked.id).into();
    insert_waiting(&server.app.db, &link, &linked.did, server.clock.now()).await;
    let state = async || server.app.links.find(&link).await.unwrap().unwrap().state.as_str();
    opened.browser = WaitingClient::new();
    assert!(opened.browser.leave());
    assert!(server.app.oauth.approve_linked(&opened, &linked).await.is_err());
    assert_eq!(state().await, "waiting", "nothing is used up");
    opened.browser = WaitingClient::default();
    let code = parameter(&server.app.oauth.approve_linked(&opened, &linked).await.unwrap(), "code");
    assert_eq!(state().await, "live");
    // A form that was sent twice ends nothing.
    assert!(server.app.oauth.approve_linked(&opened, &linked).await.is_err());
    assert_eq!((state().await, app.redeem(&server, &code, &[]).await.summary().as_str()), ("live", "200"));
}

async fn a_linked_account_gets_what_its_server_granted(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let fewer = LinkedAccount {
        scope: ExpandedScope::for_tests("atproto transition:email"),
        ..bob("aaaaaaaaaaaaaaaaaaaaaaaa")
    };
    assert_eq!(tokens(&server, &app, &fewer).await.text("/scope"), "atproto");
    let nothing = LinkedAccount {
        scope: ExpandedScope::for_tests("transition:generic"),
        ..bob("bbbbbbbbbbbbbbbbbbbbbbbb")
    };
    assert_eq!(parameter(&allowed(&server, &app, &nothing, &[]).await, "error"), "access_denied");
}

/// As the reference server does, which answers with what a set stands for and not with its name.
async fn a_permission_set_that_its_server_expanded_is_not_lost(db: Db) {
    let server = OAuthServer::start(db.clone()).await;
    let asked = "atproto include:org.example.set";
    let app = TestApp::published(&server, "app", &json!({ "scope": asked }));
    let document = json!({
        "lexicon": 1, "id": "org.example.set",
        "defs": { "main": { "type": "permission-set", "title": "Notes", "permissions": [
            { "type": "permission", "resource": "repo", "collection": ["org.example.note", "org.example.tag"] },
            { "type": "permission", "resource": "repo", "collection": ["org.example.list"], "action": ["create"] },
        ] } },
    });
    let mut tx = db.begin().await.unwrap();
    let row = "INSERT INTO permission_sets (nsid, document, verified_at, checked_at) VALUES ($1, $2, $3, $3)";
    let row = sqlx::query(row).bind("org.example.set").bind(document.to_string());
    row.bind(server.app.clock.now().as_millis()).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    let all =
        "repo?collection=org.example.note&collection=org.example.tag repo:org.example.list?action=create";
    let listed = "repo:org.example.list?action=create";
    for (granted, shown, got) in [
        (format!("atproto {all}"), vec!["atproto", "include:org.example.set"], format!("atproto {all}")),
        // Written otherwise, and together with more.
        (
            "atproto repo:org.example.list repo:org.example.tag repo:org.example.note".to_owned(),
            vec!["atproto", "include:org.example.set"],
            format!("atproto {all}"),
        ),
        (asked.to_owned(), vec!["atproto", "include:org.example.set"], format!("atproto {all}")),
        (format!("atproto {listed}"), vec!["atproto", listed], format!("atproto {listed}")),
        ("atproto repo:org.example.note".to_owned(), vec!["atproto"], "atproto".to_owned()),
        ("atproto".to_owned(), vec!["atproto"], "atproto".to_owned()),
    ] {
        let linked = LinkedAccount {
            scope: ExpandedScope::for_tests(&granted),
            ..bob(&HEXLOWER.encode(&random::bytes::<12>()))
        };
        let (visit, _) = server.signed_in().await;
        app.round.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let pushed = app.push(&server, &[("scope", asked)]).await;
        assert_eq!(pushed.summary(), "201", "{pushed:?}");
        let oauth = &server.app.oauth;
        let opened = oauth.open(&pushed.text("/request_uri"), &app.id, &visit.device).await.unwrap();
        let view = oauth.consent_view_linked(&opened, &linked).await.unwrap();
        let values: Vec<_> = view.permissions.iter().map(|permission| &*permission.value).collect();
        assert_eq!(values, shown, "{granted}");
        insert_live(&server.app.db, &(&linked.id).into(), &linked.did, server.clock.now()).await;
        let code = parameter(&oauth.approve_linked(&opened, &linked).await.unwrap(), "code");
        let answer = app.redeem(&server, &code, &[]).await;
        assert_eq!(answer.text("/scope"), got, "{granted}");
        let refreshed = app.refresh(&server, &answer.text("/refresh_token")).await;
        assert_eq!(refreshed.text("/scope"), got, "{granted}");
    }
}

async fn a_linked_grant_refreshes_and_ends_as_any_other(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let link = bob("aaaaaaaaaaaaaaaaaaaaaaaa");
    let first = tokens(&server, &app, &link).await;
    let second = app.refresh(&server, &first.text("/refresh_token")).await;
    assert_eq!((second.summary(), second.text("/sub")), ("200".into(), BOB.into()), "{second:?}");
    let ids = [link.id.clone(), GrantId::from("b".repeat(24))];
    assert_eq!(server.app.oauth.over_among(&ids).await.unwrap(), ids[1..]);
    assert!(server.app.oauth.end_dead(&link.id).await.unwrap());
    let third = app.refresh(&server, &second.text("/refresh_token")).await;
    assert_eq!(third.summary(), "400 invalid_grant", "{third:?}");
    let text = second.text("/access_token");
    let proof = app.proof_for(&server, PATH, Some(&text));
    let call = Call { method: "POST", path: PATH, proofs: vec![&proof] };
    let over = server.app.oauth.check_access(&text, &call).await.unwrap_err();
    assert_eq!(over.code(), Some("invalid_token"), "{over}");
    assert_eq!(server.app.oauth.over_among(&ids).await.unwrap(), ids);
}

async fn a_hint_keeps_another_account_out(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    for (hint, allows) in [(BOB, true), ("bob.external.example", true), ("eve.external.example", false)] {
        let answer = allowed(&server, &app, &bob("aaaaaaaaaaaaaaaaaaaaaaaa"), &[("login_hint", hint)]).await;
        assert_eq!(answer.parameters.iter().any(|(name, _)| *name == "code"), allows, "{hint}");
    }
}

async fn only_registered_clients_come_without_a_proof(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "backend", &json!({ "dpop_bound_access_tokens": false }));
    let refused = app.push_with(&server, &[], &[]).await;
    assert_eq!(refused.summary(), "400 invalid_client_metadata", "{refused:?}");
    server.app.oauth.set_bearer(&app.id, true).await.unwrap();
    let taken = app.push_with(&server, &[], &[]).await;
    assert_eq!(taken.summary(), "201", "{taken:?}");
    server.app.oauth.set_bearer(&app.id, false).await.unwrap();
    let refused = app.push_with(&server, &[], &[]).await;
    assert_eq!(refused.summary(), "400 invalid_client_metadata", "{refused:?}");
    let form = [("grant_type", "refresh_token"), ("refresh_token", "ref-0")];
    let refused = app.post_with(&server, "/oauth/token", &form, &[], &[]).await;
    assert_eq!(refused.summary(), "401 invalid_dpop_proof", "{refused:?}");
}

async fn a_bearer_token_is_valid_without_a_proof_and_a_bound_one_is_not(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "backend", &json!({ "dpop_bound_access_tokens": false }));
    server.app.oauth.set_bearer(&app.id, true).await.unwrap();
    app.round.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let (visit, signed_in) = server.signed_in().await;
    let pushed = app.push_with(&server, &[], &[]).await;
    let opened = server.app.oauth.open(&pushed.text("/request_uri"), &app.id, &visit.device).await.unwrap();
    let code = parameter(&server.app.oauth.approve(&opened, &signed_in, None).await.unwrap(), "code");
    let verifier = app.verifier();
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &*code),
        ("redirect_uri", &*app.redirect),
        ("code_verifier", &*verifier),
    ];
    let answer = app.post_with(&server, "/oauth/token", &form, &[], &[]).await;
    assert_eq!((answer.summary(), answer.text("/token_type")), ("200".into(), "Bearer".into()), "{answer:?}");
    let token = answer.text("/access_token");
    assert!(server.app.oauth.is_ours_by_grant(&token));
    let caller = server.app.oauth.check_bearer(&token).await.unwrap();
    // A home account's, although only we read its token.
    assert_eq!((&caller.did, &caller.place), (&server.ann.did, &CallerPlace::Host("oak".into())));
    let form = [("grant_type", "refresh_token"), ("refresh_token", &*answer.text("/refresh_token"))];
    let refreshed = app.post_with(&server, "/oauth/token", &form, &[], &[]).await;
    assert_eq!(refreshed.summary(), "200", "{refreshed:?}");
    // With a proof it has no key to be bound to.
    let proof = app.proof_for(&server, PATH, Some(&token));
    let call = Call { method: "POST", path: PATH, proofs: vec![&proof] };
    let refused = server.app.oauth.check_access(&token, &call).await.unwrap_err();
    assert_eq!(refused.code(), Some("invalid_token"), "{refused}");

    let bound = TestApp::published(&server, "bound", &json!({}));
    let token = tokens(&server, &bound, &bob("aaaaaaaaaaaaaaaaaaaaaaaa")).await.text("/access_token");
    let refused = server.app.oauth.check_bearer(&token).await.unwrap_err();
    assert_eq!(refused.code(), Some("invalid_token"), "{refused}");
    let form = [("token", &*token)];
    let answer = app.post_with(&server, "/oauth/revoke", &form, &[], &[]).await;
    assert_eq!(answer.summary(), "200", "another client's token is left alone: {answer:?}");
    assert!(server.app.oauth.over_among(&["a".repeat(24).into()]).await.unwrap().is_empty());
}

async fn tokens_signed_before_a_rotation_stay_valid(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let before = tokens(&server, &app, &bob("aaaaaaaaaaaaaaaaaaaaaaaa")).await.text("/access_token");
    let old = server.app.ring.web_key(WebPurpose::Tokens).id.clone();
    let new = server.app.ring.rotate_web_key(WebPurpose::Tokens).await.unwrap();
    assert_eq!(server.app.ring.web_key(WebPurpose::Tokens).id, old, "it is shown first");
    server.clock.advance(crate::keys::PUBLISHED_BEFORE);
    let after = tokens(&server, &app, &bob("bbbbbbbbbbbbbbbbbbbbbbbb")).await.text("/access_token");
    assert_eq!(Token::parse(&after).unwrap().kid(), Some(&*new.id));
    let lifetime = server.app.config.oauth.access_lifetime;
    assert_eq!(
        server.app.ring.retire_outdated(WebPurpose::Tokens, lifetime).await.unwrap(),
        0,
        "one may live"
    );
    let token = Token::parse(&before).unwrap();
    assert!(token.verify(&server.app.ring.web_key_by_id(&old).unwrap().public).is_ok());
    server.clock.advance(lifetime + std::time::Duration::from_mins(10));
    assert_eq!(server.app.ring.retire_outdated(WebPurpose::Tokens, lifetime).await.unwrap(), 1);
    assert!(server.app.ring.web_key_by_id(&old).is_none());
}
