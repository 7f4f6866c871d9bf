//! Genkan with an app's web site, and Ann, who has an account.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use genkan_testing::{Answer, FakeSite, Page};
use http::Request;

use super::app::TestApp;
use crate::accounts::Account;
use crate::accounts::testing::{add, new_account};
use crate::base::query::escaped;
use crate::base::{ManualClock, Timestamp, WaitingClient};
use crate::config::Config;
use crate::db::Db;
use crate::db::audit::Actor;
use crate::fleet::testing::add_absent_host;
use crate::http::testing::{TestServer, authorization_path};
use crate::oauth::Redirect;
use crate::signin::{BrowserInfo, Persistence, SignIn, Visit};

/// A server with one host, whose apps publish their documents at `site`.
#[derive(Debug)]
pub(super) struct OAuthServer {
    server: TestServer,
    pub(super) site: Arc<FakeSite>,
    pub(super) ann: Account,
}

impl Deref for OAuthServer {
    type Target = TestServer;

    fn deref(&self) -> &TestServer {
        &self.server
    }
}

impl OAuthServer {
    pub(super) async fn start(db: Db) -> Self {
        Self::with(db, |_| ()).await
    }

    pub(super) async fn with(db: Db, change: impl FnOnce(&mut Config)) -> Self {
        let clock = ManualClock::at(Timestamp::from_seconds(1_700_000_000));
        let site = FakeSite::start().await;
        let server = replica(db, &clock, &site, change).await;
        // No call of these tests reaches a host, but accounts need one.
        add_absent_host(&server.app.fleet, "oak").await;
        let ann = new_account("ann");
        add(&server.app.db, &ann).await.unwrap();
        let ann = server.app.accounts.find(&ann.did).await.unwrap().unwrap();
        Self { server, site: Arc::new(site), ann }
    }

    /// Starts another Genkan on the same database.
    pub(super) async fn another(&self) -> Self {
        let server = replica(self.app.db.clone(), &self.clock, &self.site, |_| ()).await;
        Self { server, site: Arc::clone(&self.site), ann: self.ann.clone() }
    }

    /// Posts a form with these `DPoP` headers.
    pub(super) async fn post(&self, path: &str, form: &[(&str, &str)], proofs: &[&str]) -> Answer {
        let body: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let mut request =
            Request::post(path).header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        for proof in proofs {
            request = request.header("dpop", *proof);
        }
        let answer = self.send(request.body(Body::from(body.join("&"))).unwrap()).await;
        assert!(answer.headers.contains_key("dpop-nonce"), "every answer has the next nonce: {answer:?}");
        assert_eq!(answer.headers["cache-control"], "no-store");
        answer
    }

    /// Returns a visit of a browser in which Ann is signed in.
    pub(super) async fn signed_in(&self) -> (Visit, SignIn) {
        let seen = BrowserInfo {
            address: [192, 0, 2, 7].into(),
            user_agent: "test".to_owned(),
            client: WaitingClient::default(),
        };
        let mut visit = self.app.sign_ins.visit(None, &seen).await.unwrap();
        self.app.sign_ins.sign_in(&mut visit, &self.ann, Persistence::Remembered).await.unwrap();
        let signed_in = self.app.sign_ins.signed_in(&visit, None).await.unwrap().remove(0);
        (visit, signed_in)
    }

    /// Returns a code for everything that the app's metadata declares.
    pub(super) async fn code(&self, app: &TestApp) -> String {
        let (visit, signed_in) = self.signed_in().await;
        self.code_in(app, &visit, &signed_in).await
    }

    pub(super) async fn code_in(&self, app: &TestApp, visit: &Visit, signed_in: &SignIn) -> String {
        let request_uri = self.pushed(app, &[]).await;
        let opened = self.app.oauth.open(&request_uri, &app.id, &visit.device).await.unwrap();
        parameter(&self.app.oauth.approve(&opened, signed_in, None).await.unwrap(), "code")
    }

    /// Returns the tokens of an app to which Ann granted everything that it declares.
    pub(super) async fn tokens(&self, app: &TestApp) -> Answer {
        let code = self.code(app).await;
        let answer = app.redeem(self, &code, &[]).await;
        assert_eq!(answer.summary(), "200", "{answer:?}");
        answer
    }

    /// Pushes a request of the app and returns its URI. Each has a PKCE challenge of its own.
    pub(super) async fn pushed(&self, app: &TestApp, changes: &[(&str, &str)]) -> String {
        // A challenge can be used once, so each request needs a new one.
        app.round.fetch_add(1, Ordering::SeqCst);
        let pushed = app.push(self, changes).await;
        assert_eq!(pushed.summary(), "201", "{pushed:?}");
        pushed.text("/request_uri")
    }

    /// Pushes a request of the app and returns the path to which the app sends the browser.
    pub(super) async fn way_in(&self, app: &TestApp, changes: &[(&str, &str)]) -> String {
        authorization_path(&app.id, &self.pushed(app, changes).await)
    }

    /// Adds Bea and Cid, who have passwords.
    pub(super) async fn add_people(&self) -> [Account; 2] {
        [self.account("bea").await, self.account("cid").await]
    }

    pub(super) async fn take_down(&self) {
        self.set_taken_down(Some("x")).await;
    }

    pub(super) async fn restore(&self) {
        self.set_taken_down(None).await;
    }

    async fn set_taken_down(&self, reference: Option<&str>) {
        let (accounts, mut tx) = (&self.app.accounts, self.app.db.begin().await.unwrap());
        let done = accounts.set_taken_down(&mut tx, &self.ann.did, reference, Actor::Operator).await;
        assert!(done.unwrap());
        tx.commit().await.unwrap();
    }

    /// Returns `false` if Ann has no account.
    pub(super) async fn set_deactivated(&self, deactivated: bool) -> bool {
        let (accounts, mut tx) = (&self.app.accounts, self.app.db.begin().await.unwrap());
        let done = accounts.set_deactivated(&mut tx, &self.ann.did, deactivated, Actor::Genkan).await;
        tx.commit().await.unwrap();
        done.unwrap()
    }
}

async fn replica(
    db: Db,
    clock: &ManualClock,
    site: &FakeSite,
    change: impl FnOnce(&mut Config),
) -> TestServer {
    let mut config = Config::for_tests(Path::new("/nowhere"));
    config.network.private_origins = vec![site.url().parse().unwrap()];
    // No name server answers there, so a test never asks the machine's own one.
    config.network.dns_servers = vec!["127.0.0.1:9".parse().unwrap()];
    change(&mut config);
    TestServer::on(db, clock, config).await
}

/// Returns a parameter of the redirect to the app.
pub(super) fn parameter(redirect: &Redirect, name: &str) -> String {
    let found = redirect.parameters.iter().find(|(one, _)| *one == name);
    found.unwrap_or_else(|| panic!("no {name} in {redirect:?}")).1.expose().clone()
}

/// Returns the target of the redirect, and its parameters.
#[track_caller]
pub(super) fn sent_back(page: &Page) -> (String, Vec<(String, String)>) {
    assert_eq!(page.answer.status, 303, "{}", page.answer.transcript());
    let location = page.answer.header("location").to_owned();
    let (target, query) = location.split_once(['?', '#']).unwrap();
    (target.to_owned(), serde_html_form::from_str(query).unwrap())
}
