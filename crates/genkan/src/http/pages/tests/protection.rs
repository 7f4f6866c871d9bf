//! The protection of the pages: against requests from other sites, and against leaks by what a page
//! shows.

use serde_json::json;

use super::steps::sign_in;
use crate::http::testing::{PASSWORD, TestServer};

#[tokio::test]
async fn row_34_every_page_is_protected() {
    let server = TestServer::start(&[]).await;
    let browser = server.browser();
    let flow = server.pushed(json!({})).await;
    for path in [flow.as_str(), "/oauth/authorize", "/account/sign-in", "/account/sign-up", "/account/none"] {
        let answer = browser.open(path).await.answer;
        let policy = answer.header("content-security-policy").to_owned();
        for part in ["default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-embedder-policy", "credentialless"),
            ("cross-origin-resource-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
            ("x-xss-protection", "0"),
            ("cache-control", "no-store"),
            ("content-language", "en"),
            ("access-control-allow-origin", ""),
            ("strict-transport-security", ""),
        ] {
            assert_eq!(answer.header(name), value, "{path} {name}");
        }
        let html = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            html.contains("<meta name=\"robots\" content=\"noindex\">")
                && html.contains("<html lang=\"en\">")
        );
        assert!(
            !html.contains(" style=") && !html.contains("<style") && !html.contains(" onclick="),
            "{path}"
        );
    }
    for (header, value) in
        [("sec-fetch-dest", "iframe"), ("sec-fetch-mode", "cors"), ("sec-fetch-site", "somewhere")]
    {
        assert_eq!(browser.get(&flow, &[(header, value)]).await.status, 400, "{header}");
    }
    let old = [("sec-fetch-site", ""), ("sec-fetch-mode", ""), ("sec-fetch-dest", "")];
    assert_eq!(browser.get(&flow, &old).await.status, 200, "browsers that do not say");
}

#[tokio::test]
async fn row_36_what_others_write_is_text() {
    let server = TestServer::start(&[]).await;
    let evil = "<script>alert(1)</script>\"'&";
    let hinted = server.pushed(json!({ "login_hint": evil })).await;
    let page = server.browser().open(&hinted).await;
    assert!(
        !page.says("<script>alert") && page.says("&#60;script&#62;alert(1)&#60;/script&#62;&#34;&#39;&#38;")
    );
    assert_eq!(page.form("/sign-in").text("identifier"), evil);

    let browser = server.browser();
    let page = browser.open("/account/sign-up").await;
    let form = page.form("/sign-up").with("handle", evil).with("email", evil).with("password", "x");
    let page = browser.send(&form).await;
    assert_eq!((page.answer.status, page.says("<script>alert")), (400, false));
    assert_eq!(page.form("/sign-up").text("email"), evil);
    let page = browser.open("/account/sign-in?handle=%22%3E%3Cscript%3E").await;
    assert!(!page.says("\"><script>"));
}

#[tokio::test]
async fn row_37_a_form_comes_from_our_own_page() {
    let server = TestServer::start(&[]).await;
    server.account("ann").await;
    let browser = server.browser();
    let form = sign_in(&browser.open("/account/sign-in").await, "ann");
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-mode", "cors"),
        ("sec-fetch-dest", "iframe"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("referer", "https://evil.example/account"),
        ("referer", "http://localhost:2583/xrpc/x"),
        ("content-type", "application/json"),
        ("content-type", "text/plain"),
    ] {
        assert_eq!(browser.post(&form, &[(name, value)]).await.status, 400, "{name}: {value}");
    }
    assert_eq!(browser.post(&form, &[("origin", ""), ("sec-fetch-site", "")]).await.status, 400);
    for token in ["", "0123456789abcdef01234567"] {
        assert_eq!(browser.post(&form.clone().with("csrf", token), &[]).await.status, 400);
    }
    assert_eq!(browser.post(&form.clone().and("csrf", &form.text("csrf")), &[]).await.status, 400);
    let large = form.clone().with("identifier", &"x".repeat(70_000));
    assert_eq!(browser.post(&large, &[]).await.status, 413);
    // Browsers that say less.
    let less = [("sec-fetch-site", ""), ("sec-fetch-mode", ""), ("sec-fetch-dest", ""), ("referer", "")];
    assert_eq!(browser.post(&form, &less).await.status, 303);
}

#[tokio::test]
async fn row_65_67_68_nothing_leads_out_but_the_request_and_nothing_secret_is_shown() {
    let server = TestServer::start(&[]).await;
    server.account("ann").await;
    let browser = server.browser();
    let path = server.pushed(json!({})).await;
    let page = browser.open(&format!("{path}&redirect_uri=https%3A%2F%2Fevil.example%2F")).await;
    let form = sign_in(&page, "ann").with("redirect_uri", "https://evil.example/");
    let answer = browser.post(&form, &[]).await;
    assert_eq!(answer.status, 303);
    assert!(answer.header("location").starts_with("/oauth/authorize?"));
    let (browser, page) = server.consent("ann", json!({})).await;
    for cookie in ["genkan-dev-id", "genkan-ses-id"] {
        assert!(!page.says(&browser.cookie(cookie).unwrap()), "{cookie} is in the page");
    }
    assert!(!page.says(PASSWORD));
}
