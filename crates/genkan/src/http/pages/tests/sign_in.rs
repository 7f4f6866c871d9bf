//! Passwords and their guessing, and a new password by mail.

use serde_json::json;
use sqlx::Row as _;

use super::steps::sign_in;
use crate::base::{WaitingClient, monotonic_now};
use crate::db::audit::Actor;
use crate::http::pages::LEAST;
use crate::http::testing::{PASSWORD, TestServer};
use crate::mail::testing::MailFolder;

#[tokio::test]
async fn row_41_43_an_unknown_name_a_wrong_password_and_an_app_password_get_the_same_answer() {
    let server = TestServer::start(&[]).await;
    let ann = server.account("ann").await.did;
    let app_passwords = &server.app.app_passwords;
    let (_, for_app) = app_passwords
        .create(&ann, "app", true, Actor::Genkan, &WaitingClient::patient())
        .await
        .unwrap()
        .unwrap();
    let browser = server.browser();
    let page = browser.open("/account/sign-in").await;
    let mut told = Vec::new();
    for (name, password) in [
        ("ann.test", "guess-1"),
        ("eve.test", "guess-2"),
        ("eve.test", PASSWORD),
        ("ann.test", for_app.expose()),
    ] {
        let form = sign_in(&page, name).with("password", password);
        let began = monotonic_now();
        let answer = browser.send(&form).await;
        assert!(began.elapsed() >= LEAST);
        assert_eq!(answer.answer.status, 400);
        assert!(!answer.says(password), "what was typed as a password is not sent back");
        told.push(answer.html().replace(name, "(name)"));
    }
    assert!(told.iter().all(|html| *html == told[0]));
    assert!(told[0].contains("aria-invalid=\"true\"") && told[0].contains("href=\"#password\""));
}

#[tokio::test]
async fn row_42_asking_for_a_new_password_tells_nothing() {
    let folder = MailFolder::new();
    let server = TestServer::start(&folder.settings()).await;
    server.account("ann").await;
    let browser = server.browser();
    let flow = server.pushed(json!({})).await;
    let page = browser.open(&flow).await;
    let mut told = Vec::new();
    for email in ["ann@example.com", "nobody@example.com"] {
        let page = browser.open(&page.link("Forgot your password?")).await;
        assert_eq!(page.heading(), "Forgot your password?");
        let page = browser.send(&page.form("/reset-password").with("email", email)).await;
        assert_eq!((page.heading().as_str(), page.redirects), ("Choose a new password", 1));
        assert_eq!(browser.open(&page.path).await.html(), page.html(), "the step survives a reload");
        told.push(page);
    }
    assert_eq!(told[0].html(), told[1].html());
    let form = told[0].form("/reset-password").with("code", "AAAAA-BBBBB");
    let page = browser.send(&form.clone().with("password", "short")).await;
    assert!(page.answer.status == 400 && page.says("must have at least"));
    assert!(!page.says("AAAAA-BBBBB"), "what was typed as a code is not sent back: it may be good yet");
    let page = browser.send(&form.with("password", "a longer one")).await;
    assert!(page.answer.status == 400 && page.says("wrong or has expired") && !page.says("a longer one"));
    assert_eq!(browser.open(&page.link("Back to sign-in")).await.heading(), "Sign in");
    assert!(page.link("Back to sign-in").starts_with("/oauth/authorize?"), "and the flow goes on");

    // Where no mail is sent there is no such page, and no link to it.
    let server = TestServer::start(&[]).await;
    let page = server.browser().open("/account/sign-in").await;
    assert!(!page.says("Forgot"));
    assert_eq!(server.browser().open("/account/reset-password").await.answer.status, 404);
}

#[tokio::test]
async fn row_44_many_failures_are_stopped_but_not_the_owner_at_home() {
    // A window that no run of the tests crosses: a count starts again with the next window.
    let server = TestServer::start(&[("GENKAN_RATE_SIGN_IN_ACCOUNT", "3/3650d")]).await;
    server.account("ann").await;
    let home = server.browser();
    let page = home.open("/account/sign-in").await;
    assert_eq!(home.send(&sign_in(&page, "ann").with("remember", "yes")).await.heading(), "Your account");

    let thief = server.browser();
    let page = thief.open("/account/sign-in").await;
    let wrong = sign_in(&page, "ann").with("password", "guess");
    for _ in 0..2 {
        assert_eq!(thief.send(&wrong).await.answer.status, 400);
    }
    let answer = thief.send(&sign_in(&page, "ann@example.com")).await.answer;
    assert_eq!(answer.status, 429, "whatever name is used");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    assert!(answer.header("content-type").starts_with("text/html"));

    let page = home.open("/account/sign-in").await;
    assert_eq!(home.send(&sign_in(&page, "ann")).await.heading(), "Your account");
}

#[tokio::test]
async fn a_sign_in_that_the_limits_refuse_stores_no_browser() {
    let server = TestServer::start(&[("GENKAN_RATE_SIGN_IN_ADDRESS", "1/3650d")]).await;
    for status in [400, 429, 429] {
        let browser = server.browser();
        let page = browser.open("/account/sign-in").await;
        assert_eq!(browser.send(&sign_in(&page, "eve")).await.answer.status, status);
    }
    let rows = sqlx::query("SELECT COUNT(*) AS number FROM devices").fetch_one(server.app.db.reader());
    assert_eq!(rows.await.unwrap().get::<i64, _>("number"), 1);
}

#[tokio::test]
async fn row_44_of_one_address_too() {
    let server = TestServer::start(&[("GENKAN_RATE_SIGN_IN_ADDRESS", "2/3650d")]).await;
    let browser = server.browser();
    let page = browser.open("/account/sign-in").await;
    let status = async |name: &str| browser.send(&sign_in(&page, name)).await.answer.status;
    assert_eq!([status("one").await, status("two").await, status("three").await], [400, 400, 429]);
}
