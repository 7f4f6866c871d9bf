//! How pages look and speak, for eyes and for screen readers.

use serde_json::json;

use crate::http::testing::TestServer;

#[tokio::test]
async fn pages_speak_the_persons_language() {
    let server = TestServer::start(&[]).await;
    let browser = server.browser();
    let answer = browser.get("/account/sign-in", &[("accept-language", "de-AT,en;q=0.5")]).await;
    assert_eq!(answer.header("content-language"), "de");
    let html = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(html.contains("<html lang=\"de\">") && html.contains("<h1>Anmelden</h1>"));
    let page = browser.open(&server.pushed(json!({ "ui_locales": ["fr", "de-CH"] })).await).await;
    assert_eq!(page.heading(), "Anmelden", "what the app says comes first");
}

#[tokio::test]
async fn files_are_cached_without_limit_and_pages_name_them() {
    let server =
        TestServer::start(&[("GENKAN_BRAND_NAME", "Garden & House"), ("GENKAN_BRAND_COLOR", "#663399")])
            .await;
    let browser = server.browser();
    let page = browser.open("/account/sign-in").await;
    assert!(page.says("Garden &#38; House"));
    let css =
        page.html().split("rel=\"stylesheet\" href=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let answer = browser.get(&css, &[]).await.ok();
    assert_eq!(answer.header("cache-control"), "public, max-age=31536000, immutable");
    assert!(String::from_utf8_lossy(&answer.body).starts_with(":root{--brand:#663399;"));
}

#[tokio::test]
async fn every_field_has_its_label() {
    let server = TestServer::start(&[]).await;
    server.account("ann").await;
    let browser = server.browser();
    let mut pages = vec![browser.open("/account/sign-in").await, browser.open("/account/sign-up").await];
    let wide = "atproto identity:* repo:app.bsky.feed.post blob:*/* account:email";
    pages.push(server.consent("ann", json!({ "scope": wide })).await.1);
    for page in pages {
        let html = page.html();
        let mut ids: Vec<&str> =
            html.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "{}: an id is there twice", page.path);
        for input in html.split("<input ").skip(1).map(|rest| rest.split('>').next().unwrap()) {
            if input.contains("type=\"hidden\"") {
                continue;
            }
            let id = input.split("id=\"").nth(1).unwrap().split('"').next().unwrap();
            assert!(html.contains(&format!("<label for=\"{id}\">")), "{}: {id}", page.path);
        }
        for named in html.split("aria-describedby=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(
                named.split(' ').all(|id| html.contains(&format!("id=\"{id}\""))),
                "{}: {named}",
                page.path
            );
        }
        assert_eq!(html.matches("<h1>").count(), 1);
        assert!(html.contains("<main ") && html.contains("<header ") && html.contains("<footer "));
    }
}
