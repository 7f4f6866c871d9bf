//! Browsers: their cookies, and who is signed in on which.

use std::time::Duration;

use genkan_protocol::syntax::Did;
use genkan_testing::Browser;
use serde_json::json;

use super::steps::sign_in;
use crate::http::testing::TestServer;

#[tokio::test]
async fn row_45_46_cookies_change_at_sign_in_and_old_ones_end_the_browser() {
    let server = TestServer::start(&[]).await;
    server.account("ann").await;
    let browser = server.browser();
    let page = browser.open(&server.pushed(json!({})).await).await;
    let planted = browser.copy();
    let before = browser.cookie("genkan-ses-id").unwrap();
    browser.send(&sign_in(&page, "ann").with("remember", "yes")).await;
    let after = browser.cookie("genkan-ses-id").unwrap();
    assert_ne!(before, after, "row 45");
    let page = planted.open("/account").await;
    assert_eq!(page.heading(), "Sign in", "row 45: who planted the cookie is not signed in");

    assert_eq!(browser.open("/account").await.heading(), "Your account");
    server.clock.advance(Duration::from_secs(6));
    let stale = browser.copy();
    stale.set_cookie("genkan-ses-id", &before);
    assert_eq!(stale.open("/account").await.heading(), "Sign in", "row 46");
    assert_eq!(browser.open("/account").await.heading(), "Sign in", "row 46: the device is gone");
}

#[tokio::test]
async fn cookies_rotate_without_a_sign_out() {
    let server = TestServer::start(&[]).await;
    server.account("ann").await;
    let browser = server.browser();
    let page = browser.open("/account/sign-in").await;
    browser.send(&sign_in(&page, "ann")).await;
    for _ in 0..3 {
        let before = browser.cookie("genkan-ses-id").unwrap();
        server.clock.advance(Duration::from_mins(6));
        assert_eq!(browser.open("/account").await.heading(), "Your account");
        assert_ne!(browser.cookie("genkan-ses-id").unwrap(), before);
        // Also when the answer is about trouble.
        server.clock.advance(Duration::from_mins(6));
        assert_eq!(browser.open("/oauth/authorize?client_id=a&request_uri=b").await.answer.status, 400);
    }
    assert_eq!(browser.open("/account").await.heading(), "Your account");
}

#[tokio::test]
async fn a_browser_without_cookies_is_told_so_and_its_request_waits() {
    let server = TestServer::start(&[]).await;
    let path = server.pushed(json!({})).await;
    let page = server.browser().without_cookies().open(&path).await;
    assert_eq!((page.answer.status, page.redirects), (400, 1));
    assert_eq!(page.heading(), "Your browser is blocking cookies");
    assert_eq!(server.browser().open(&path).await.heading(), "Sign in", "it was not bound to that one");
}

#[tokio::test]
async fn an_account_sees_its_browsers_and_signs_them_out() {
    let server = TestServer::start(&[]).await;
    let ann = server.account("ann").await;
    server.account("bob").await;
    let (desk, phone, other) = (server.browser(), server.browser(), server.browser());
    for (browser, name) in [(&desk, "ann"), (&phone, "ann"), (&other, "bob")] {
        let page = browser.open("/account/sign-in").await;
        assert_eq!(
            browser.send(&sign_in(&page, name).with("remember", "yes")).await.heading(),
            "Your account"
        );
    }
    let page = desk.open("/account").await;
    assert!(page.says("Firefox, Linux") && page.says("this browser") && page.says("127.0.0.1"));
    let forms: Vec<_> = page.forms().into_iter().filter(|form| form.action.ends_with("/sign-out")).collect();
    assert_eq!(forms.len(), 2);

    // Bob cannot sign Ann's browsers out, nor anybody a browser that is not the account's.
    let mut stolen = forms[0].clone();
    let csrf = other.open("/account").await.form("/sign-out").text("csrf");
    stolen = stolen.with("csrf", &csrf);
    assert_eq!(other.send(&stolen).await.answer.status, 401);
    assert_eq!(desk.send(&forms[0].clone().with("device", "0")).await.answer.status, 404);

    let mine = app_id(&server, &ann.did, &desk).await;
    for form in forms.iter().filter(|form| form.text("device") != mine) {
        assert!(desk.send(form).await.says("Signed out."));
    }
    assert_eq!(phone.open("/account").await.heading(), "Sign in");
    let page = desk.open("/account").await;
    assert_eq!(desk.send(&page.form("/sign-out")).await.heading(), "Sign in");
}

async fn app_id(server: &TestServer, did: &Did, browser: &Browser) -> String {
    use sha2::Digest as _;
    let hash =
        data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(browser.cookie("genkan-dev-id").unwrap()));
    assert!(
        server.app.sign_ins.devices_of(did).await.unwrap().iter().any(|device| device.id.as_str() == hash)
    );
    hash
}
