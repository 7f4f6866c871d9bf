//! An app's request: from the address it sends a browser to, to the answer that the app gets.

use std::time::Duration;

use genkan_testing::{Browser, PageForm};
use serde_json::json;

use super::steps::{WIDE, location, sign_in};
use crate::base::query::escaped;
use crate::http::testing::{ORIGIN, TestServer};

#[tokio::test]
async fn from_sign_in_to_the_code_by_forms_alone() {
    let server = TestServer::start(&[]).await;
    server.account("ann").await;
    let (browser, page) = server.consent("ann", json!({ "scope": WIDE })).await;
    assert!(page.says("app.example.com") && page.says("@ann.test"));
    let page = browser.send(&page.form("/consent").with("answer", "allow")).await;
    let back = location(&page.answer);
    let issuer = escaped(ORIGIN);
    let start = format!("https://app.example.com/back?kept=yes&iss={issuer}&state=st%26te&code=cod-");
    assert!(back.starts_with(&start), "{back}");
    assert_eq!(page.answer.header("cache-control"), "no-store");
    assert!(!page.answer.header("referrer-policy").is_empty());
}

#[tokio::test]
async fn strangers_who_spent_the_budget_keep_no_browser_out() {
    let server = TestServer::start(&[]).await;
    server.account("ann").await;
    server.app.sign_ins.spend_all();
    let (browser, page) = server.consent("ann", json!({ "scope": WIDE })).await;
    let page = browser.send(&page.form("/consent").with("answer", "allow")).await;
    assert!(location(&page.answer).contains("&code=cod-"));
    let browser = server.browser();
    let page = browser.open("/account/sign-in").await;
    let page = browser.send(&sign_in(&page, "ann").with("remember", "yes")).await;
    assert_eq!(page.heading(), "Your account");
}

/// The database fails after the decision was committed.
#[tokio::test]
async fn an_app_gets_its_code_although_the_cookie_cannot_be_rotated() {
    let server = TestServer::start(&[]).await;
    server.account("ann").await;
    let (browser, page) = server.consent("ann", json!({})).await;
    for statement in [
        "INSERT INTO devices (id, session, rotated_at, address, user_agent, seen_at, created_at, rotations)
         SELECT 'other', 'other', 0, '', '', 0, 0, rotations + 1 FROM devices",
        "CREATE UNIQUE INDEX refusing ON devices (rotations)",
    ] {
        sqlx::query(statement).execute(server.app.db.writer()).await.unwrap();
    }
    let before = browser.cookie("genkan-ses-id");
    let page = browser.send(&page.form("/consent").with("answer", "allow")).await;
    assert!(location(&page.answer).contains("&code=cod-"));
    assert_eq!(browser.cookie("genkan-ses-id"), before);
}

#[tokio::test]
async fn the_answer_travels_as_the_app_asked() {
    let server = TestServer::start(&[]).await;
    server.account("ann").await;
    let (browser, page) = server.consent("ann", json!({ "response_mode": "fragment" })).await;
    let page = browser.send(&page.form("/consent").with("answer", "allow")).await;
    assert!(location(&page.answer).starts_with("https://app.example.com/back?kept=yes#iss="));

    let (browser, page) = server.consent("ann", json!({ "response_mode": "form_post" })).await;
    let page = browser.send(&page.form("/consent").with("answer", "allow")).await;
    assert_eq!(page.answer.status, 200);
    let form = page.form("/back?kept=yes");
    assert_eq!((form.text("iss").as_str(), form.text("state").as_str()), (ORIGIN, "st&te"));
    assert!(form.text("code").starts_with("cod-"));
    let policy = page.answer.header("content-security-policy").to_owned();
    assert!(policy.contains("form-action 'self' https://app.example.com"), "{policy}");
    // The script that sends it, and the button for browsers without.
    let script = page.html().split("<script src=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert_eq!(browser.get(&script, &[]).await.header("content-type"), "text/javascript; charset=utf-8");
    assert!(page.says("<button type=\"submit\">"));
}

#[tokio::test]
async fn saying_no_leads_back_with_access_denied() {
    let server = TestServer::start(&[]).await;
    server.account("ann").await;
    let (browser, page) = server.consent("ann", json!({})).await;
    let page = browser.send(&page.form("/consent").with("answer", "deny")).await;
    assert!(location(&page.answer).contains("&error=access_denied"));
    // And from the first page, without an account.
    let browser = server.browser();
    let page = browser.open(&server.pushed(json!({})).await).await;
    let page = browser.send(&page.form("/reject")).await;
    assert!(location(&page.answer).contains("&error=access_denied"));
}

#[tokio::test]
async fn a_remembered_account_needs_no_password() {
    let server = TestServer::start(&[]).await;
    let did = server.account("ann").await.did;
    server.account("bob").await;
    let browser = server.browser();
    let page = browser.open(&server.pushed(json!({})).await).await;
    browser.send(&sign_in(&page, "ann").with("remember", "yes")).await;

    let page = browser.open(&server.pushed(json!({})).await).await;
    assert_eq!(page.heading(), "Choose an account");
    assert!(!page.says("Password required"));
    let page = browser.send(&page.form("/choose").with("did", did.as_str())).await;
    assert_eq!(page.heading(), "Allow this app to access your account?");

    server.clock.advance(Duration::from_hours(7 * 24 + 1));
    let page = browser.open(&server.pushed(json!({})).await).await;
    assert!(page.says("Password required"));
    let page = browser.send(&page.form("/choose").with("did", did.as_str())).await;
    assert_eq!(
        (page.heading().as_str(), page.form("/sign-in").text("identifier").as_str()),
        ("Sign in", "ann.test")
    );

    // One who was not remembered is not there at the next request.
    let (browser, _) = server.consent("bob", json!({})).await;
    assert_eq!(browser.open(&server.pushed(json!({})).await).await.heading(), "Sign in");
}

#[tokio::test]
async fn an_app_that_asks_with_prompt_login_does_not_get_the_old_sign_in() {
    let server = TestServer::start(&[]).await;
    let did = server.account("ann").await.did;
    let browser = server.browser();
    let page = browser.open(&server.pushed(json!({})).await).await;
    browser.send(&sign_in(&page, "ann").with("remember", "yes")).await;
    server.clock.advance(Duration::from_mins(1));
    let page = browser.open(&server.pushed(json!({})).await).await;
    assert!(!page.says("Password required"), "without the prompt the sign-in is recent enough");

    for hint in [None, Some("ann.test")] {
        let asked = json!({ "prompt": "login", "login_hint": hint });
        let page = browser.open(&server.pushed(asked.clone()).await).await;
        assert_eq!(page.heading(), "Choose an account");
        assert!(page.says("Password required"), "{hint:?}");
        let choice = page.form("/choose").with("did", did.as_str());
        let page = browser.send(&choice).await;
        assert_eq!(page.heading(), "Sign in", "{hint:?}: the password comes before consent");
        let page = browser.send(&sign_in(&page, "ann")).await;
        assert_eq!(page.heading(), "Allow this app to access your account?", "{hint:?}");
        let page = browser.send(&page.form("/consent").with("answer", "allow")).await;
        assert!(location(&page.answer).contains("code=cod-"), "{hint:?}");

        // A consent form that this browser was never shown.
        server.clock.advance(Duration::from_mins(1));
        let page = browser.open(&server.pushed(asked).await).await;
        let mut forged =
            page.form("/choose").with("did", did.as_str()).with("scope", "atproto").with("answer", "allow");
        forged.action = forged.action.replace("/choose", "/consent");
        let page = browser.send(&forged).await;
        assert!(location(&page.answer).contains("error=access_denied"), "{hint:?}");
        server.clock.advance(Duration::from_mins(1));
    }
}

#[tokio::test]
async fn row_30_31_35_an_unknown_request_gets_an_error_page() {
    let server = TestServer::start(&[]).await;
    let good = server.pushed(json!({})).await;
    for path in [
        "/oauth/authorize".to_owned(),
        "/oauth/authorize?client_id=x&request_uri=y".to_owned(),
        format!("{good}0"),
        format!("{good}&request_uri=other"),
        format!("{good}&request=eyJ"),
        "/oauth/authorize?client_id=https%3A%2F%2Fapp.example.com%2Fclient.json&redirect_uri=https%3A%2F%2Fevil.example%2F&response_type=code".to_owned(),
        good.replace("app.example.com", "evil.example.com"),
    ] {
        let page = server.browser().open(&path).await;
        assert_eq!(page.answer.status, 400, "{path}");
        assert!(page.says("invalid_request") && !page.says("evil"), "{path}");
    }
    // Row 31: the request is gone after another client's id was tried with it.
    assert_eq!(server.browser().open(&good).await.answer.status, 400);
    let expired = server.pushed(json!({})).await;
    server.clock.advance(Duration::from_mins(6));
    assert_eq!(server.browser().open(&expired).await.answer.status, 400);
}

#[tokio::test]
async fn row_32_33_a_request_is_one_browsers_and_decided_once() {
    let server = TestServer::start(&[]).await;
    server.account("ann").await;
    let path = server.pushed(json!({})).await;
    let mine = server.browser();
    assert_eq!(mine.open(&path).await.answer.status, 200);
    assert_eq!(mine.open(&path).await.answer.status, 200, "a reload");
    let page = server.browser().open(&path).await;
    assert!(location(&page.answer).contains("error=access_denied"));
    assert_eq!(mine.open(&path).await.answer.status, 400, "the request is gone");

    let (browser, page) = server.consent("ann", json!({})).await;
    let form = page.form("/consent").with("answer", "allow");
    assert!(location(&browser.send(&form).await.answer).contains("code="));
    let again = browser.send(&form).await;
    assert!(location(&again.answer).contains("error=access_denied"), "row 33");
}

#[tokio::test]
async fn row_38_39_40_consent_is_for_the_account_and_scope_that_were_requested() {
    let server = TestServer::start(&[]).await;
    server.account("ann").await;
    let bob = server.account("bob").await.did;
    let (browser, page) = server.consent("ann", json!({})).await;
    let form = page.form("/consent").with("answer", "allow");
    let answer = browser.send(&form.clone().with("did", bob.as_str())).await.answer;
    assert_eq!(answer.status, 401, "row 38");
    let after = browser.send(&form).await;
    assert!(location(&after.answer).contains("access_denied"), "row 38: the request is void");

    let scope = async |browser: &Browser, form: PageForm| {
        assert!(location(&browser.send(&form).await.answer).contains("code=cod-"));
        let row = sqlx::query_scalar("SELECT scope FROM oauth_codes ORDER BY expires_at DESC");
        server.clock.advance(Duration::from_secs(1));
        row.fetch_one(server.app.db.reader()).await.map(|scope: String| scope).unwrap()
    };
    let (browser, page) = server.consent("ann", json!({ "scope": WIDE })).await;
    let form = page.form("/consent").with("answer", "allow");
    let wider = form.and("scope", "identity:*").without("scope", "transition:generic");
    assert_eq!(scope(&browser, wider).await, "atproto transition:email", "row 39");

    let (browser, page) = server.consent("ann", json!({ "scope": WIDE })).await;
    let without = page.form("/consent").with("answer", "allow").without("scope", "atproto");
    assert!(location(&browser.send(&without).await.answer).contains("error=access_denied"), "row 40");
}

#[tokio::test]
async fn only_the_account_that_the_app_named_will_do() {
    let server = TestServer::start(&[]).await;
    let ann = server.account("ann").await;
    server.account("bob").await;
    let browser = server.browser();
    let page = browser.open(&server.pushed(json!({ "login_hint": ann.did })).await).await;
    let form = page.form("/sign-in");
    assert_eq!(form.text("identifier"), "ann.test", "shown as the handle");
    // The name in the form does not count.
    let page = browser.send(&sign_in(&page, "bob")).await;
    assert!(page.says("@ann.test"), "{}", page.html());
}

#[tokio::test]
async fn a_deactivated_account_is_asked_first() {
    let server = TestServer::start(&[]).await;
    let ann = server.account("ann").await;
    server.deactivate(&ann).await;
    let browser = server.browser();
    let page = browser.open(&server.pushed(json!({})).await).await;
    let page = browser.send(&sign_in(&page, "ann")).await;
    assert_eq!(page.heading(), "Your account is deactivated");
    // Its host is not there to be told.
    let page = browser.send(&page.form("/reactivate")).await;
    assert_eq!((page.answer.status, page.says("reactivate your account. Try again")), (200, true));
}
