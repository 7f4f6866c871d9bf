//! Pushed requests, and metadata.

use std::time::Duration;

use axum::body::Body;
use genkan_protocol::jwt;
use genkan_protocol::oauth::dpop::ProofClaims;
use genkan_testing::{Gate, Trouble};
use http::Request;
use serde_json::json;

use super::app::{TestApp, fresh_key, fresh_proof_key};
use super::server::{OAuthServer, parameter};
use crate::base::fetch::Pool;
use crate::db::{Db, on_each_database};
use crate::http::testing::ORIGIN;
use crate::oauth::Problem;

/// What is tried, what it changes of a good request, and the answer.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

on_each_database!(
    bad_parameters_have_their_answers,
    bad_proofs_have_their_answers,
    bad_clients_have_their_answers,
    bad_documents_have_their_answers,
    bad_assertions_have_their_answers,
    a_proof_is_used_once_and_a_nonce_costs_nothing,
    a_request_belongs_to_one_browser_and_is_decided_once,
    the_way_back_tells_issuer_and_state,
    pushes_are_limited_by_address,
    servers_say_what_they_are,
    strangers_cause_only_so_many_bytes_to_be_stored,
    a_push_waits_for_no_place_of_other_calls
);

async fn bad_parameters_have_their_answers(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    let site = server.site.url();
    let (slash, query, upper) = (format!("{site}/back/"), format!("{site}/back?x"), format!("{site}/BACK"));
    let (long, longer) = ("a".repeat(42), "a".repeat(70_000));
    let other = fresh_proof_key().thumbprint().to_string();
    let cases: &[Case<'_>] = &[
        ("good", &[], "201"),
        ("3 too long a body", &[("state", &longer)], "413 invalid_request"),
        ("4 no client_id", &[("client_id", "")], "400 invalid_request"),
        (
            "12 another redirect",
            &[("redirect_uri", "https://evil.example.com/back")],
            "400 invalid_redirect_uri",
        ),
        ("12 trailing slash", &[("redirect_uri", &slash)], "400 invalid_redirect_uri"),
        ("12 more query", &[("redirect_uri", &query)], "400 invalid_redirect_uri"),
        ("12 other case", &[("redirect_uri", &upper)], "400 invalid_redirect_uri"),
        ("13 localhost", &[("redirect_uri", "http://localhost:1/back")], "400 invalid_redirect_uri"),
        ("the only one", &[("redirect_uri", "")], "201"),
        ("15 implicit", &[("response_type", "token")], "400 unsupported_response_type"),
        ("16 no challenge", &[("code_challenge", "")], "400 invalid_request"),
        ("16 plain", &[("code_challenge_method", "plain")], "400 invalid_request"),
        ("16 short challenge", &[("code_challenge", &long)], "400 invalid_request"),
        ("17 no atproto", &[("scope", "transition:generic")], "400 invalid_scope"),
        ("17 undeclared", &[("scope", "atproto repo:*")], "400 invalid_scope"),
        ("17 openid", &[("scope", "atproto openid")], "400 invalid_scope"),
        ("25 another key", &[("dpop_jkt", &other)], "401 invalid_token"),
        ("36 markup as hint", &[("login_hint", "<script>")], "400 invalid_request"),
        ("no state", &[("state", "")], "400 invalid_request"),
        ("prompt none of a public client", &[("prompt", "none")], "400 invalid_request"),
        ("unknown prompt", &[("prompt", "dance")], "400 invalid_request"),
        ("request object", &[("request", "a.b.c")], "400 request_not_supported"),
        ("OpenID's nonce", &[("nonce", "n")], "400 invalid_request"),
        ("fragment", &[("response_mode", "fragment")], "201"),
    ];
    for (name, changes, expected) in cases {
        let answer = app.push(&server, changes).await;
        assert_eq!(answer.summary(), *expected, "{name}: {answer:?}");
    }
    assert_eq!(server.get("/oauth/par").await.status, 405, "1 GET");
    for kind in ["application/json", "text/plain"] {
        let request =
            Request::post("/oauth/par").header("content-type", kind).body(Body::from("{}")).unwrap();
        assert_eq!(server.send(request).await.status, 415, "2 {kind}");
    }
    let twice = [("client_id", &*app.id), ("state", "a"), ("state", "b")];
    let proof = app.proof(&server, "/oauth/par");
    assert_eq!(
        server.post("/oauth/par", &twice, &[&proof]).await.summary(),
        "400 invalid_request",
        "5 repeated"
    );
}

async fn bad_proofs_have_their_answers(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::loopback();
    let nonce = server.app.oauth.nonce();
    let now = 1_700_000_000;
    let htu = format!("{ORIGIN}/oauth/par");
    let good = ProofClaims { jti: "good", htm: "POST", htu: &htu, iat: now, nonce: Some(&nonce), ath: None };
    let sign = |claims: &ProofClaims<'_>| app.proof_key.sign(claims);
    let swapped = {
        let proof = sign(&ProofClaims { jti: "swapped", ..good });
        let header = data_encoding::BASE64URL_NOPAD.encode(br#"{"typ":"dpop+jwt","alg":"none"}"#);
        format!("{header}.{}", proof.split_once('.').unwrap().1)
    };
    let cases: &[(&str, &[&str], &str)] = &[
        ("18 none", &[], "401 invalid_dpop_proof"),
        (
            "19 two",
            &[&sign(&ProofClaims { jti: "1", ..good }), &sign(&ProofClaims { jti: "2", ..good })],
            "401 invalid_dpop_proof",
        ),
        ("20 alg none", &[&swapped], "401 invalid_dpop_proof"),
        ("20 garbage", &["a.b.c"], "401 invalid_dpop_proof"),
        ("20 empty", &[""], "401 invalid_dpop_proof"),
        ("21 htm", &[&sign(&ProofClaims { htm: "GET", ..good })], "401 invalid_dpop_proof"),
        (
            "21 htu",
            &[&sign(&ProofClaims { htu: "http://localhost:2583/oauth/token", ..good })],
            "401 invalid_dpop_proof",
        ),
        ("21 old", &[&sign(&ProofClaims { iat: now - 191, ..good })], "401 invalid_dpop_proof"),
        ("21 ahead", &[&sign(&ProofClaims { iat: now + 181, ..good })], "401 invalid_dpop_proof"),
        ("21 skewed a little", &[&sign(&ProofClaims { jti: "skewed", iat: now - 120, ..good })], "201"),
        ("23 no nonce", &[&sign(&ProofClaims { nonce: None, ..good })], "400 use_dpop_nonce"),
        ("23 forged nonce", &[&sign(&ProofClaims { nonce: Some("mine"), ..good })], "400 use_dpop_nonce"),
        ("24 ath", &[&sign(&ProofClaims { ath: Some("x"), ..good })], "401 invalid_dpop_proof"),
        ("good", &[&sign(&good)], "201"),
    ];
    for (name, proofs, expected) in cases {
        let answer = app.push_with(&server, &[], proofs).await;
        assert_eq!(answer.summary(), *expected, "{name}: {answer:?}");
        if answer.status == 401 {
            let challenge = answer.headers["www-authenticate"].to_str().unwrap();
            assert!(challenge.starts_with("DPoP algs=\"ES256 "), "{name}: {challenge}");
        }
    }
    // 18: the key may be named instead.
    let named = app.proof_key.thumbprint().to_string();
    assert_eq!(app.push_with(&server, &[("dpop_jkt", &named)], &[]).await.summary(), "201");
    server.clock.advance(Duration::from_mins(5));
    assert_eq!(
        app.push_with(&server, &[], &[&app.proof_at(&server, "/oauth/par", Some(&nonce))]).await.summary(),
        "400 use_dpop_nonce",
        "23 old nonce"
    );
}

async fn bad_clients_have_their_answers(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::loopback();
    for id in [
        "https://app.example.org/c.json#x",
        "https://me@app.example.org/c.json",
        "https://93.184.216.34/c.json",
        "https://app.local/c.json",
        "https://app.example.org/a/../c.json",
        "https://app.example.org:8443/c.json",
        "http://app.example.org/c.json",
        "http://localhost:8080",
        "ftp://x",
        "x",
    ] {
        let answer = app.push(&server, &[("client_id", id)]).await;
        assert_eq!(answer.summary(), "400 invalid_client_id", "6 {id}: {answer:?}");
    }
    // The name cannot be looked up here; nothing is ever connected to.
    let answer = app.push(&server, &[("client_id", "https://app.example.org/c.json")]).await;
    assert_eq!(answer.summary(), "400 invalid_client_metadata", "9 {answer:?}");
    assert!(answer.description().contains("https://app.example.org/c.json"), "{}", answer.description());
    for redirect in ["http://127.0.0.1:65000/back", "http://127.0.0.1/back"] {
        assert_eq!(app.push(&server, &[("redirect_uri", redirect)]).await.summary(), "201", "6.B.20");
    }
}

async fn bad_documents_have_their_answers(db: Db) {
    let server = OAuthServer::start(db).await;
    let site = &server.site;
    let push = async |name: &str, members: serde_json::Value| {
        let app = TestApp::published(&server, name, &members);
        app.push(&server, &[("scope", "atproto")]).await
    };
    for (name, members, member) in [
        ("10 id", json!({ "client_id": "https://other.example.com/c.json" }), "client_id"),
        ("11 unbound", json!({ "dpop_bound_access_tokens": null }), "dpop_bound_access_tokens"),
        ("14 private scheme", json!({ "redirect_uris": ["com.evil:/back"] }), "redirect_uris"),
        (
            "69 redirects",
            json!({ "redirect_uris": vec!["https://a.example.com/x"; 10_000] }),
            "redirect_uris",
        ),
        ("69 scopes", json!({ "scope": "atproto ".repeat(10_000) }), "scope"),
        ("implicit", json!({ "grant_types": ["authorization_code", "implicit"] }), "grant_types"),
        (
            "secret",
            json!({ "token_endpoint_auth_method": "client_secret_basic" }),
            "token_endpoint_auth_method",
        ),
    ] {
        let answer = push(&name[..2], members).await;
        assert_eq!(answer.summary(), "400 invalid_client_metadata", "{name}: {answer:?}");
        assert!(answer.description().contains(member), "{name}, 6.B.7: {}", answer.description());
    }
    let app = TestApp::published(&server, "broken", &json!({}));
    let huge = "x".repeat(600_000);
    site.redirect("/broken.json", "/other.json");
    let answer = app.push(&server, &[]).await;
    assert_eq!(answer.summary(), "400 invalid_client_metadata", "9 redirect: {answer:?}");
    assert!(answer.description().contains("redirects"), "9 redirect: {}", answer.description());
    for (name, status, kind, body, why) in [
        ("9 missing", 404, "application/json", "{}", "answered 404"),
        ("9 type", 200, "text/html", "{}", "content type"),
        ("9 huge", 200, "application/json", &*huge, "answered more than"),
        ("9 not JSON", 200, "application/json", "hello", "JSON"),
    ] {
        site.put("/broken.json", status, kind, body);
        let answer = app.push(&server, &[]).await;
        assert_eq!(answer.summary(), "400 invalid_client_metadata", "{name}: {answer:?}");
        assert!(
            answer.description().contains(why) && answer.description().contains(&app.id),
            "{name}, 6.B.7: {}",
            answer.description()
        );
    }
    // What was wrong is not remembered, what is right is.
    let app = TestApp::published(&server, "broken", &json!({}));
    assert_eq!(app.push(&server, &[]).await.summary(), "201");
    let asked = site.journal().len();
    assert_eq!(app.push(&server, &[]).await.summary(), "201");
    assert_eq!(site.journal().len(), asked);
    server.clock.advance(Duration::from_mins(11));
    assert_eq!(app.push(&server, &[]).await.summary(), "201");
    assert_eq!(site.journal().len(), asked + 1);
}

async fn bad_assertions_have_their_answers(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::confidential(&server, "app");
    let push = async |changes: serde_json::Value| {
        let assertion = app.assertion(&server, &changes);
        app.push(&server, &[("client_assertion", &assertion)]).await.summary()
    };
    assert_eq!(push(json!({})).await, "201");
    for (name, changes) in [
        ("26 aud", json!({ "aud": "https://other.example.com" })),
        ("26 iss", json!({ "iss": "https://other.example.com" })),
        ("26 sub", json!({ "sub": "https://other.example.com" })),
        ("26 old", json!({ "iat": 1_699_999_000, "exp": null })),
        ("26 no jti", json!({ "jti": null })),
    ] {
        assert_eq!(push(changes).await, "400 invalid_client", "{name}");
    }
    let claims = json!({ "iss": app.id, "sub": app.id, "aud": ORIGIN, "iat": 1_700_000_000, "jti": "j" });
    let foreign = jwt::sign_es256(&fresh_key(), "JWT", "one", &claims);
    assert_eq!(
        app.push(&server, &[("client_assertion", &foreign)]).await.summary(),
        "400 invalid_client",
        "26 key"
    );
    let unknown = jwt::sign_es256(&app.own_key.as_ref().unwrap().0, "JWT", "two", &claims);
    assert_eq!(
        app.push(&server, &[("client_assertion", &unknown)]).await.summary(),
        "400 invalid_client",
        "26 kid"
    );

    // As one whose library leaves the key's name out.
    let encode = |json: &str| data_encoding::BASE64URL_NOPAD.encode(json.as_bytes());
    let signed = format!("{}.{}", encode(r#"{"typ":"JWT","alg":"ES256"}"#), encode(&claims.to_string()));
    let signature = app.own_key.as_ref().unwrap().0.sign(signed.as_bytes());
    let nameless = format!("{signed}.{}", data_encoding::BASE64URL_NOPAD.encode(&signature));
    let answer = app.push(&server, &[("client_assertion", &nameless)]).await;
    assert_eq!(answer.summary(), "400 invalid_client", "26 no kid: {answer:?}");

    let once = app.assertion(&server, &json!({}));
    assert_eq!(app.push(&server, &[("client_assertion", &once)]).await.summary(), "201");
    assert_eq!(app.push(&server, &[("client_assertion", &once)]).await.summary(), "400 invalid_client", "27");

    let without = [("client_assertion", ""), ("client_assertion_type", "")];
    assert_eq!(app.push(&server, &without).await.summary(), "400 invalid_request", "29");
    let own = genkan_protocol::oauth::dpop::ProofKey::new(app.own_key.as_ref().unwrap().0.clone());
    let same = TestApp { proof_key: own, ..TestApp::confidential(&server, "unused") };
    let same = TestApp { id: app.id.clone(), own_key: app.own_key.clone(), ..same };
    assert_eq!(same.push(&server, &[]).await.summary(), "400 invalid_request", "28");
    // A confidential client may ask for silence.
    assert_eq!(app.push(&server, &[("prompt", "none")]).await.summary(), "201");
}

async fn a_proof_is_used_once_and_a_nonce_costs_nothing(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::confidential(&server, "app");
    let proof = app.proof(&server, "/oauth/par");
    assert_eq!(app.push_with(&server, &[], &[&proof]).await.summary(), "201");
    assert_eq!(app.push_with(&server, &[], &[&proof]).await.summary(), "401 invalid_dpop_proof", "22");

    // The same body again, with a nonce. Not even the assertion was used up.
    let assertion = app.assertion(&server, &json!({}));
    let first = app.proof_at(&server, "/oauth/par", None);
    let refused = app.push_with(&server, &[("client_assertion", &assertion)], &[&first]).await;
    assert_eq!(refused.summary(), "400 use_dpop_nonce", "6.B.2");
    let nonce = refused.headers["dpop-nonce"].to_str().unwrap();
    let second = app.proof_at(&server, "/oauth/par", Some(nonce));
    let answer = app.push_with(&server, &[("client_assertion", &assertion)], &[&second]).await;
    assert_eq!(answer.summary(), "201", "{answer:?}");
}

async fn a_request_belongs_to_one_browser_and_is_decided_once(db: Db) {
    let server = OAuthServer::start(db).await;
    let oauth = &server.app.oauth;
    let app = TestApp::loopback();
    let (browser, ann) = server.signed_in().await;
    let (other, _) = server.signed_in().await;
    let uri = app.push(&server, &[]).await.text("/request_uri");
    let code = |problem: Problem| match problem {
        Problem::Leave(redirect) => parameter(&redirect, "error"),
        problem => format!("{problem}"),
    };
    for unknown in ["urn:ietf:params:oauth:request_uri:req-0", "req-0", "https://evil.example.com"] {
        assert!(
            matches!(oauth.open(unknown, &app.id, &browser.device).await, Err(Problem::Unknown)),
            "30 {unknown}"
        );
    }
    oauth.open(&uri, &app.id, &browser.device).await.unwrap();
    oauth.open(&uri, &app.id, &browser.device).await.unwrap();
    let stolen = oauth.open(&uri, &app.id, &other.device).await.unwrap_err();
    assert_eq!(code(stolen), "access_denied", "32");
    assert!(matches!(oauth.open(&uri, &app.id, &browser.device).await, Err(Problem::Unknown)), "32 deleted");

    let uri = app.push(&server, &[]).await.text("/request_uri");
    let mixed_up = oauth.open(&uri, "http://localhost", &browser.device).await;
    assert!(matches!(mixed_up, Err(Problem::Unknown)), "31");
    assert!(matches!(oauth.open(&uri, &app.id, &browser.device).await, Err(Problem::Unknown)), "31 deleted");

    let uri = app.push(&server, &[]).await.text("/request_uri");
    let opened = oauth.open(&uri, &app.id, &browser.device).await.unwrap();
    oauth.approve(&opened, &ann, None).await.unwrap();
    assert_eq!(code(oauth.open(&uri, &app.id, &browser.device).await.unwrap_err()), "access_denied", "33");
    assert_eq!(code(oauth.approve(&opened, &ann, None).await.unwrap_err()), "access_denied", "33 at once");

    let uri = app.push(&server, &[]).await.text("/request_uri");
    server.clock.advance(Duration::from_mins(4));
    oauth.open(&uri, &app.id, &browser.device).await.unwrap();
    server.clock.advance(Duration::from_mins(4));
    oauth.open(&uri, &app.id, &browser.device).await.unwrap();
    server.clock.advance(Duration::from_mins(5));
    assert!(matches!(oauth.open(&uri, &app.id, &browser.device).await, Err(Problem::Unknown)), "30 expired");
}

async fn the_way_back_tells_issuer_and_state(db: Db) {
    let server = OAuthServer::start(db).await;
    let oauth = &server.app.oauth;
    let app = TestApp::loopback();
    let (browser, ann) = server.signed_in().await;
    let open = async || {
        let uri = app.push(&server, &[("state", "a b&c")]).await.text("/request_uri");
        oauth.open(&uri, &app.id, &browser.device).await.unwrap()
    };
    let names = |redirect: &crate::oauth::Redirect| {
        redirect.parameters.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
    };
    let approved = oauth.approve(&open().await, &ann, None).await.unwrap();
    assert_eq!(names(&approved), "iss state code", "66");
    assert_eq!(
        (parameter(&approved, "iss"), parameter(&approved, "state")),
        (ORIGIN.to_owned(), "a b&c".to_owned())
    );
    assert_eq!(parameter(&approved, "code").len(), 68);
    let rejected = oauth.reject(&open().await).await.unwrap();
    assert_eq!(names(&rejected), "iss state error error_description");

    // 39 and 40: fewer is allowed, more is not, and never without `atproto`.
    let given = ["atproto".to_owned(), "repo:*".to_owned()];
    let code = parameter(&oauth.approve(&open().await, &ann, Some(&given)).await.unwrap(), "code");
    assert_eq!(app.redeem(&server, &code, &[]).await.text("/scope"), "atproto", "39");
    let given = ["transition:generic".to_owned()];
    let refused = oauth.approve(&open().await, &ann, Some(&given)).await.unwrap();
    assert_eq!(parameter(&refused, "error"), "access_denied", "40");
    // Another account than the one that was asked for.
    let uri = app.push(&server, &[("login_hint", "Bob.test")]).await.text("/request_uri");
    let opened = oauth.open(&uri, &app.id, &browser.device).await.unwrap();
    assert_eq!(opened.login_hint.as_deref(), Some("bob.test"));
    assert_eq!(parameter(&oauth.approve(&opened, &ann, None).await.unwrap(), "error"), "access_denied");
}

async fn pushes_are_limited_by_address(db: Db) {
    let server = OAuthServer::with(db, |config| {
        config.limits.oauth_par = crate::config::Rate { count: 2, per: Duration::from_mins(5) };
    })
    .await;
    let app = TestApp::loopback();
    assert_eq!(app.push(&server, &[]).await.summary(), "201");
    assert_eq!(app.push(&server, &[]).await.summary(), "201");
    let refused = app.push(&server, &[]).await;
    assert_eq!(refused.summary(), "429 temporarily_unavailable", "6.B.21");
    assert!(refused.headers.contains_key("retry-after"));
}

async fn servers_say_what_they_are(db: Db) {
    let server = OAuthServer::start(db).await;
    let metadata = server.get("/.well-known/oauth-authorization-server").await;
    assert_eq!(metadata.headers["cache-control"], "max-age=300");
    assert_eq!(metadata.text("/issuer"), ORIGIN);
    assert_eq!(metadata.json()["client_id_metadata_document_supported"], true, "0.6");
    assert!(metadata.json().get("protected_resources").is_none(), "0.5");
    let resource = server.get("/.well-known/oauth-protected-resource").await;
    assert_eq!(resource.json()["authorization_servers"], json!([ORIGIN]));
    let keys = server.get("/oauth/jwks").await;
    let key = server.app.ring.host_key("oak").unwrap();
    assert_eq!(keys.json()["keys"][0]["crv"], "secp256k1");
    assert_eq!(keys.json()["keys"][0]["kid"], key.id);
    assert!(keys.json()["keys"][0].get("d").is_none());
    let unknown = server.get("/xrpc/com.atproto.temp.dereferenceScope?scope=ref:none").await;
    assert_eq!(unknown.summary(), "400 InvalidScopeReference");
}

/// An app without a row signs people in all the same. Its documents are fetched where they are needed.
async fn strangers_cause_only_so_many_bytes_to_be_stored(db: Db) {
    let server = OAuthServer::start(db).await;
    let long = "x".repeat(400_000);
    for number in 0..14 {
        let app = TestApp::published(&server, &format!("app{number}"), &json!({ "unknown": long }));
        assert_eq!(app.push(&server, &[]).await.summary(), "201");
        if number == 13 {
            let token = server.tokens(&app).await.text("/refresh_token");
            server.clock.advance(Duration::from_mins(11));
            assert_eq!(app.refresh(&server, &token).await.summary(), "200");
        }
    }
    let stored = server.app.oauth.clients(None).await.unwrap();
    let bytes: usize = stored.iter().filter_map(|one| Some(one.document.as_ref()?.0.len())).sum();
    assert!((3 << 20..=5 << 20).contains(&bytes), "{bytes} bytes in {} rows", stored.len());
    // A grant makes the last one known, so its document is stored after all.
    assert!(stored.iter().any(|one| one.client_id.ends_with("/app13.json")));
}

async fn a_push_waits_for_no_place_of_other_calls(db: Db) {
    let (server, gate) = (OAuthServer::start(db).await, Gate::closed());
    let app = TestApp::published(&server, "app", &json!({}));
    server.site.trouble("/hang", Trouble::Held(gate.clone()));
    let url = format!("{}/hang", server.site.url());
    for pool in [Pool::Other, Pool::GrantedClients, Pool::PermissionSets] {
        let guarded = server.app.oauth.guarded();
        guarded.take_places(pool, 8, &url, || server.site.asked("/hang")).await;
    }
    assert_eq!(app.push(&server, &[]).await.summary(), "201");
    gate.open();
}
