//! Lines of the checklist that no other test has: what client developers depend on (§6.B, `b` and
//! the line's number), and rows of bad input (§7) that take more than a request.

use std::net::TcpListener;
use std::time::Duration;

use axum::body::Body;
use genkan_protocol::oauth::dpop::ProofClaims;
use genkan_testing::{Browser, Trouble};
use http::Request;
use serde_json::json;

use super::app::TestApp;
use super::server::{OAuthServer, sent_back};
use crate::base::fetch::test_dns::{Reply, TestDns};
use crate::base::random;
use crate::db::{Db, on_each_database};
use crate::http::testing::{ORIGIN, PASSWORD};
use crate::oauth::Call;

on_each_database!(
    row_07_a_document_on_a_private_address_is_not_asked_for,
    row_08_a_name_that_moves_is_dialled_where_it_was_checked,
    row_75_the_host_header_counts_for_nothing,
    b02_the_same_body_goes_through_with_a_nonce_at_every_endpoint,
    b03_every_answer_to_a_proof_has_a_nonce_that_scripts_may_read,
    b08_a_client_whose_host_has_to_wake_up_is_waited_for,
    b10_an_app_on_a_sibling_subdomain_may_send_people_here,
    b11_a_native_app_is_reached_by_303_at_its_own_scheme,
    b12_iss_and_state_come_with_success_and_with_errors,
    b13_the_hint_is_filled_in_and_no_other_account_is_accepted,
    b14_prompt_create_opens_the_sign_up,
    b17_the_question_says_what_is_asked_for_and_no_more,
    b19_apps_under_development_work_against_production,
    b19_unless_the_operator_does_not_want_them,
    b22_clocks_may_be_a_minute_or_two_apart,
    b23_forms_may_name_their_charset,
    a21_hints_are_dids_and_handles_in_any_case,
);

async fn row_07_a_document_on_a_private_address_is_not_asked_for(db: Db) {
    let dns = TestDns::start(|name, _| match name {
        "inside.example.org." => Reply::addresses(&["10.0.0.7"]),
        // One private address is enough: the client could be led to it on the next attempt.
        "half.example.org." => Reply::addresses(&["93.184.216.34", "127.0.0.1"]),
        "metadata.example.org." => Reply::addresses(&["169.254.169.254"]),
        _ => Reply::NoSuchName,
    })
    .await;
    let inside = TcpListener::bind("127.0.0.1:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let server = OAuthServer::with(db, |config| config.network.dns_servers = vec![dns.address()]).await;
    // A public address redirects to the private one.
    let inner = format!("http://{}/c.json", inside.local_addr().unwrap());
    let app = TestApp::published(&server, "moved", &json!({}));
    server.site.redirect("/moved.json", &inner);
    let answer = app.push(&server, &[]).await;
    assert_eq!(
        (answer.summary().as_str(), server.site.journal().len()),
        ("400 invalid_client_metadata", 1),
        "7"
    );
    assert!(inside.accept().is_err(), "7: somebody knocked");
    // The client id itself has a name with a private address.
    let dialled = server.app.oauth.guarded().detour(inside.local_addr().unwrap());
    let app = TestApp::loopback();
    for name in ["inside", "half", "metadata"] {
        let id = format!("https://{name}.example.org/c.json");
        let answer = app.push(&server, &[("client_id", &id)]).await;
        assert_eq!(answer.summary(), "400 invalid_client_metadata", "7 {name}");
        assert!(answer.description().contains("not allowed"), "7 {name}: {}", answer.description());
    }
    assert_eq!(*dialled.lock().unwrap(), [], "7");
    assert!(inside.accept().is_err(), "7: somebody knocked");
}

async fn row_08_a_name_that_moves_is_dialled_where_it_was_checked(db: Db) {
    // A lookup sends two questions. The lookup of a second attempt would get another address.
    let dns = TestDns::start(|_, count| {
        Reply::addresses(&[if count <= 2 { "93.184.216.34" } else { "127.0.0.1" }])
    })
    .await;
    // This server does not speak TLS, so the client fails after it has connected, and may try
    // again.
    let canary = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = canary.local_addr().unwrap();
    tokio::spawn(async move { while canary.accept().await.is_ok() {} });
    let server = OAuthServer::with(db, |config| config.network.dns_servers = vec![dns.address()]).await;
    let dialled = server.app.oauth.guarded().detour(address);
    let app = TestApp::loopback();
    let answer = app.push(&server, &[("client_id", "https://moves.example.org/c.json")]).await;
    assert_eq!(answer.summary(), "400 invalid_client_metadata", "8");
    assert_eq!(*dialled.lock().unwrap(), ["93.184.216.34:443".parse().unwrap()], "8");
    assert_eq!(dns.asked(), 4, "8: each try looks once");
}

async fn row_75_the_host_header_counts_for_nothing(db: Db) {
    let server = OAuthServer::start(db).await;
    server.add_people().await;
    // A request can reach Genkan with any `Host`, for example through a wildcard name.
    let forged = server.client("evil.example.com");
    let metadata = forged.get("/.well-known/oauth-authorization-server").await.ok();
    assert_eq!(metadata.text("/issuer"), ORIGIN, "75");
    assert!(!metadata.transcript().contains("evil"), "75");
    let resource = forged.get("/.well-known/oauth-protected-resource").await.ok();
    assert_eq!(resource.text("/resource"), ORIGIN, "75");
    // A proof for the forged name is refused. A proof for Genkan's own origin is accepted.
    let app = TestApp::loopback();
    let proof = |htu: &str| {
        app.proof_key.sign(&ProofClaims {
            jti: &random::id(),
            htm: "POST",
            htu,
            iat: 1_700_000_000,
            nonce: Some(&server.app.oauth.nonce()),
            ath: None,
        })
    };
    let form = [
        ("client_id", &*app.id),
        ("response_type", "code"),
        ("redirect_uri", &app.redirect),
        ("scope", &app.scope),
        ("state", "x"),
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method", "S256"),
    ];
    let body = serde_html_form::to_string(form).unwrap();
    for (htu, expected) in [
        ("http://evil.example.com/oauth/par".to_owned(), "401 invalid_dpop_proof"),
        (format!("{ORIGIN}/oauth/par"), "201"),
    ] {
        let client = server.client("evil.example.com").with("dpop", &proof(&htu));
        let answer = client.post("/oauth/par", "application/x-www-form-urlencoded", body.clone()).await;
        assert_eq!(answer.summary(), expected, "75 {htu}");
    }
    // The pages keep their origin too.
    let browser = Browser::new(server.client("evil.example.com"), ORIGIN);
    let page = server.at_consent(&browser, &server.way_in(&app, &[]).await, "bea").await;
    assert!(!page.says("evil"), "75");
    let page = browser.send(&page.form("/consent").with("answer", "allow")).await;
    let (target, parameters) = sent_back(&page);
    assert_eq!(
        (target, &parameters[0]),
        (app.redirect.clone(), &("iss".to_owned(), ORIGIN.to_owned())),
        "75"
    );
}

async fn b02_the_same_body_goes_through_with_a_nonce_at_every_endpoint(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::confidential(&server, "app");
    let code = server.code(&app).await;
    let (verifier, assertion) = (app.verifier(), app.assertion(&server, &json!({})));
    let mut credentials = [
        ("client_id", &*app.id),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", &assertion),
    ];
    // Clients repeat the whole form with the nonce. Nothing in it may have been used up by the
    // refusal.
    let twice = async |path: &str, form: &[(&str, &str)], expected: &str| {
        let refused = server.post(path, form, &[&app.proof_at(&server, path, None)]).await;
        assert_eq!(refused.summary(), "400 use_dpop_nonce", "{path}");
        let nonce = refused.headers["dpop-nonce"].to_str().unwrap();
        let answer = server.post(path, form, &[&app.proof_at(&server, path, Some(nonce))]).await;
        assert_eq!(answer.summary(), expected, "{path}: {answer:?}");
        answer
    };
    let redeem = [
        ("grant_type", "authorization_code"),
        ("code", &*code),
        ("redirect_uri", &app.redirect),
        ("code_verifier", &verifier),
    ];
    let tokens = twice("/oauth/token", &[&credentials[..], &redeem].concat(), "200").await;
    let (access, refresh) = (tokens.text("/access_token"), tokens.text("/refresh_token"));

    let path = "/xrpc/app.bsky.feed.getTimeline";
    let check = async |nonce: Option<&str>| {
        let proof = app.proof_key.sign(&ProofClaims {
            jti: &random::id(),
            htm: "GET",
            htu: &format!("{ORIGIN}{path}"),
            iat: 1_700_000_000,
            nonce,
            ath: Some(&genkan_protocol::oauth::dpop::ath(&access)),
        });
        server.app.oauth.check_access(&access, &Call { method: "GET", path, proofs: vec![&proof] }).await
    };
    assert_eq!(check(None).await.unwrap_err().code(), Some("use_dpop_nonce"));
    check(Some(&server.app.oauth.nonce())).await.unwrap();

    // The first assertion is used up by now.
    let again = app.assertion(&server, &json!({}));
    credentials[2].1 = &again;
    twice("/oauth/revoke", &[&credentials[..], &[("token", &refresh)]].concat(), "200").await;
}

async fn b03_every_answer_to_a_proof_has_a_nonce_that_scripts_may_read(db: Db) {
    let server = OAuthServer::start(db).await;
    server.add_people().await;
    for path in ["/oauth/par", "/oauth/token", "/oauth/revoke"] {
        // Requests without a proof, without parameters, with a wrong content type, and with a wrong
        // verb.
        let client = server.client("localhost:2583").with("origin", "https://app.example.com");
        for answer in [
            client.post(path, "application/x-www-form-urlencoded", "client_id=x").await,
            client.post(path, "application/x-www-form-urlencoded", "").await,
            client.post(path, "text/plain", "x").await,
            client.get(path).await,
        ] {
            assert!(answer.status >= 400, "{path} {}", answer.transcript());
            assert_ne!(answer.header("dpop-nonce"), "", "{path} {}", answer.transcript());
            assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
            let exposed = answer.header("access-control-expose-headers").to_ascii_lowercase();
            assert!(exposed.contains("dpop-nonce") && exposed.contains("www-authenticate"), "{exposed}");
        }
        let asked = client
            .request(http::Method::OPTIONS, path)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,dpop")
            .body(String::new())
            .unwrap();
        let answer = client.send(asked).await;
        assert!(answer.status < 300, "{path} {}", answer.transcript());
        assert!(answer.header("access-control-allow-headers").contains("dpop"), "{path}");
    }
}

async fn b08_a_client_whose_host_has_to_wake_up_is_waited_for(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::published(&server, "app", &json!({}));
    // A free host that sleeps answers 503 to the first request.
    server.site.trouble_times("*", Trouble::Status(503), 1);
    assert_eq!(app.push(&server, &[]).await.summary(), "201");
    assert_eq!(server.site.journal().len(), 2, "once more after the 503");
    let slow = TestApp::published(&server, "slow", &json!({}));
    server.site.trouble_times("*", Trouble::Slow(Duration::from_millis(1200)), 1);
    assert_eq!(slow.push(&server, &[]).await.summary(), "201");
    assert_eq!(server.site.journal().len(), 3, "waited for");
    server.site.trouble("*", Trouble::Status(503));
    assert_eq!(app.push(&server, &[]).await.summary(), "201", "remembered");
    // Row 9: Genkan gives up after a second failure.
    let other = TestApp::published(&server, "other", &json!({}));
    let answer = other.push(&server, &[]).await;
    assert_eq!(
        (answer.summary().as_str(), server.site.journal().len()),
        ("400 invalid_client_metadata", 5),
        "9"
    );
    assert!(answer.description().contains("answered 503"), "{}", answer.description());
}

async fn b10_an_app_on_a_sibling_subdomain_may_send_people_here(db: Db) {
    let server = OAuthServer::start(db).await;
    server.add_people().await;
    let way_in = server.way_in(&TestApp::loopback(), &[]).await;
    for (site, status) in [("same-site", 303), ("cross-site", 303), ("none", 303), ("somewhere", 400)] {
        // A new browser is first asked to bring a cookie back.
        let answer = server.browser().get(&way_in, &[("sec-fetch-site", site)]).await;
        assert_eq!(answer.status, status, "{site}");
    }
    let browser = server.browser();
    assert_eq!(browser.open(&way_in).await.heading(), "Sign in");
    assert_eq!(browser.get(&way_in, &[("sec-fetch-site", "same-site")]).await.status, 200);
}

async fn b11_a_native_app_is_reached_by_303_at_its_own_scheme(db: Db) {
    let server = OAuthServer::start(db).await;
    server.add_people().await;
    let change = json!({ "redirect_uri": "com.example.app:/back" });
    let way_in = server.stored_request("https://app.example.com/client.json", change).await;
    let browser = server.browser();
    let page = server.at_consent(&browser, &way_in, "bea").await;
    // Browsers block the last redirect after a form unless the page's policy names the scheme.
    let policy = page.answer.header("content-security-policy").to_owned();
    assert!(policy.contains("form-action 'self' com.example.app:"), "{policy}");
    let page = browser.send(&page.form("/consent").with("answer", "allow")).await;
    let (target, parameters) = sent_back(&page);
    assert_eq!(target, "com.example.app:/back");
    assert!(parameters.iter().any(|(name, value)| name == "code" && value.starts_with("cod-")));
}

async fn b12_iss_and_state_come_with_success_and_with_errors(db: Db) {
    let server = OAuthServer::start(db).await;
    server.add_people().await;
    let app = TestApp::loopback();
    // Characters that need different escapes in a URL and in HTML.
    let state = "a b&c=%\"<'\u{e9}\u{1f600}";
    for (answer, last) in [("allow", "code"), ("deny", "error")] {
        for mode in ["query", "fragment"] {
            let browser = server.browser();
            let way_in = server.way_in(&app, &[("state", state), ("response_mode", mode)]).await;
            let page = server.at_consent(&browser, &way_in, "bea").await;
            let page = browser.send(&page.form("/consent").with("answer", answer)).await;
            let joint = if mode == "query" { '?' } else { '#' };
            assert!(page.answer.header("location").starts_with(&format!("{}{joint}iss=", app.redirect)));
            let (_, parameters) = sent_back(&page);
            let names: Vec<&str> = parameters.iter().map(|(name, _)| &**name).collect();
            assert_eq!(names[..3], ["iss", "state", last]);
            assert_eq!((&*parameters[0].1, &*parameters[1].1), (ORIGIN, state), "letter by letter");
            assert_eq!(page.answer.header("cache-control"), "no-store");
        }
    }
}

async fn b13_the_hint_is_filled_in_and_no_other_account_is_accepted(db: Db) {
    let server = OAuthServer::start(db).await;
    let [_, cid] = server.add_people().await;
    let app = TestApp::loopback();
    let browser = server.browser();
    let way_in = server.way_in(&app, &[("login_hint", "bea.test")]).await;
    let page = browser.open(&way_in).await;
    let form = page.form("/sign-in");
    assert_eq!(form.text("identifier"), "bea.test");
    // The hint decides, and not the identifier in the form.
    let page = browser.send(&form.with("identifier", "cid.test").with("password", PASSWORD)).await;
    assert!(page.says("@bea.test") && !page.says("@cid.test"), "{}", page.html());
    // Another account that is signed in here cannot be chosen either.
    let browser = server.browser();
    let page = browser.open(&server.way_in(&app, &[]).await).await;
    let form = page.form("/sign-in").with("identifier", "cid").with("password", PASSWORD);
    browser.send(&form.with("remember", "yes")).await;
    let page = browser.open(&server.way_in(&app, &[("login_hint", "bea.test")]).await).await;
    assert_eq!(
        (page.heading().as_str(), &*page.form("/sign-in").text("identifier")),
        ("Sign in", "bea.test")
    );
    // A form that the page does not show, as an attacker would send it.
    let mut forced = page.form("/sign-in").with("did", cid.did.as_str());
    forced.action = forced.action.replace("/sign-in", "/choose");
    let page = browser.send(&forced).await;
    assert!(!page.says("Allow this app") && !page.says("@cid.test"), "{}", page.html());
}

async fn b14_prompt_create_opens_the_sign_up(db: Db) {
    let server = OAuthServer::start(db).await;
    server.add_people().await;
    let browser = server.browser();
    let page = browser.open(&server.way_in(&TestApp::loopback(), &[("prompt", "create")]).await).await;
    assert_eq!(page.heading(), "Create an account");
    page.form("/sign-up");
    let page = browser.open(&page.link("I already have an account")).await;
    assert_eq!(page.heading(), "Sign in");
}

async fn b17_the_question_says_what_is_asked_for_and_no_more(db: Db) {
    let server = OAuthServer::start(db).await;
    server.add_people().await;
    let all = "atproto repo:app.bsky.feed.post?action=create blob:image/* account:email identity:handle";
    let app = TestApp::published(&server, "app", &json!({ "scope": format!("{all} transition:generic") }));
    let ask = async |scope: &str| {
        let way_in = server.way_in(&app, &[("scope", scope)]).await;
        server.at_consent(&server.browser(), &way_in, "bea").await
    };
    // Each permission is requested alone, so its text must not appear for the others.
    let narrow = [
        ("repo:app.bsky.feed.post?action=create", "Create records of type app.bsky.feed.post"),
        ("blob:image/*", "Upload images"),
        ("account:email", "See your email address"),
        ("identity:handle", "Change your handle"),
    ];
    let bare = ask("atproto").await;
    let wide = ask("atproto transition:generic").await;
    for (scope, words) in narrow {
        let page = ask(&format!("atproto {scope}")).await;
        assert!(page.says(words), "{scope}: {}", page.html());
        for (_, other) in narrow.iter().filter(|(other, _)| *other != scope) {
            assert!(!page.says(other), "{scope} is told as {other:?}");
        }
        assert!(!page.says("Change your entire identity"), "{scope}");
        assert!(!bare.says(words) && !wide.says(words), "{scope}");
    }
    assert!(wide.answer.body.len() > bare.answer.body.len());
}

async fn b19_apps_under_development_work_against_production(db: Db) {
    let app = TestApp::loopback();
    let server = OAuthServer::with(db, in_production).await;
    for redirect in ["http://127.0.0.1:4321/back", "http://127.0.0.1/back"] {
        let proof = proof_in_production(&server, &app);
        let answer = app.push_with(&server, &[("redirect_uri", redirect)], &[&proof]).await;
        assert_eq!(answer.summary(), "201", "{answer:?}");
    }
}

async fn b19_unless_the_operator_does_not_want_them(db: Db) {
    let app = TestApp::loopback();
    let server = OAuthServer::with(db, |config| {
        in_production(config);
        config.oauth.loopback_clients = false;
    })
    .await;
    let proof = proof_in_production(&server, &app);
    let answer = app.push_with(&server, &[], &[&proof]).await;
    assert_eq!(answer.summary(), "400 invalid_client_id", "{answer:?}");
}

const PRODUCTION: &str = "https://entryway.example.com";

fn in_production(config: &mut crate::config::Config) {
    config.service.public_url = PRODUCTION.parse().unwrap();
    config.service.development = false;
}

fn proof_in_production(server: &OAuthServer, app: &TestApp) -> String {
    app.proof_key.sign(&ProofClaims {
        jti: &random::id(),
        htm: "POST",
        htu: &format!("{PRODUCTION}/oauth/par"),
        iat: 1_700_000_000,
        nonce: Some(&server.app.oauth.nonce()),
        ath: None,
    })
}

async fn b22_clocks_may_be_a_minute_or_two_apart(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::confidential(&server, "app");
    for apart in [-120, -60, 60, 120] {
        let now = 1_700_000_000 + apart;
        let proof = app.proof_key.sign(&ProofClaims {
            jti: &random::id(),
            htm: "POST",
            htu: &format!("{ORIGIN}/oauth/par"),
            iat: now,
            nonce: Some(&server.app.oauth.nonce()),
            ath: None,
        });
        // Assertions must be young. An assertion from a clock that is ahead is accepted.
        let made = now.clamp(1_700_000_000 - 59, 1_700_000_000 + 60);
        let assertion = app.assertion(&server, &json!({ "iat": made, "exp": made + 60 }));
        let answer = app.push_with(&server, &[("client_assertion", &assertion)], &[&proof]).await;
        assert_eq!(answer.summary(), "201", "{apart}: {answer:?}");
    }
}

async fn b23_forms_may_name_their_charset(db: Db) {
    let server = OAuthServer::start(db).await;
    let app = TestApp::loopback();
    let mut token = server.tokens(&app).await.text("/refresh_token");
    for kind in [
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded;charset=UTF-8",
        "application/x-www-form-urlencoded; charset=\"utf-8\"",
        "Application/X-WWW-Form-Urlencoded ; charset=utf-8",
    ] {
        let form =
            [("client_id", &*app.id), ("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
        let request = Request::post("/oauth/token")
            .header("content-type", kind)
            .header("dpop", app.proof(&server, "/oauth/token"))
            .body(Body::from(serde_html_form::to_string(form).unwrap()))
            .unwrap();
        let answer = server.send(request).await;
        assert_eq!(answer.summary(), "200", "{kind}: {answer:?}");
        token = answer.text("/refresh_token");
    }
}

async fn a21_hints_are_dids_and_handles_in_any_case(db: Db) {
    let server = OAuthServer::start(db).await;
    let [bea, _] = server.add_people().await;
    let app = TestApp::loopback();
    // An unknown account is shown as well: the page must not reveal which accounts exist.
    let unknown = format!("did:plc:{}", "z".repeat(24));
    for (hint, shown) in [
        ("bea.test", "bea.test"),
        ("Bea.Test", "bea.test"),
        (bea.did.as_str(), "bea.test"),
        (&*unknown, &*unknown),
        ("somebody.example.com", "somebody.example.com"),
    ] {
        let page = server.browser().open(&server.way_in(&app, &[("login_hint", hint)]).await).await;
        assert_eq!(page.form("/sign-in").text("identifier"), shown, "{hint}");
    }
    for hint in ["bea@example.com", "https://pds.example.com", "did:key:zQ3", "bea", "@bea.test", "bea.test "]
    {
        let answer = app.push(&server, &[("login_hint", hint)]).await;
        assert_eq!(answer.summary(), "400 invalid_request", "{hint}");
    }
}
