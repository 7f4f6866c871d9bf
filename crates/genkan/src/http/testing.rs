//! Genkan's own answers for tests: every route with its layers, on a database, with a clock that
//! stands still.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use genkan_testing::{Answer, Browser, Client, Page};
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::accounts::testing::{add, new_account};
use crate::accounts::{Account, NewAccount, Requester};
use crate::app::App;
use crate::base::{ManualClock, Secret, Timestamp, random};
use crate::config::Config;
use crate::db::Db;
use crate::db::testing::Fresh;
use crate::serving;
use crate::telemetry::metrics::Metrics;
use crate::wire::error::ErrorName;
use crate::wire::{ClientAddr, TrustedPeers};

/// The public origin of a test server, and its issuer.
pub(super) const ORIGIN: &str = "http://localhost:2583";

/// The password of every account of [`TestServer::account`].
pub(super) const PASSWORD: &str = "a password of their own";

/// A Genkan that answers in this process, without an edge.
#[derive(Debug)]
pub(super) struct TestServer {
    pub(super) app: App,
    pub(super) clock: ManualClock,
    router: Router,
    address: SocketAddr,
    /// A database of its own, if it has one.
    _fresh: Option<Fresh>,
}

impl TestServer {
    /// Starts on a SQLite database of its own, with these settings besides those of
    /// [`Config::for_tests`].
    pub(super) async fn start(settings: &[(&str, &str)]) -> Self {
        let fresh = Fresh::sqlite().await;
        let clock = ManualClock::at(Timestamp::from_seconds(1_000_000_000));
        let config = Config::for_tests_with(Path::new("/nowhere"), settings);
        let server = Self::on(fresh.db.clone(), &clock, config).await;
        Self { _fresh: Some(fresh), ..server }
    }

    /// Starts on a database that others may use as well. The sealing key is always the same.
    pub(super) async fn on(db: Db, clock: &ManualClock, mut config: Config) -> Self {
        // A key in the settings, so that no test writes a key file.
        config.keys.sealing_key = Some(Secret::new([9; 32]));
        let app = App::build_on(db, config, clock.clock(), Metrics::default()).await.unwrap();
        tokio::spawn(app.links.follow_ends());
        let router = serving::router(&app, TrustedPeers::new(&[])).unwrap();
        // Browsers of tests need a port. Other requests go to the router directly.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = router.clone().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { app, clock: clock.clone(), router, address, _fresh: None }
    }

    /// A client that names this host in its requests.
    pub(super) fn client(&self, host: &str) -> Client {
        Client::new(&format!("http://{}", self.address)).with("host", host)
    }

    pub(super) fn browser(&self) -> Browser {
        Browser::new(self.client(ORIGIN.trim_start_matches("http://")), ORIGIN)
    }

    /// Answers a request of a client at 192.0.2.1, without a connection.
    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        self.send_from([192, 0, 2, 1].into(), request).await
    }

    /// Answers a request of a client at this address, without a connection.
    pub(super) async fn send_from(&self, client: IpAddr, mut request: Request<Body>) -> Answer {
        // The edge adds the client's address to every request. Here the test stands for the edge.
        request.extensions_mut().insert(ClientAddr(client));
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Answer { status: head.status.as_u16(), headers: head.headers, body };
        // The log and the metrics know a refusal by this name.
        let is_named = head.extensions.get::<ErrorName>().is_some();
        assert!(answer.status < 400 || is_named, "an answer without its error's name: {answer:?}");
        answer
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// Adds an account with [`PASSWORD`] on the host `oak`, as [`new_account`] describes it.
    pub(super) async fn account(&self, name: &str) -> Account {
        self.add_account(new_account(name)).await
    }

    /// Adds this account, with [`PASSWORD`].
    pub(super) async fn add_account(&self, account: NewAccount) -> Account {
        let password_hash =
            self.app.passwords.hash(&Secret::new(PASSWORD.to_owned()), Requester::TRUSTED).await.unwrap();
        let account = NewAccount { password_hash, ..account };
        add(&self.app.db, &account).await.unwrap();
        self.app.accounts.find(&account.did).await.unwrap().unwrap()
    }

    /// Stores an authorization request as if a client had pushed it, and returns the path to which
    /// that client sends the browser.
    pub(super) async fn stored_request(&self, client_id: &str, change: Value) -> String {
        let mut pushed = json!({
            // A query in the redirect URI and `&` in the state, so that every redirect has to
            // escape them.
            "redirect_uri": "https://app.example.com/back?kept=yes", "scope": "atproto", "state": "st&te",
            "code_challenge": "x", "response_mode": "query", "prompt": null, "login_hint": null, "ui_locales": [],
            "dpop_key": "k", "client_auth": { "method": "none" }, "at": self.clock.now().as_millis(),
        });
        for (name, value) in change.as_object().unwrap() {
            pushed[name] = value.clone();
        }
        let id = format!("req-{}", data_encoding::HEXLOWER.encode(&random::bytes::<16>()));
        let mut tx = self.app.db.begin().await.unwrap();
        sqlx::query("INSERT INTO oauth_requests (id, client_id, pushed, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(&id)
            .bind(client_id)
            .bind(pushed.to_string())
            .bind(self.clock.now().plus(Duration::from_mins(5)).as_millis())
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        authorization_path(client_id, &format!("urn:ietf:params:oauth:request_uri:{id}"))
    }

    /// Opens an authorization path in a browser and signs in for this request. Returns the consent
    /// page.
    pub(super) async fn at_consent(&self, browser: &Browser, path: &str, name: &str) -> Page {
        let page = browser.open(path).await;
        let form = page.form("/sign-in").with("identifier", name).with("password", PASSWORD);
        let page = browser.send(&form).await;
        assert_eq!(page.heading(), "Allow this app to access your account?", "{}", page.html());
        page
    }
}

/// Returns the path to which a client sends the browser.
pub(super) fn authorization_path(client_id: &str, request_uri: &str) -> String {
    let query = serde_html_form::to_string([("client_id", client_id), ("request_uri", request_uri)]).unwrap();
    format!("/oauth/authorize?{query}")
}
