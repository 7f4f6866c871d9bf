//! People with browsers before the same doors: pages and endpoints on one listener, with every
//! layer around them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use genkan_testing::{Browser, Client, Page};
use serde_json::{Value, json};

use super::world::{ISSUER, TestApp, World, account_with};
use crate::base::{Secret, random};
use crate::http::{HttpState, page_routes, with_layers, xrpc};
use crate::wire::TrustedPeers;

pub(super) const PASSWORD: &str = "a password of their own";

/// A server that listens on loopback, as browsers in tests reach it.
#[derive(Debug)]
pub(super) struct Street<'a> {
    pub(super) world: &'a World,
    address: SocketAddr,
}

impl World {
    /// Opens the doors, with two people who have accounts and passwords: Bea and Cid.
    pub(super) async fn street(&self) -> Street<'_> {
        let app = &self.app;
        let hash = app.passwords.hash(&Secret::new(PASSWORD.to_owned())).await.unwrap();
        for (name, letter) in [("bea", 'b'), ("cid", 'c')] {
            account_with(app, name, letter, hash.clone()).await;
        }
        let state = HttpState {
            config: Arc::clone(&app.config),
            clock: app.clock.clone(),
            account_hosts: app.accounts.account_hosts().clone(),
            limits: app.limits.clone(),
            metrics: app.metrics.clone(),
            trusted_peers: TrustedPeers::new(&[]),
            oauth: Some(app.oauth.clone()),
        };
        let routes = super::super::routes(app).merge(xrpc::routes(app)).merge(page_routes(app).unwrap());
        let layered = with_layers(routes, &state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = layered.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Street { world: self, address }
    }
}

impl Street<'_> {
    /// A caller who names this host.
    pub(super) fn client(&self, host: &str) -> Client {
        Client::new(&format!("http://{}", self.address)).with("host", host)
    }

    pub(super) fn browser(&self) -> Browser {
        Browser::new(self.client(ISSUER.trim_start_matches("http://")), ISSUER)
    }

    /// Pushes the app's request and returns the URL to which the app sends the browser.
    pub(super) async fn way_in(&self, app: &TestApp, changes: &[(&str, &str)]) -> String {
        app.round.fetch_add(1, Ordering::SeqCst);
        let pushed = app.push(self.world, changes).await;
        assert_eq!(pushed.summary(), "201", "{pushed:?}");
        way_in(&app.id, &pushed.text("request_uri"))
    }

    /// Returns the way in for a request that no client pushed.
    pub(super) async fn way_in_of(&self, client_id: &str, change: Value) -> String {
        let mut pushed = json!({
            "redirect_uri": "https://app.example.com/back", "scope": "atproto", "state": "state",
            "code_challenge": "x", "response_mode": "query", "prompt": null, "login_hint": null, "ui_locales": [],
            "dpop_key": "k", "client_auth": { "method": "none" }, "at": self.world.hand.load(Ordering::SeqCst),
        });
        for (name, value) in change.as_object().unwrap() {
            pushed[name] = value.clone();
        }
        let id = format!("req-{}", data_encoding::HEXLOWER.encode(&random::bytes::<16>()));
        let mut tx = self.world.db.begin().await.unwrap();
        sqlx::query("INSERT INTO oauth_requests (id, client_id, pushed, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(&id)
            .bind(client_id)
            .bind(pushed.to_string())
            .bind(self.world.app.clock.now().plus(Duration::from_mins(5)).as_millis())
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        way_in(client_id, &format!("urn:ietf:params:oauth:request_uri:{id}"))
    }

    /// At the question, signed in for this request.
    pub(super) async fn at_consent(&self, browser: &Browser, way_in: &str, name: &str) -> Page {
        let page = browser.open(way_in).await;
        let form = page.form("/sign-in").with("identifier", name).with("password", PASSWORD);
        let page = browser.send(&form).await;
        assert_eq!(page.heading(), "Allow this app to access your account?", "{}", page.html());
        page
    }
}

fn way_in(client_id: &str, request_uri: &str) -> String {
    let query = serde_html_form::to_string([("client_id", client_id), ("request_uri", request_uri)]).unwrap();
    format!("/oauth/authorize?{query}")
}

/// Where the browser is sent, and with what.
#[track_caller]
pub(super) fn sent_back(page: &Page) -> (String, Vec<(String, String)>) {
    assert_eq!(page.answer.status, 303, "{}", page.answer.transcript());
    let location = page.answer.header("location").to_owned();
    let (target, query) = location.split_once(['?', '#']).unwrap();
    (target.to_owned(), serde_html_form::from_str(query).unwrap())
}
