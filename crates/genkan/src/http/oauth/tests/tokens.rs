//! Codes, access tokens, refresh tokens.

use std::fmt::Write as _;
use std::time::Duration;

use genkan_protocol::oauth::access_token::Token;
use genkan_protocol::oauth::request::Form;
use genkan_testing::Answer;
use http::HeaderMap;
use serde_json::json;

use super::app::{TestApp, confidential_members, fresh_key, fresh_proof_key};
use super::server::{OAuthServer, parameter};
use crate::base::WaitingClient;
use crate::credentials::Ending;
use crate::db::{self, Db, on_each_database};
use crate::http::testing::ORIGIN;
use crate::oauth::{Call, Error, Problem, proofs};

on_each_database!(
    a_token_is_as_hosts_want_it,
    a_token_is_valid_at_genkans_own_origin_by_its_key,
    a_code_used_twice_ends_its_grant,
    a_code_is_for_whom_it_was_given_to,
    a_challenge_is_valid_once,
    nothing_is_used_up_for_who_does_not_wait,
    a_refresh_can_be_repeated_for_a_short_time_only,
    a_caller_without_the_key_ends_no_grant,
    a_key_that_was_taken_back_ends_the_grant,
    grants_live_as_long_as_their_client_may,
    an_account_that_is_away_gets_nothing,
    a_client_that_is_away_goes_on,
    a_long_scope_goes_by_reference,
    malformed_token_requests_have_their_answers,
    no_server_is_asked_for_a_caller_without_a_live_code_or_token,
);

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

pub(super) fn refresh_of(answer: &Answer) -> String {
    answer.text("/refresh_token")
}

async fn a_token_is_as_hosts_want_it(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let answer = server.tokens(&app).await;
    assert_eq!(
        (answer.text("/token_type"), answer.text("/scope")),
        ("DPoP".into(), "atproto transition:generic".into()),
        "0.9"
    );
    assert_eq!(
        (answer.text("/sub"), &answer.json()["expires_in"]),
        (server.ann.did.to_string(), &json!(300))
    );
    assert!(answer.json().get("id_token").is_none());
    let token = answer.text("/access_token");
    let header = data_encoding::BASE64URL_NOPAD.decode(token.split('.').next().unwrap().as_bytes()).unwrap();
    assert_eq!(String::from_utf8(header).unwrap(), r#"{"typ":"at+jwt","alg":"ES256K"}"#, "0.1");
    let token = Token::parse(&token).unwrap();
    let claims = token.verify(&server.app.ring.host_key("oak").unwrap().public).unwrap();
    assert_eq!(claims.iss, ORIGIN, "0.2");
    assert_eq!(claims.aud, "did:web:oak.example.com", "0.3");
    // `tok-` and 32 hexadecimal digits.
    assert_eq!(claims.jti.len(), 36, "0.4");
    assert_eq!((claims.client_id.as_str(), claims.cnf.unwrap().jkt), (&*app.id, app.proof_key.thumbprint()));
    assert_eq!(claims.exp - claims.iat, 300);
    // A client without the grant type gets no refresh token.
    let members = json!({ "grant_types": ["authorization_code"] });
    let app = TestApp::published(&server, "brief", &members);
    assert!(server.tokens(&app).await.json().get("refresh_token").is_none());
}

async fn a_token_is_valid_at_genkans_own_origin_by_its_key(db: Db) {
    let server = OAuthServer::start(db).await;
    let second = server.another().await;
    let app = TestApp::published(&server, "app", &json!({}));
    let thief = TestApp::published(&server, "app", &json!({}));
    let tokens = server.tokens(&app).await;
    let token = tokens.text("/access_token");
    let path = "/xrpc/app.bsky.feed.getTimeline";
    let proof = |by: &TestApp| by.proof_for(&server, path, Some(&token));
    let check = async |at: &OAuthServer, token: &str, proofs: Vec<&str>| {
        let call = Call { method: "POST", path, proofs };
        match at.app.oauth.check_access(token, &call).await {
            Ok(caller) => format!("{} {}", caller.did, caller.scope),
            Err(error) => error.to_string(),
        }
    };
    let fine = format!("{} atproto transition:generic", server.ann.did);
    let once = proof(&app);
    assert_eq!(check(&server, &token, vec![&once]).await, fine);
    assert_eq!(check(&server, &token, vec![&once]).await, "the DPoP proof was already used", "22");
    assert_eq!(check(&second, &token, vec![&once]).await, "the DPoP proof was already used", "22 at another");
    assert_eq!(check(&second, &token, vec![&proof(&app)]).await, fine);
    assert_eq!(check(&server, &token, vec![&proof(&thief)]).await, "Invalid DPoP key binding");
    assert_eq!(check(&server, &token, vec![]).await, "a DPoP proof is required");
    let other = app.proof_for(&server, path, Some("another token"));
    assert_eq!(check(&server, &token, vec![&other]).await, "DPoP proof \"ath\" mismatch");

    // 6.B.18: a revoked token is refused at once where it ended, and within five seconds at the
    // other replica, which reads no feed here.
    assert_eq!(app.revoke(&server, &token).await.summary(), "200");
    assert_eq!(check(&server, &token, vec![&proof(&app)]).await, "the grant has ended");
    server.clock.advance(Duration::from_secs(5));
    assert_eq!(check(&second, &token, vec![&proof(&app)]).await, "the grant has ended");
    server.clock.advance(MINUTE * 5);
    assert_eq!(check(&server, &token, vec![&proof(&app)]).await, "the token has expired");
}

async fn a_code_used_twice_ends_its_grant(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::loopback();
    let (browser, ann) = server.signed_in().await;
    let code = server.code_in(&app, &browser, &ann).await;
    let tokens = app.redeem(&server, &code, &[]).await;
    assert_eq!(tokens.summary(), "200");
    assert_eq!(app.redeem(&server, &code, &[]).await.summary(), "400 invalid_grant", "47");
    assert_eq!(app.refresh(&server, &refresh_of(&tokens)).await.summary(), "400 invalid_grant", "47 revoked");
    assert!(server.app.sign_ins.signed_in(&browser, None).await.unwrap().is_empty(), "47 signed out");
    // 73: several exchanges at the same time.
    let (browser, ann) = server.signed_in().await;
    let code = server.code_in(&app, &browser, &ann).await;
    let all = (0..6).map(|_| app.redeem(&server, &code, &[]));
    let good = futures_util::future::join_all(all).await.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(good, 1, "73");
}

async fn a_code_is_for_whom_it_was_given_to(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let other = TestApp::published(&server, "other", &json!({}));
    let wrong = "a".repeat(43);
    for (name, changes) in [
        ("48 verifier", [("code_verifier", &*wrong)]),
        // Too short to be a verifier.
        ("48 no verifier at all", [("code_verifier", "wrong")]),
        ("49 client", [("client_id", &*other.id)]),
        ("49 redirect", [("redirect_uri", "https://evil.example.com")]),
    ] {
        let code = server.code(&app).await;
        assert_eq!(app.redeem(&server, &code, &changes).await.summary(), "400 invalid_grant", "{name}");
        assert_eq!(app.redeem(&server, &code, &[]).await.summary(), "400 invalid_grant", "{name}: dead");
    }
    let code = server.code(&app).await;
    let thief = TestApp { proof_key: fresh_proof_key(), ..TestApp::published(&server, "app", &json!({})) };
    let verifier = app.verifier();
    let stolen = thief.redeem(&server, &code, &[("code_verifier", &verifier)]).await;
    assert_eq!(stolen.summary(), "400 invalid_grant", "49 key");
    assert_eq!(app.redeem(&server, &code, &[]).await.summary(), "400 invalid_grant", "49 key: dead");

    let code = server.code(&app).await;
    server.clock.advance(MINUTE);
    assert_eq!(app.redeem(&server, &code, &[]).await.summary(), "400 invalid_grant", "51");
    let code = server.code(&app).await;
    // A code lives for a minute.
    server.clock.advance(Duration::from_secs(59));
    assert_eq!(app.redeem(&server, &code, &[]).await.summary(), "200");
    assert_eq!(app.redeem(&server, "cod-0", &[]).await.summary(), "400 invalid_grant");
    // A proof without a nonce uses nothing up.
    let code = server.code(&app).await;
    let verifier = app.verifier();
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &*code),
        ("redirect_uri", &*app.redirect),
        ("code_verifier", &*verifier),
    ];
    let bare = app.proof_at(&server, "/oauth/token", None);
    let refused = app.post_with(&server, "/oauth/token", &form, &[], &[&bare]).await;
    assert_eq!(refused.summary(), "400 use_dpop_nonce", "0.8");
    assert_eq!(app.redeem(&server, &code, &[]).await.summary(), "200", "0.8");
}

async fn a_challenge_is_valid_once(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::loopback();
    let (browser, ann) = server.signed_in().await;
    let mut codes = Vec::new();
    for _ in 0..2 {
        let uri = app.push(&server, &[]).await.text("/request_uri");
        let opened = server.app.oauth.open(&uri, &app.id, &browser.device).await.unwrap();
        codes.push(parameter(&server.app.oauth.approve(&opened, &ann, None).await.unwrap(), "code"));
    }
    assert_eq!(app.redeem(&server, &codes[0], &[]).await.summary(), "200");
    assert_eq!(app.redeem(&server, &codes[1], &[]).await.summary(), "400 invalid_grant", "50");
}

/// The client or the browser got 503 meanwhile, and sends its request again.
async fn nothing_is_used_up_for_who_does_not_wait(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::loopback();
    let (browser, ann) = server.signed_in().await;
    let gone = WaitingClient::new();
    assert!(gone.leave());
    let uri = app.push(&server, &[]).await.text("/request_uri");
    let mut opened = server.app.oauth.open(&uri, &app.id, &browser.device).await.unwrap();
    opened.browser = gone.clone();
    let late = server.app.oauth.approve(&opened, &ann, None).await;
    assert!(matches!(&late, Err(Problem::Storage(db::Error::ClientGone))), "{late:?}");
    opened.browser = WaitingClient::new();
    let code = parameter(&server.app.oauth.approve(&opened, &ann, None).await.unwrap(), "code");

    let fields = [
        ("client_id", &*app.id),
        ("grant_type", "authorization_code"),
        ("code", &*code),
        ("redirect_uri", &*app.redirect),
        ("code_verifier", &*app.verifier()),
    ];
    let form = Form::parse(serde_html_form::to_string(fields).unwrap().as_bytes()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("dpop", app.proof(&server, "/oauth/token").parse().unwrap());
    let call = Call { method: "POST", path: "/oauth/token", proofs: proofs(&headers) };
    let late = server.app.oauth.token(&call, &form, &gone).await;
    assert!(matches!(&late, Err(Error::Storage(db::Error::ClientGone))), "{late:?}");
    // The proof, too.
    server.app.oauth.token(&call, &form, &WaitingClient::new()).await.unwrap();
}

async fn a_refresh_can_be_repeated_for_a_short_time_only(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::loopback();
    let first = refresh_of(&server.tokens(&app).await);
    // 74: concurrent refreshes get one successor.
    let all = (0..50).map(|_| app.refresh(&server, &first));
    let answers = futures_util::future::join_all(all).await;
    let second = refresh_of(&answers[0]);
    assert!(answers.iter().all(|answer| answer.status == 200 && refresh_of(answer) == second), "74");
    assert_ne!(first, second);
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(refresh_of(&app.refresh(&server, &first).await), second, "6.B.4: a lost answer");
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(app.refresh(&server, &first).await.summary(), "400 invalid_grant", "52");
    assert_eq!(app.refresh(&server, &second).await.summary(), "400 invalid_grant", "52: revoked");
    // Once the successor is used, the old token is refused and the grant lives on.
    let first = refresh_of(&server.tokens(&app).await);
    let second = refresh_of(&app.refresh(&server, &first).await);
    let third = refresh_of(&app.refresh(&server, &second).await);
    assert_eq!(app.refresh(&server, &first).await.summary(), "400 invalid_grant");
    assert_eq!(app.refresh(&server, &third).await.summary(), "200");
    assert_eq!(app.refresh(&server, "ref-0").await.summary(), "400 invalid_grant");
}

async fn a_caller_without_the_key_ends_no_grant(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let other = TestApp::published(&server, "other", &json!({}));
    let first = refresh_of(&server.tokens(&app).await);
    let second = refresh_of(&app.refresh(&server, &first).await);
    server.clock.advance(MINUTE);
    let thief = TestApp::published(&server, "app", &json!({}));
    for token in [&first, &second] {
        assert_eq!(thief.refresh(&server, token).await.summary(), "400 invalid_grant", "54");
        assert_eq!(other.refresh(&server, token).await.summary(), "400 invalid_grant", "53");
    }
    assert_eq!(app.refresh(&server, &second).await.summary(), "200", "53, 54: alive");
    let proven =
        TestApp { proof_key: app.proof_key.clone(), ..TestApp::published(&server, "other", &json!({})) };
    let third = refresh_of(&app.refresh(&server, &second).await);
    assert_eq!(proven.refresh(&server, &third).await.summary(), "400 invalid_grant", "53 with the key");
    assert_eq!(app.refresh(&server, &third).await.summary(), "400 invalid_grant", "53 with the key: over");
}

async fn a_key_that_was_taken_back_ends_the_grant(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::confidential(&server, "app");
    let token = refresh_of(&server.tokens(&app).await);
    let token = refresh_of(&app.refresh(&server, &token).await);
    // A public client with the same id can neither continue the grant nor end it.
    let new_key = fresh_key();
    TestApp::published(&server, "app", &confidential_members(&new_key, "two"));
    // Longer than a key set is cached, so the new document is read.
    server.clock.advance(Duration::from_mins(11));
    assert_eq!(app.refresh(&server, &token).await.summary(), "400 invalid_grant", "55");
    TestApp::published(&server, "app", &confidential_members(&app.own_key.as_ref().unwrap().0, "one"));
    server.clock.advance(Duration::from_mins(11));
    assert_eq!(app.refresh(&server, &token).await.summary(), "400 invalid_grant", "55: over");
}

async fn grants_live_as_long_as_their_client_may(db: Db) {
    let server = OAuthServer::start(db).await;
    let public = TestApp::published(&server, "public", &json!({}));
    let private = TestApp::confidential(&server, "private");
    let mut token = refresh_of(&server.tokens(&public).await);
    let mut long = refresh_of(&server.tokens(&private).await);
    server.clock.advance(DAY * 13);
    token = refresh_of(&public.refresh(&server, &token).await);
    server.clock.advance(DAY);
    assert_eq!(public.refresh(&server, &token).await.summary(), "400 invalid_grant", "56 total");
    long = refresh_of(&private.refresh(&server, &long).await);
    // Each refresh extends the idle time of three months, but not the total of two years.
    for _ in 0..8 {
        server.clock.advance(DAY * 85);
        long = refresh_of(&private.refresh(&server, &long).await);
    }
    server.clock.advance(DAY * 30);
    let last = private.refresh(&server, &long).await;
    assert_eq!(last.summary(), "200", "6.B.5: {last:?}");
    server.clock.advance(DAY * 10);
    assert_eq!(private.refresh(&server, &refresh_of(&last)).await.summary(), "400 invalid_grant", "56 total");
    let idle = refresh_of(&server.tokens(&private).await);
    server.clock.advance(DAY * 92);
    assert_eq!(private.refresh(&server, &idle).await.summary(), "400 invalid_grant", "56 idle");
}

async fn an_account_that_is_away_gets_nothing(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::loopback();
    let token = refresh_of(&server.tokens(&app).await);
    let code = server.code(&app).await;
    server.take_down().await;
    assert_eq!(app.refresh(&server, &token).await.summary(), "400 invalid_grant", "57");
    assert_eq!(app.redeem(&server, &code, &[]).await.summary(), "400 invalid_grant", "57");
    server.restore().await;
    let token = refresh_of(&app.refresh(&server, &token).await);
    // A password reset ends codes that are not redeemed yet, as well as grants.
    let code = server.code(&app).await;
    let mut tx = server.app.db.begin().await.unwrap();
    server.app.credentials.end(&mut tx, &server.ann.did, Ending::Grants).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(app.refresh(&server, &token).await.summary(), "400 invalid_grant");
    assert_eq!(app.redeem(&server, &code, &[]).await.summary(), "400 invalid_grant");
}

async fn a_client_that_is_away_goes_on(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::confidential(&server, "app");
    let token = refresh_of(&server.tokens(&app).await);
    // The stored copy serves while the client's site is away, but not for a new request.
    server.site.put("/app.json", 503, "text/plain", "");
    server.clock.advance(DAY);
    let token = refresh_of(&app.refresh(&server, &token).await);
    // Another replica has only the stored copy.
    let second = server.another().await;
    let token = refresh_of(&app.refresh(&second, &token).await);
    assert_eq!(app.push(&second, &[]).await.summary(), "400 invalid_client_metadata");
    server.clock.advance(DAY * 7);
    assert_eq!(
        app.refresh(&server, &token).await.summary(),
        "400 invalid_client_metadata",
        "6.B.9, 6.B.6: not invalid_grant"
    );
}

async fn a_long_scope_goes_by_reference(db: Db) {
    let server = OAuthServer::start(db).await;
    let mut scope = "atproto".to_owned();
    for number in 0..200 {
        write!(scope, " repo:com.example.collection{number}").unwrap();
    }
    let app = TestApp::published(&server, "app", &json!({ "scope": scope }));
    let answer = server.tokens(&app).await;
    assert_eq!(answer.text("/scope"), scope, "6.B.15");
    let token = answer.text("/access_token");
    assert!(token.len() < 2048, "6.B.25");
    let token = Token::parse(&token).unwrap();
    let reference = &token.unverified_claims().scope;
    assert!(reference.starts_with("ref:b"), "{reference}");
    let path = format!("/xrpc/com.atproto.temp.dereferenceScope?scope={reference}");
    assert_eq!(server.get(&path).await.text("/scope"), scope, "1.10");
}

async fn malformed_token_requests_have_their_answers(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::loopback();
    for kind in ["password", "client_credentials", "implicit"] {
        let answer = app.post(&server, "/oauth/token", &[("grant_type", kind)], &[]).await;
        assert_eq!(answer.summary(), "400 unsupported_grant_type", "58 {kind}");
    }
    let answer = app.post(&server, "/oauth/token", &[("grant_type", "refresh_token")], &[]).await;
    assert_eq!(answer.summary(), "400 invalid_request");
    let none = app.post_with(&server, "/oauth/token", &[("grant_type", "refresh_token")], &[], &[]).await;
    assert_eq!(none.summary(), "401 invalid_dpop_proof");
}

/// Anyone may send a `client_id` here, so it must not make Genkan connect anywhere.
async fn no_server_is_asked_for_a_caller_without_a_live_code_or_token(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let key = fresh_key();
    let mut members = confidential_members(&key, "one");
    let key_set = members.as_object_mut().unwrap().remove("jwks").unwrap();
    members["jwks_uri"] = format!("{}/keys.json", server.site.url()).into();
    server.site.put("/keys.json", 200, "application/json", key_set.to_string());
    let published = || TestApp::published(&server, "confidential", &members);
    let confidential = TestApp { own_key: Some((key, "one")), ..published() };
    let stranger = TestApp::published(&server, "stranger", &json!({}));
    let documents = ["app", "confidential", "keys", "stranger"];
    let asked = || documents.map(|name| server.site.asked(&format!("/{name}.json")));
    let (code, token) = (format!("cod-{}", "a".repeat(64)), format!("ref-{}", "a".repeat(64)));
    let live = refresh_of(&server.tokens(&app).await);
    let of_confidential = refresh_of(&server.tokens(&confidential).await);
    // Everything that is stored is older than what a live token makes Genkan ask again for.
    server.clock.advance(Duration::from_hours(1));
    let before = asked();
    for caller in [&app, &confidential, &stranger] {
        for answer in [caller.redeem(&server, &code, &[]).await, caller.refresh(&server, &token).await] {
            assert_eq!(answer.summary(), "400 invalid_grant", "{}", caller.id);
        }
        assert_eq!(caller.revoke(&server, &token).await.summary(), "200", "{}", caller.id);
    }
    assert_eq!(stranger.refresh(&server, &live).await.summary(), "400 invalid_grant");
    assert_eq!(stranger.revoke(&server, &live).await.summary(), "200");
    // An assertion by a key that is not stored.
    let invented = TestApp { own_key: Some((fresh_key(), "other")), ..published() };
    assert_eq!(invented.refresh(&server, &token).await.summary(), "400 invalid_grant");
    assert_eq!(asked(), before, "nothing was fetched");

    // With a live token they are asked as before, and the grants were not harmed.
    assert_eq!(app.refresh(&server, &live).await.summary(), "200");
    assert_eq!(confidential.refresh(&server, &of_confidential).await.summary(), "200");
    let after = asked();
    assert!(
        after[..3].iter().zip(&before[..3]).all(|(after, before)| after > before),
        "{before:?} {after:?}"
    );
    assert_eq!(after[3], 0);
}
