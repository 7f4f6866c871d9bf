//! People with an account at an external PDS, from the sign-in page to their own server and back.

use genkan_testing::{Browser, Client, FakeDirectory, FakeNames, FakePds, Page};
use serde_json::json;

use super::house::{House, ORIGIN, WIDE, location};

/// A house in front of a world with another server, where Ann has an account.
struct World {
    house: House,
    directory: FakeDirectory,
    names: FakeNames,
    pds: FakePds,
    ann: String,
}

impl World {
    async fn new() -> Self {
        let (directory, names) = (FakeDirectory::start().await, FakeNames::start().await);
        let pds = FakePds::start().await;
        let house = House::with(&[
            ("GENKAN_DIRECTORY_URL", &directory.url()),
            ("GENKAN_DNS_SERVERS", &names.address().to_string()),
            ("GENKAN_PRIVATE_ORIGINS", &pds.url()),
        ])
        .await;
        pds.set_clock(house.hand());
        let ann = pds.make_account(&directory, "ann.example.com");
        names.publish("ann.example.com", &[ann.as_str()]);
        Self { house, directory, names, pds, ann: ann.to_string() }
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
        let browser = self.house.browser();
        let page = browser.open(&self.house.pushed(json!({ "scope": WIDE })).await).await;
        let form =
            page.form("/sign-in").with("identifier", "@Ann.example.com").with("password", "for nobody");
        let page = browser.send(&form).await;
        assert!(!page.says("for nobody"));
        let path = self.at_server(&page).await;
        let page = browser.open(&path).await;
        (browser, page)
    }

    async fn sessions_end(&self) {
        for _ in 0..100 {
            if self.pds.sessions().iter().all(|session| session.ended == Some("revoked")) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        panic!("{:?}", self.pds.sessions());
    }
}

#[tokio::test]
async fn a_person_allows_an_app_what_their_server_granted() {
    let world = World::new().await;
    let (browser, page) = world.back().await;
    assert_eq!(page.heading(), "Allow this app to access your account?", "{}", page.html());
    assert!(page.says("@ann.example.com") && page.says("You signed in at 127.0.0.1:"));
    // What was granted there is not chosen from here.
    assert_eq!(page.html().matches("type=\"checkbox\"").count(), 3);
    assert_eq!(page.html().matches("checked disabled").count(), 3);
    let sent = browser.post(&page.form("/consent").with("answer", "allow"), &[]).await;
    let (address, query) = location(&sent).split_once('?').unwrap();
    assert_eq!(address, "https://app.example.com/back");
    assert!(query.contains("code=cod-"), "{query}");
    let links = world.house.app.links.of_account(&world.ann.parse().unwrap()).await.unwrap();
    assert_eq!((links.len(), links[0].state.as_str(), links[0].scope.as_str()), (1, "live", WIDE));
    // The request is decided, so the form has no effect a second time.
    let again = browser.send(&page.form("/consent").with("answer", "allow")).await;
    assert!(!again.answer.header("location").contains("code="), "{}", again.answer.header("location"));
    assert_eq!(world.house.app.links.of_account(&world.ann.parse().unwrap()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_person_who_says_no_leaves_nothing_at_their_server() {
    let world = World::new().await;
    let (browser, page) = world.back().await;
    let sent = browser.post(&page.form("/consent").with("answer", "deny"), &[]).await;
    assert!(location(&sent).contains("error=access_denied"));
    world.sessions_end().await;
    // Nor does one who leaves by the other door.
    let (browser, _) = world.back().await;
    let page = browser.open(&world.house.pushed(json!({})).await).await;
    let form = page.form("/sign-in").with("identifier", &world.ann).with("password", "");
    let path = world.at_server(&browser.send(&form).await).await;
    let consent = browser.open(&path).await;
    assert_eq!(consent.heading(), "Allow this app to access your account?");
    let choose = browser.open(&format!("{}&step=sign-in", page.path)).await;
    let sent = browser.post(&choose.form("/reject"), &[]).await;
    assert!(location(&sent).contains("error=access_denied"));
    let links = world.house.app.links.of_account(&world.ann.parse().unwrap()).await.unwrap();
    assert_eq!(links.len(), 1, "only the one that still waits");
}

#[tokio::test]
async fn c14_a_callback_in_another_browser_leads_nowhere() {
    let world = World::new().await;
    let browser = world.house.browser();
    let page = browser.open(&world.house.pushed(json!({})).await).await;
    let page = browser.send(&page.form("/sign-in").with("identifier", "ann.example.com")).await;
    let path = world.at_server(&page).await;
    let thief = world.house.browser();
    thief.open("/account/sign-in").await;
    let page = thief.open(&path).await;
    assert_eq!((page.answer.status, page.heading().as_str()), (400, "Sign-in failed"));
    let page = browser.open(&path).await;
    assert_eq!(page.answer.status, 400, "and is used up");
    assert!(world.pds.sessions().is_empty());
    assert_eq!(browser.open("/oauth/callback").await.answer.status, 400);
}

#[tokio::test]
async fn a_denial_leads_back_to_the_same_flow() {
    let world = World::new().await;
    world.pds.set(|quirks| quirks.denial = Some("access_denied"));
    let (browser, page) = world.back().await;
    assert_eq!(page.heading(), "Sign-in failed");
    let page = browser.open(&page.link("Try again")).await;
    assert_eq!(page.heading(), "Sign in");
}

#[tokio::test]
async fn names_that_lead_nowhere_are_said_to_and_our_own_never_leave() {
    let world = World::new().await;
    world.house.account("bob").await;
    let browser = world.house.browser();
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
    world.pds.trouble("/oauth/par", genkan_testing::Trouble::Status(503));
    let told = browser.send(&page.form("/sign-in").with("identifier", "ann.example.com")).await;
    assert!(told.says("responding"));
    let off = House::with(&[
        ("GENKAN_LINKS", "false"),
        ("GENKAN_DIRECTORY_URL", &world.directory.url()),
        ("GENKAN_DNS_SERVERS", &world.names.address().to_string()),
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
    let world = World::new().await;
    let browser = world.house.browser();
    let page = browser.open("/account/sign-in").await;
    let page = browser.send(&page.form("/sign-in").with("identifier", "ann.example.com")).await;
    let path = world.at_server(&page).await;
    let page = browser.open(&path).await;
    assert_eq!(
        (page.heading().as_str(), page.path.as_str()),
        ("Your account", &*format!("/account/u/{}", world.ann))
    );
    assert!(page.says("@ann.example.com") && page.says("No apps have access."));
    world.sessions_end().await;
    assert_eq!(world.pds.sessions()[0].scope, "atproto", "who it is, and no more");
    assert_eq!(browser.open("/account").await.path, format!("/account/u/{}", world.ann));
    let thief = world.house.browser();
    thief.open("/account/sign-in").await;
    assert_eq!(thief.open(&page.path).await.path, "/account/sign-in");
    let page = browser.send(&page.form("/account/sign-out")).await;
    assert_eq!(page.path, "/account/sign-in");
    assert_eq!(browser.open(&format!("/account/u/{}", world.ann)).await.path, "/account/sign-in");
}

#[tokio::test]
async fn a_browser_at_the_loopback_address_is_sent_to_our_name() {
    let world = World::new().await;
    let origin = world.house.client();
    let address = Client::new(origin.origin()).with("host", "127.0.0.1:2583");
    let sent = address.get("/oauth/callback?state=x&iss=y%26z").await;
    assert_eq!(location(&sent), format!("{ORIGIN}/oauth/callback?state=x&iss=y%26z"));
}
