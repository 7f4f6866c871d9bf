//! The pages as browsers meet them, on forms alone. Rows are those of the table of bad input in the OAuth contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use genkan_protocol::crypto::K256PrivateKey;
use genkan_testing::{Answer, Browser, Client};
use serde_json::json;

use super::*;
use crate::accounts::{self, NewAccount, app_password};
use crate::base::{Clock, Secret, Timestamp, random};
use crate::config::{Config, Environment};
use crate::db::audit::Actor;
use crate::http::{Doors, Trusted, with_layers};
use crate::telemetry::metrics::Metrics;

const ORIGIN: &str = "http://localhost:2583";
const CLIENT: &str = "https://app.example.com/client.json";
const PASSWORD: &str = "a password of their own";
const WIDE: &str = "atproto transition:generic transition:email";

/// The pages on an empty database, and a clock that stands still.
struct House {
    app: App,
    client: Client,
    hand: Arc<AtomicI64>,
    folder: std::path::PathBuf,
}

impl House {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(more: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("genkan-pages-{}", random::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let data = folder.join("data").display().to_string();
        let settings = [
            ("GENKAN_PUBLIC_URL", ORIGIN),
            ("GENKAN_DEVELOPMENT", "true"),
            ("GENKAN_LISTEN", "127.0.0.1:0"),
            ("GENKAN_OPS_LISTEN", "127.0.0.1:0"),
            ("GENKAN_DIRECTORY_FRONT_LISTEN", "127.0.0.1:0"),
            ("GENKAN_DIRECTORY_FRONT_URL", "http://localhost:2585"),
            ("GENKAN_DATA_DIR", data.as_str()),
        ];
        let settings = settings.into_iter().chain(more.iter().copied());
        let config = Config::load(&Environment::from_pairs(settings), None).unwrap();
        let hand = Arc::new(AtomicI64::new(1_000_000_000_000));
        let clock = Clock::Manual(Arc::clone(&hand));
        let app = App::build_with(config, clock, Metrics::default()).await.unwrap();
        let doors = Doors {
            config: Arc::clone(&app.config),
            clock: app.clock.clone(),
            homes: app.accounts.homes().clone(),
            limits: app.limits.clone(),
            metrics: app.metrics.clone(),
            trusted: Trusted::new(&[]),
            oauth: Some(app.oauth.clone()),
        };
        let router = with_layers(routes(&app).unwrap(), &doors);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()));
        let service = router.into_make_service_with_connect_info::<std::net::SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { app, client: client.with("host", "localhost:2583"), hand, folder }
    }

    fn browser(&self) -> Browser {
        Browser::new(self.client.clone(), ORIGIN)
    }

    fn wait(&self, time: Duration) {
        self.hand.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    async fn account(&self, name: &str) -> String {
        let did = format!("did:plc:{name:a>24}");
        let account = NewAccount {
            did: did.parse().unwrap(),
            handle: format!("{name}.test").parse().unwrap(),
            email: format!("{name}@example.com").parse().unwrap(),
            password_hash: self.app.passwords.hash(&Secret::new(PASSWORD.to_owned())).await.unwrap(),
            host: "oak".to_owned().into(),
            host_key: K256PrivateKey::from_hex(&"11".repeat(32)).unwrap().public(),
            created_at: Timestamp::from_millis(1000),
        };
        let mut tx = self.app.db.begin().await.unwrap();
        accounts::insert_creating(&mut tx, &account).await.unwrap();
        accounts::open(&mut tx, &did).await.unwrap();
        tx.commit().await.unwrap();
        did
    }

    /// As if a client had pushed it: the address that it sends the browser to.
    async fn pushed(&self, change: serde_json::Value) -> String {
        let mut pushed = json!({
            "redirect_uri": "https://app.example.com/back?kept=yes", "scope": "atproto", "state": "st&te",
            "code_challenge": "x", "response_mode": "query", "prompt": null, "login_hint": null, "ui_locales": [],
            "dpop_key": "k", "client_auth": { "method": "none" }, "at": self.hand.load(Ordering::SeqCst),
        });
        for (name, value) in change.as_object().unwrap() {
            pushed[name] = value.clone();
        }
        let id = format!("req-{}", data_encoding::HEXLOWER.encode(&random::bytes::<16>()));
        let mut tx = self.app.db.begin().await.unwrap();
        sqlx::query("INSERT INTO oauth_requests (id, client_id, pushed, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(&id)
            .bind(CLIENT)
            .bind(pushed.to_string())
            .bind(self.app.clock.now().plus(Duration::from_mins(5)).as_millis())
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let uri = format!("urn:ietf:params:oauth:request_uri:{id}");
        format!("/oauth/authorize?client_id={}&request_uri={}", escaped(CLIENT), escaped(&uri))
    }

    /// A browser at the consent page, its owner signed in for this request.
    async fn at_consent(&self, name: &str, change: serde_json::Value) -> (Browser, genkan_testing::Page) {
        let browser = self.browser();
        let page = browser.open(&self.pushed(change).await).await;
        let page = browser.send(&sign_in(&page, name)).await;
        assert_eq!(page.heading(), "May this app use your account?", "{}", page.html());
        (browser, page)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn sign_in(page: &genkan_testing::Page, name: &str) -> genkan_testing::PageForm {
    page.form("/sign-in").with("identifier", name).with("password", PASSWORD)
}

fn location(answer: &Answer) -> &str {
    assert_eq!(answer.status, 303, "{}", answer.transcript());
    answer.header("location")
}

#[tokio::test]
async fn from_sign_in_to_the_code_by_forms_alone() {
    let house = House::new().await;
    house.account("ann").await;
    let (browser, page) = house.at_consent("ann", json!({ "scope": WIDE })).await;
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
async fn the_answer_travels_as_the_app_asked() {
    let house = House::new().await;
    house.account("ann").await;
    let (browser, page) = house.at_consent("ann", json!({ "response_mode": "fragment" })).await;
    let page = browser.send(&page.form("/consent").with("answer", "allow")).await;
    assert!(location(&page.answer).starts_with("https://app.example.com/back?kept=yes#iss="));

    let (browser, page) = house.at_consent("ann", json!({ "response_mode": "form_post" })).await;
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
    let house = House::new().await;
    house.account("ann").await;
    let (browser, page) = house.at_consent("ann", json!({})).await;
    let page = browser.send(&page.form("/consent").with("answer", "deny")).await;
    assert!(location(&page.answer).contains("&error=access_denied"));
    // And from the first page, without an account.
    let browser = house.browser();
    let page = browser.open(&house.pushed(json!({})).await).await;
    let page = browser.send(&page.form("/reject")).await;
    assert!(location(&page.answer).contains("&error=access_denied"));
}

#[tokio::test]
async fn a_remembered_account_needs_no_password() {
    let house = House::new().await;
    let did = house.account("ann").await;
    house.account("bob").await;
    let browser = house.browser();
    let page = browser.open(&house.pushed(json!({})).await).await;
    browser.send(&sign_in(&page, "ann").with("remember", "yes")).await;

    let page = browser.open(&house.pushed(json!({})).await).await;
    assert_eq!(page.heading(), "Choose an account");
    assert!(!page.says("asks for the password again"));
    let page = browser.send(&page.form("/choose").with("did", &did)).await;
    assert_eq!(page.heading(), "May this app use your account?");

    house.wait(Duration::from_hours(7 * 24 + 1));
    let page = browser.open(&house.pushed(json!({})).await).await;
    assert!(page.says("asks for the password again"));
    let page = browser.send(&page.form("/choose").with("did", &did)).await;
    assert_eq!(
        (page.heading().as_str(), page.form("/sign-in").text("identifier").as_str()),
        ("Sign in", "ann.test")
    );

    // One who was not remembered is not there at the next request.
    let (browser, _) = house.at_consent("bob", json!({})).await;
    assert_eq!(browser.open(&house.pushed(json!({})).await).await.heading(), "Sign in");
}

#[tokio::test]
async fn row_30_31_35_what_is_no_request_of_ours_leads_nowhere() {
    let house = House::new().await;
    let good = house.pushed(json!({})).await;
    for path in [
        "/oauth/authorize".to_owned(),
        "/oauth/authorize?client_id=x&request_uri=y".to_owned(),
        format!("{good}0"),
        format!("{good}&request_uri=other"),
        format!("{good}&request=eyJ"),
        "/oauth/authorize?client_id=https%3A%2F%2Fapp.example.com%2Fclient.json&redirect_uri=https%3A%2F%2Fevil.example%2F&response_type=code".to_owned(),
        good.replace("app.example.com", "evil.example.com"),
    ] {
        let page = house.browser().open(&path).await;
        assert_eq!(page.answer.status, 400, "{path}");
        assert!(page.says("invalid_request") && !page.says("evil"), "{path}");
    }
    // Row 31: the request is gone after another client's id was tried with it.
    assert_eq!(house.browser().open(&good).await.answer.status, 400);
    let expired = house.pushed(json!({})).await;
    house.wait(Duration::from_mins(6));
    assert_eq!(house.browser().open(&expired).await.answer.status, 400);
}

#[tokio::test]
async fn row_32_33_a_request_is_one_browsers_and_decided_once() {
    let house = House::new().await;
    house.account("ann").await;
    let path = house.pushed(json!({})).await;
    let mine = house.browser();
    assert_eq!(mine.open(&path).await.answer.status, 200);
    assert_eq!(mine.open(&path).await.answer.status, 200, "a reload");
    let page = house.browser().open(&path).await;
    assert!(location(&page.answer).contains("error=access_denied"));
    assert_eq!(mine.open(&path).await.answer.status, 400, "the request is gone");

    let (browser, page) = house.at_consent("ann", json!({})).await;
    let form = page.form("/consent").with("answer", "allow");
    assert!(location(&browser.send(&form).await.answer).contains("code="));
    let again = browser.send(&form).await;
    assert!(location(&again.answer).contains("error=access_denied"), "row 33");
}

#[tokio::test]
async fn row_34_every_page_is_protected() {
    let house = House::new().await;
    let browser = house.browser();
    let flow = house.pushed(json!({})).await;
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
async fn row_36_what_strangers_write_is_text() {
    let house = House::new().await;
    let evil = "<script>alert(1)</script>\"'&";
    let hinted = house.pushed(json!({ "login_hint": evil })).await;
    let page = house.browser().open(&hinted).await;
    assert!(
        !page.says("<script>alert") && page.says("&#60;script&#62;alert(1)&#60;/script&#62;&#34;&#39;&#38;")
    );
    assert_eq!(page.form("/sign-in").text("identifier"), evil);

    let browser = house.browser();
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
    let house = House::new().await;
    house.account("ann").await;
    let browser = house.browser();
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
async fn row_38_39_40_consent_is_for_whom_and_what_was_asked() {
    let house = House::new().await;
    house.account("ann").await;
    let bob = house.account("bob").await;
    let (browser, page) = house.at_consent("ann", json!({})).await;
    let form = page.form("/consent").with("answer", "allow");
    let answer = browser.send(&form.clone().with("did", &bob)).await.answer;
    assert_eq!(answer.status, 401, "row 38");
    let after = browser.send(&form).await;
    assert!(location(&after.answer).contains("access_denied"), "row 38: the request is void");

    let scope = async |browser: &Browser, form: genkan_testing::PageForm| {
        assert!(location(&browser.send(&form).await.answer).contains("code=cod-"));
        let row = sqlx::query_scalar("SELECT scope FROM oauth_codes ORDER BY expires_at DESC");
        house.wait(Duration::from_secs(1));
        row.fetch_one(house.app.db.reader()).await.map(|scope: String| scope).unwrap()
    };
    let (browser, page) = house.at_consent("ann", json!({ "scope": WIDE })).await;
    let form = page.form("/consent").with("answer", "allow");
    let wider = form.and("scope", "identity:*").without("scope", "transition:generic");
    assert_eq!(scope(&browser, wider).await, "atproto transition:email", "row 39");

    let (browser, page) = house.at_consent("ann", json!({ "scope": WIDE })).await;
    let without = page.form("/consent").with("answer", "allow").without("scope", "atproto");
    assert!(location(&browser.send(&without).await.answer).contains("error=access_denied"), "row 40");
}

#[tokio::test]
async fn row_41_43_an_unknown_name_a_wrong_password_and_an_app_password_are_told_alike() {
    let house = House::new().await;
    let ann = house.account("ann").await;
    let mut tx = house.app.db.begin().await.unwrap();
    let now = Timestamp::from_millis(1000);
    let for_app = app_password::create(&mut tx, &ann, "app", true, now).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    let browser = house.browser();
    let page = browser.open("/account/sign-in").await;
    let mut told = Vec::new();
    for (name, password) in [
        ("ann.test", "guess-1"),
        ("eve.test", "guess-2"),
        ("eve.test", PASSWORD),
        ("ann.test", for_app.expose()),
    ] {
        let form = sign_in(&page, name).with("password", password);
        let began = std::time::Instant::now();
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
    let folder = std::env::temp_dir().join(format!("genkan-mail-{}", random::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mail = folder.display().to_string();
    let house =
        House::with(&[("GENKAN_MAIL_FOLDER", &mail), ("GENKAN_MAIL_FROM", "hello@example.com")]).await;
    house.account("ann").await;
    let browser = house.browser();
    let flow = house.pushed(json!({})).await;
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
    assert!(page.answer.status == 400 && page.says("needs at least"));
    let page = browser.send(&form.with("password", "a longer one")).await;
    assert!(page.answer.status == 400 && page.says("wrong or too old") && !page.says("a longer one"));
    assert_eq!(browser.open(&page.link("Back to sign-in")).await.heading(), "Sign in");
    assert!(page.link("Back to sign-in").starts_with("/oauth/authorize?"), "and the flow goes on");

    // Where no mail is sent there is no such page, and no link to it.
    let house = House::new().await;
    let page = house.browser().open("/account/sign-in").await;
    assert!(!page.says("Forgot"));
    assert_eq!(house.browser().open("/account/reset-password").await.answer.status, 404);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn row_44_many_failures_are_stopped_but_not_the_owner_at_home() {
    let house = House::with(&[("GENKAN_RATE_SIGN_IN_ACCOUNT", "3/15m")]).await;
    house.account("ann").await;
    let home = house.browser();
    let page = home.open("/account/sign-in").await;
    assert_eq!(home.send(&sign_in(&page, "ann").with("remember", "yes")).await.heading(), "Your account");

    let thief = house.browser();
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
async fn row_44_of_one_address_too() {
    let house = House::with(&[("GENKAN_RATE_SIGN_IN_ADDRESS", "2/15m")]).await;
    let browser = house.browser();
    let page = browser.open("/account/sign-in").await;
    let status = async |name: &str| browser.send(&sign_in(&page, name)).await.answer.status;
    assert_eq!([status("one").await, status("two").await, status("three").await], [400, 400, 429]);
}

#[tokio::test]
async fn row_45_46_cookies_change_at_sign_in_and_old_ones_end_the_browser() {
    let house = House::new().await;
    house.account("ann").await;
    let browser = house.browser();
    let page = browser.open(&house.pushed(json!({})).await).await;
    let planted = browser.copy();
    let before = browser.cookie("ses-id").unwrap();
    browser.send(&sign_in(&page, "ann").with("remember", "yes")).await;
    let after = browser.cookie("ses-id").unwrap();
    assert_ne!(before, after, "row 45");
    let page = planted.open("/account").await;
    assert_eq!(page.heading(), "Sign in", "row 45: who planted the cookie is not signed in");

    assert_eq!(browser.open("/account").await.heading(), "Your account");
    house.wait(Duration::from_secs(6));
    let stale = browser.copy();
    stale.set_cookie("ses-id", &before);
    assert_eq!(stale.open("/account").await.heading(), "Sign in", "row 46");
    assert_eq!(browser.open("/account").await.heading(), "Sign in", "row 46: the device is gone");
}

#[tokio::test]
async fn cookies_rotate_without_a_sign_out() {
    let house = House::new().await;
    house.account("ann").await;
    let browser = house.browser();
    let page = browser.open("/account/sign-in").await;
    browser.send(&sign_in(&page, "ann")).await;
    for _ in 0..3 {
        let before = browser.cookie("ses-id").unwrap();
        house.wait(Duration::from_mins(6));
        assert_eq!(browser.open("/account").await.heading(), "Your account");
        assert_ne!(browser.cookie("ses-id").unwrap(), before);
        // Also when the answer is about trouble.
        house.wait(Duration::from_mins(6));
        assert_eq!(browser.open("/oauth/authorize?client_id=a&request_uri=b").await.answer.status, 400);
    }
    assert_eq!(browser.open("/account").await.heading(), "Your account");
}

#[tokio::test]
async fn row_65_67_68_nothing_leads_out_but_the_request_and_nothing_secret_is_shown() {
    let house = House::new().await;
    house.account("ann").await;
    let browser = house.browser();
    let path = house.pushed(json!({})).await;
    let page = browser.open(&format!("{path}&redirect_uri=https%3A%2F%2Fevil.example%2F")).await;
    let form = sign_in(&page, "ann").with("redirect_uri", "https://evil.example/");
    let answer = browser.post(&form, &[]).await;
    assert_eq!(answer.status, 303);
    assert!(answer.header("location").starts_with("/oauth/authorize?"));
    let (browser, page) = house.at_consent("ann", json!({})).await;
    for cookie in ["dev-id", "ses-id"] {
        assert!(!page.says(&browser.cookie(cookie).unwrap()), "{cookie} is in the page");
    }
    assert!(!page.says(PASSWORD));
}

#[tokio::test]
async fn a_browser_without_cookies_is_told_so_and_its_request_waits() {
    let house = House::new().await;
    let path = house.pushed(json!({})).await;
    let page = house.browser().without_cookies().open(&path).await;
    assert_eq!((page.answer.status, page.redirects), (400, 1));
    assert_eq!(page.heading(), "Your browser does not keep cookies");
    assert_eq!(house.browser().open(&path).await.heading(), "Sign in", "it was not bound to that one");
}

#[tokio::test]
async fn only_the_account_that_the_app_named_will_do() {
    let house = House::new().await;
    let ann = house.account("ann").await;
    house.account("bob").await;
    let browser = house.browser();
    let page = browser.open(&house.pushed(json!({ "login_hint": ann })).await).await;
    let form = page.form("/sign-in");
    assert_eq!(form.text("identifier"), "ann.test", "shown as the handle");
    // The name in the form does not count.
    let page = browser.send(&sign_in(&page, "bob")).await;
    assert!(page.says("@ann.test"), "{}", page.html());
}

#[tokio::test]
async fn a_deactivated_account_is_asked_first() {
    let house = House::new().await;
    let ann = house.account("ann").await;
    house.app.accounts.set_deactivated(&ann, true, None, Actor::Operator).await.unwrap();
    let browser = house.browser();
    let page = browser.open(&house.pushed(json!({})).await).await;
    let page = browser.send(&sign_in(&page, "ann")).await;
    assert_eq!(page.heading(), "Your account is deactivated");
    // Its host is not there to be told.
    let page = browser.send(&page.form("/reactivate")).await;
    assert_eq!((page.answer.status, page.says("could not be activated")), (200, true));
}

#[tokio::test]
async fn pages_speak_the_persons_language() {
    let house = House::new().await;
    let browser = house.browser();
    let answer = browser.get("/account/sign-in", &[("accept-language", "de-AT,en;q=0.5")]).await;
    assert_eq!(answer.header("content-language"), "de");
    let html = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(html.contains("<html lang=\"de\">") && html.contains("<h1>Anmelden</h1>"));
    let page = browser.open(&house.pushed(json!({ "ui_locales": ["fr", "de-CH"] })).await).await;
    assert_eq!(page.heading(), "Anmelden", "what the app says comes first");
}

#[tokio::test]
async fn an_account_sees_its_browsers_and_signs_them_out() {
    let house = House::new().await;
    let ann = house.account("ann").await;
    house.account("bob").await;
    let (desk, phone, other) = (house.browser(), house.browser(), house.browser());
    for (browser, name) in [(&desk, "ann"), (&phone, "ann"), (&other, "bob")] {
        let page = browser.open("/account/sign-in").await;
        assert_eq!(
            browser.send(&sign_in(&page, name).with("remember", "yes")).await.heading(),
            "Your account"
        );
    }
    let page = desk.open("/account").await;
    assert!(page.says("Firefox, Linux") && page.says("this one") && page.says("127.0.0.1"));
    let forms: Vec<_> = page.forms().into_iter().filter(|form| form.action.ends_with("/sign-out")).collect();
    assert_eq!(forms.len(), 2);

    // Bob cannot sign Ann's browsers out, nor anybody a browser that is not the account's.
    let mut stolen = forms[0].clone();
    let csrf = other.open("/account").await.form("/sign-out").text("csrf");
    stolen = stolen.with("csrf", &csrf);
    assert_eq!(other.send(&stolen).await.answer.status, 401);
    assert_eq!(desk.send(&forms[0].clone().with("device", "0")).await.answer.status, 404);

    let mine = app_id(&house, &ann, &desk).await;
    for form in forms.iter().filter(|form| form.text("device") != mine) {
        assert!(desk.send(form).await.says("Signed out."));
    }
    assert_eq!(phone.open("/account").await.heading(), "Sign in");
    let page = desk.open("/account").await;
    assert_eq!(desk.send(&page.form("/sign-out")).await.heading(), "Sign in");
}

async fn app_id(house: &House, did: &str, browser: &Browser) -> String {
    use sha2::Digest as _;
    let hash = data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(browser.cookie("dev-id").unwrap()));
    assert!(house.app.sign_ins.devices_of(did).await.unwrap().iter().any(|device| device.id == hash));
    hash
}

#[tokio::test]
async fn files_are_kept_for_ever_and_pages_name_them() {
    let house =
        House::with(&[("GENKAN_BRAND_NAME", "Garden & House"), ("GENKAN_BRAND_COLOR", "#663399")]).await;
    let browser = house.browser();
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
    let house = House::new().await;
    house.account("ann").await;
    let browser = house.browser();
    let mut pages = vec![browser.open("/account/sign-in").await, browser.open("/account/sign-up").await];
    let wide = "atproto identity:* repo:app.bsky.feed.post blob:*/* account:email";
    pages.push(house.at_consent("ann", json!({ "scope": wide })).await.1);
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
