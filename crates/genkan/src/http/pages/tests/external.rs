//! People with an account at an external PDS, from the sign-in page to their own server and back.

use genkan_testing::network::eventually;
use genkan_testing::{Browser, Client, FakeDirectory, FakeNames, FakePds, Page};
use serde_json::json;

use super::steps::{WIDE, location};
use crate::http::testing::{ORIGIN, TestServer};

/// A server, and an external PDS where Ann has an account.
struct ExternalHarness {
    server: TestServer,
    directory: FakeDirectory,
    names: FakeNames,
    pds: FakePds,
    ann: String,
}

impl ExternalHarness {
    async fn new() -> Self {
        let (directory, names) = (FakeDirectory::start().await, FakeNames::start().await);
        let pds = FakePds::start().await;
        let server = TestServer::start(&[
            ("GENKAN_DIRECTORY_URL", &directory.url()),
            ("GENKAN_DNS_SERVERS", &names.address().to_string()),
            ("GENKAN_PRIVATE_ORIGINS", &pds.url()),
        ])
        .await;
        pds.set_clock(server.clock.shared());
        let ann = pds.make_account(&directory, "ann.example.com");
        names.publish("ann.example.com", &[ann.as_str()]);
        Self { server, directory, names, pds, ann: ann.to_string() }
    }

    /// From the page with the way to the other server: where that sends the browser back to.
    async fn at_server(&self, page: &Page) -> String {
        assert_eq!(page.heading(), "Sign in on your own server", "{}", page.html());
        let url = page.link("Continue");
        assert_eq!(page.answer.header("refresh"), format!("0; url={url}"));
        let path = url.strip_prefix(&self.pds.url()).unwrap();
        let back = Client::new(&self.pds.url()).get(path).await;
        let path = back.header("location").strip_prefix("http://127.0.0.1:2583").unwrap();
        path.to_owned()
    }

    /// A browser with a person who signed in at their server, and the page that they came back to.
    async fn back(&self) -> (Browser, Page) {
        let browser = self.server.browser();
        let page = browser.open(&self.server.pushed(json!({ "scope": WIDE })).await).await;
        let form =
            page.form("/sign-in").with("identifier", "@Ann.example.com").with("password", "for nobody");
        let page = browser.send(&form).await;
        assert!(!page.says("for nobody"));
        let path = self.at_server(&page).await;
        let page = browser.open(&path).await;
        (browser, page)
    }

    async fn sessions_end(&self) {
        eventually("the sessions at the other server end", async || {
            self.pds.sessions().iter().all(|session| session.ended == Some("revoked"))
        })
        .await;
    }
}

#[tokio::test]
async fn a_person_allows_an_app_what_their_server_granted() {
    let harness = ExternalHarness::new().await;
    let (browser, page) = harness.back().await;
    assert_eq!(page.heading(), "Allow this app to access your account?", "{}", page.html());
    assert!(page.says("@ann.example.com") && page.says("You signed in at 127.0.0.1:"));
    // What was granted there is not chosen from here.
    assert_eq!(page.html().matches("type=\"checkbox\"").count(), 3);
    assert_eq!(page.html().matches("checked disabled").count(), 3);
    let sent = browser.post(&page.form("/consent").with("answer", "allow"), &[]).await;
    let (address, query) = location(&sent).split_once('?').unwrap();
    assert_eq!(address, "https://app.example.com/back");
    assert!(query.contains("code=cod-"), "{query}");
    let links = harness.server.app.links.of_account(&harness.ann.parse().unwrap()).await.unwrap();
    assert_eq!((links.len(), links[0].state.as_str(), links[0].scope.as_str()), (1, "live", WIDE));
    // The request is decided, so the form has no effect a second time.
    let again = browser.send(&page.form("/consent").with("answer", "allow")).await;
    assert!(!again.answer.header("location").contains("code="), "{}", again.answer.header("location"));
    assert_eq!(harness.server.app.links.of_account(&harness.ann.parse().unwrap()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_person_who_says_no_leaves_nothing_at_their_server() {
    let harness = ExternalHarness::new().await;
    let (browser, page) = harness.back().await;
    let sent = browser.post(&page.form("/consent").with("answer", "deny"), &[]).await;
    assert!(location(&sent).contains("error=access_denied"));
    harness.sessions_end().await;
    // Nor does one who leaves by the other door.
    let (browser, _) = harness.back().await;
    let page = browser.open(&harness.server.pushed(json!({})).await).await;
    let form = page.form("/sign-in").with("identifier", &harness.ann).with("password", "");
    let path = harness.at_server(&browser.send(&form).await).await;
    let consent = browser.open(&path).await;
    assert_eq!(consent.heading(), "Allow this app to access your account?");
    let choose = browser.open(&format!("{}&step=sign-in", page.path)).await;
    let sent = browser.post(&choose.form("/reject"), &[]).await;
    assert!(location(&sent).contains("error=access_denied"));
    let links = harness.server.app.links.of_account(&harness.ann.parse().unwrap()).await.unwrap();
    assert_eq!(links.len(), 1, "only the one that still waits");
}

#[tokio::test]
async fn c14_a_callback_in_another_browser_is_refused() {
    let harness = ExternalHarness::new().await;
    let browser = harness.server.browser();
    let page = browser.open(&harness.server.pushed(json!({})).await).await;
    let page = browser.send(&page.form("/sign-in").with("identifier", "ann.example.com")).await;
    let path = harness.at_server(&page).await;
    let thief = harness.server.browser();
    thief.open("/account/sign-in").await;
    let page = thief.open(&path).await;
    assert_eq!((page.answer.status, page.heading().as_str()), (400, "Sign-in failed"));
    let page = browser.open(&path).await;
    assert_eq!(page.answer.status, 400, "and is used up");
    assert!(harness.pds.sessions().is_empty());
    assert_eq!(browser.open("/oauth/callback").await.answer.status, 400);
}

#[tokio::test]
async fn a_denial_leads_back_to_the_same_flow() {
    let harness = ExternalHarness::new().await;
    harness.pds.set(|quirks| quirks.denial = Some("access_denied"));
    let (browser, page) = harness.back().await;
    assert_eq!(page.heading(), "Sign-in failed");
    let page = browser.open(&page.link("Try again")).await;
    assert_eq!(page.heading(), "Sign in");
}

#[tokio::test]
async fn names_that_lead_nowhere_are_said_to_and_our_own_never_leave() {
    let harness = ExternalHarness::new().await;
    harness.server.account("bob").await;
    let browser = harness.server.browser();
    let page = browser.open("/account/sign-in").await;
    for (name, text) in [
        ("nobody.example.com", "find that account."),
        ("did:plc:cccccccccccccccccccccccc", "find that account."),
        ("https://pds.internal", "sign in here with that account"),
        ("bob.test", "Enter your password."),
        ("eve.test", "Enter your password."),
        ("bob", "Enter your password."),
        ("bob@example.com", "Enter your password."),
    ] {
        let told = browser.send(&page.form("/sign-in").with("identifier", name).with("password", "")).await;
        assert_eq!(told.answer.status, 400, "{name}");
        assert!(told.says(text), "{name}: {}", told.html());
    }
    harness.pds.trouble("/oauth/par", genkan_testing::Trouble::Status(503));
    let told = browser.send(&page.form("/sign-in").with("identifier", "ann.example.com")).await;
    assert!(told.says("responding"));
    let off = TestServer::start(&[
        ("GENKAN_LINKS", "false"),
        ("GENKAN_DIRECTORY_URL", &harness.directory.url()),
        ("GENKAN_DNS_SERVERS", &harness.names.address().to_string()),
    ])
    .await;
    let browser = off.browser();
    let page = browser.open("/account/sign-in").await;
    assert!(!page.says("account is on another server"));
    let told = browser
        .send(&page.form("/sign-in").with("identifier", "ann.example.com").with("password", "x"))
        .await;
    assert!(told.says("Wrong handle, email address or password"));
}

#[tokio::test]
async fn a_linked_person_looks_after_their_apps() {
    let harness = ExternalHarness::new().await;
    let browser = harness.server.browser();
    let page = browser.open("/account/sign-in").await;
    let page = browser.send(&page.form("/sign-in").with("identifier", "ann.example.com")).await;
    let path = harness.at_server(&page).await;
    let page = browser.open(&path).await;
    assert_eq!(
        (page.heading().as_str(), page.path.as_str()),
        ("Your account", &*format!("/account/u/{}", harness.ann))
    );
    assert!(page.says("@ann.example.com") && page.says("No apps have access."));
    harness.sessions_end().await;
    assert_eq!(harness.pds.sessions()[0].scope, "atproto", "who it is, and no more");
    assert_eq!(browser.open("/account").await.path, format!("/account/u/{}", harness.ann));
    let thief = harness.server.browser();
    thief.open("/account/sign-in").await;
    assert_eq!(thief.open(&page.path).await.path, "/account/sign-in");
    let page = browser.send(&page.form("/account/sign-out")).await;
    assert_eq!(page.path, "/account/sign-in");
    assert_eq!(browser.open(&format!("/account/u/{}", harness.ann)).await.path, "/account/sign-in");
}

/// A cookie from before the return may be known to another, who planted it.
#[tokio::test]
async fn only_the_browser_that_returned_acts_for_a_linked_person() {
    for has_row in [true, false] {
        let harness = ExternalHarness::new().await;
        if !has_row {
            harness.server.app.sign_ins.spend_all();
        }
        let browser = harness.server.browser();
        let page = browser.open("/account/sign-in").await;
        let page = browser.send(&page.form("/sign-in").with("identifier", "ann.example.com")).await;
        let path = harness.at_server(&page).await;
        let planted = browser.copy();
        assert_eq!(browser.open(&path).await.heading(), "Your account");
        assert_eq!(planted.open("/account").await.path, "/account/sign-in");
        assert_eq!(planted.open(&format!("/account/u/{}", harness.ann)).await.path, "/account/sign-in");
        assert_eq!(browser.open("/account").await.heading(), "Your account");

        let asked = harness.server.pushed(json!({})).await;
        let page = browser.open(&asked).await;
        let page = browser.send(&page.form("/sign-in").with("identifier", "ann.example.com")).await;
        let path = harness.at_server(&page).await;
        let planted = browser.copy();
        let consent = browser.open(&path).await;
        assert_eq!(consent.heading(), "Allow this app to access your account?");
        assert_eq!(planted.open(&asked).await.heading(), "Sign in");
        let form = consent.form("/consent").with("answer", "allow");
        assert_eq!(planted.send(&form).await.answer.status, 401);
        let sent = browser.post(&consent.form("/consent").with("answer", "allow"), &[]).await;
        assert!(location(&sent).contains("code=cod-"));
    }
}

#[tokio::test]
async fn a_browser_at_the_loopback_address_is_sent_to_our_name() {
    let harness = ExternalHarness::new().await;
    let address = harness.server.client("127.0.0.1:2583");
    let sent = address.get("/oauth/callback?state=x&iss=y%26z").await;
    assert_eq!(location(&sent), format!("{ORIGIN}/oauth/callback?state=x&iss=y%26z"));
}
