//! The pages on an empty database, and what their tests do again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use genkan_protocol::crypto::K256PrivateKey;
use genkan_testing::{Answer, Browser, Client, Page, PageForm};
use serde_json::json;

use crate::accounts::{self, NewAccount};
use crate::app::App;
use crate::base::query::escaped;
use crate::base::{Clock, Secret, Timestamp, random};
use crate::config::{Config, Environment};
use crate::db::audit::Actor;
use crate::http::pages::routes;
use crate::http::{HttpState, with_layers};
use crate::telemetry::metrics::Metrics;
use crate::wire::TrustedPeers;

pub(super) const ORIGIN: &str = "http://localhost:2583";
pub(super) const CLIENT: &str = "https://app.example.com/client.json";
pub(super) const PASSWORD: &str = "a password of their own";
pub(super) const WIDE: &str = "atproto transition:generic transition:email";

/// The pages on an empty database, and a clock that stands still.
pub(super) struct House {
    pub(super) app: App,
    client: Client,
    hand: Arc<AtomicI64>,
    folder: std::path::PathBuf,
}

impl House {
    pub(super) async fn new() -> Self {
        Self::with(&[]).await
    }

    pub(super) async fn with(more: &[(&str, &str)]) -> Self {
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
        let state = HttpState {
            config: Arc::clone(&app.config),
            clock: app.clock.clone(),
            account_hosts: app.accounts.account_hosts().clone(),
            limits: app.limits.clone(),
            metrics: app.metrics.clone(),
            trusted_peers: TrustedPeers::new(&[]),
            oauth: Some(app.oauth.clone()),
        };
        let router = with_layers(routes(&app).unwrap(), &state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()));
        let service = router.into_make_service_with_connect_info::<std::net::SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { app, client: client.with("host", "localhost:2583"), hand, folder }
    }

    pub(super) fn browser(&self) -> Browser {
        Browser::new(self.client.clone(), ORIGIN)
    }

    /// The clock that stands still.
    pub(super) fn hand(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.hand)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn wait(&self, time: Duration) {
        self.hand.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(super) async fn account(&self, name: &str) -> String {
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
        accounts::open(&mut tx, &account.did).await.unwrap();
        tx.commit().await.unwrap();
        did
    }

    /// As if its owner had asked for it and the host had done it.
    pub(super) async fn deactivate(&self, did: &str) {
        let (accounts, mut tx) = (&self.app.accounts, self.app.db.begin().await.unwrap());
        let did = did.parse().unwrap();
        let done = accounts.set_deactivated(&mut tx, &did, true, None, Actor::Account(did.as_str())).await;
        assert!(done.unwrap());
        tx.commit().await.unwrap();
    }

    /// As if a client had pushed it: the address that it sends the browser to.
    pub(super) async fn pushed(&self, change: serde_json::Value) -> String {
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
    pub(super) async fn at_consent(&self, name: &str, change: serde_json::Value) -> (Browser, Page) {
        let browser = self.browser();
        let page = browser.open(&self.pushed(change).await).await;
        let page = browser.send(&sign_in(&page, name)).await;
        assert_eq!(page.heading(), "Allow this app to access your account?", "{}", page.html());
        (browser, page)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(super) fn sign_in(page: &Page, name: &str) -> PageForm {
    page.form("/sign-in").with("identifier", name).with("password", PASSWORD)
}

pub(super) fn location(answer: &Answer) -> &str {
    assert_eq!(answer.status, 303, "{}", answer.transcript());
    answer.header("location")
}
