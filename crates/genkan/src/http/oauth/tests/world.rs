//! Genkan's OAuth doors on a database, an app with its web site, and somebody who has an account.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use genkan_protocol::crypto::P256PrivateKey;
use genkan_protocol::jwt;
use genkan_protocol::oauth::dpop::{ProofClaims, ProofKey, ath};
use genkan_protocol::oauth::jwk::Jwk;
use genkan_protocol::oauth::pkce::Challenge;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use crate::accounts::{self, Account};
use crate::app::App;
use crate::base::query::escaped;
use crate::base::{Clock, Origin, Secret, random};
use crate::config::Config;
use crate::db::Db;
use crate::db::audit::Actor;
use crate::fleet::{Admission, HostChanges};
use crate::oauth::Redirect;
use crate::signin::{BrowserInfo, Persistence, SignIn, Visit};
use crate::telemetry::metrics::Metrics;
use crate::wire::ClientAddr;

#[derive(Debug)]
pub(super) struct World {
    pub(super) db: Db,
    pub(super) app: App,
    pub(super) router: Router,
    pub(super) hand: Arc<AtomicI64>,
    pub(super) site: Site,
    pub(super) ann: Account,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) json: Value,
}

impl Answer {
    /// `400 invalid_request`, or `200`.
    pub(super) fn summary(&self) -> String {
        match self.json["error"].as_str() {
            Some(code) => format!("{} {code}", self.status),
            None => self.status.to_string(),
        }
    }

    pub(super) fn text(&self, member: &str) -> String {
        self.json[member].as_str().unwrap_or_else(|| panic!("no {member} in {self:?}")).to_owned()
    }

    pub(super) fn why(&self) -> String {
        self.json["error_description"].as_str().unwrap_or_default().to_owned()
    }
}

pub(super) const ISSUER: &str = "http://localhost:2583";

impl World {
    pub(super) async fn new(db: Db) -> Self {
        Self::with(db, |_| ()).await
    }

    pub(super) async fn with(db: Db, change: impl Fn(&mut Config)) -> Self {
        let hand = Arc::new(AtomicI64::new(1_700_000_000_000));
        let site = Site::start().await;
        let (app, router) = replica(&db, &hand, &site, &change).await;
        let origin: Origin = "http://oak.localhost:9".parse().unwrap();
        app.fleet.prepare(&"oak".into(), &origin, None).await.unwrap();
        let admission = Admission {
            did: "did:web:oak.example.com".parse().unwrap(),
            admin_password: Secret::new("word".to_owned()),
            version: None,
            blob_limit: None,
            changes: HostChanges::default(),
        };
        app.fleet.admit(&"oak".into(), admission).await.unwrap();
        let ann = account(&app, "ann", 'a').await;
        Self { db, app, router, hand, site, ann }
    }

    /// Another Genkan on the same database.
    pub(super) async fn another(&self) -> Self {
        let (app, router) = replica(&self.db, &self.hand, &self.site, &|_: &mut Config| ()).await;
        let hand = Arc::clone(&self.hand);
        Self { db: self.db.clone(), app, router, hand, site: self.site.clone(), ann: self.ann.clone() }
    }

    pub(super) fn later(&self, by: Duration) {
        self.hand.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let (mut head, body) = request.into_parts();
        head.extensions.insert(ClientAddr([192, 0, 2, 1].into()));
        let response = self.router.clone().oneshot(Request::from_parts(head, body)).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let answer = Answer { status: head.status.as_u16(), headers: head.headers, json };
        let named = head.extensions.get::<crate::wire::error::ErrorName>().is_some();
        assert!(answer.status < 400 || named, "an answer without its error's name: {answer:?}");
        answer
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

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// A browser, with Ann signed in.
    pub(super) async fn browser(&self) -> (Visit, SignIn) {
        let seen = BrowserInfo { address: [192, 0, 2, 7].into(), user_agent: "test".to_owned() };
        let mut visit = self.app.sign_ins.visit(None, &seen).await.unwrap();
        self.app.sign_ins.sign_in(&mut visit, &self.ann, Persistence::Remembered).await.unwrap();
        let signed_in = self.app.sign_ins.signed_in(&visit, None).await.unwrap().remove(0);
        (visit, signed_in)
    }

    /// A code for everything that the app's metadata declares.
    pub(super) async fn code(&self, app: &TestApp) -> String {
        let (visit, signed_in) = self.browser().await;
        self.code_in(app, &visit, &signed_in).await
    }

    pub(super) async fn code_in(&self, app: &TestApp, visit: &Visit, signed_in: &SignIn) -> String {
        app.round.fetch_add(1, Ordering::SeqCst);
        let pushed = app.push(self, &[]).await;
        assert_eq!(pushed.summary(), "201", "{pushed:?}");
        let opened = self.app.oauth.open(&pushed.text("request_uri"), &app.id, &visit.device).await.unwrap();
        said(&self.app.oauth.approve(&opened, signed_in, None).await.unwrap(), "code")
    }

    /// The app has its tokens.
    pub(super) async fn tokens(&self, app: &TestApp) -> Answer {
        let code = self.code(app).await;
        let answer = app.redeem(self, &code, &[]).await;
        assert_eq!(answer.summary(), "200", "{answer:?}");
        answer
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

    /// `false`: there is no such account.
    pub(super) async fn set_deactivated(&self, deactivated: bool) -> bool {
        let (accounts, mut tx) = (&self.app.accounts, self.app.db.begin().await.unwrap());
        let done = accounts.set_deactivated(&mut tx, &self.ann.did, deactivated, None, Actor::Genkan).await;
        tx.commit().await.unwrap();
        done.unwrap()
    }
}

/// A parameter of the way back.
pub(super) fn said(redirect: &Redirect, name: &str) -> String {
    let found = redirect.parameters.iter().find(|(one, _)| *one == name);
    found.unwrap_or_else(|| panic!("no {name} in {redirect:?}")).1.expose().clone()
}

async fn replica(
    db: &Db,
    hand: &Arc<AtomicI64>,
    site: &Site,
    change: &impl Fn(&mut Config),
) -> (App, Router) {
    let mut config = Config::for_tests(std::path::Path::new("/nowhere"));
    config.keys.sealing_key = Some(Secret::new([9; 32]));
    config.network.private_origins = vec![site.origin.clone()];
    config.network.dns_servers = vec!["127.0.0.1:9".parse().unwrap()];
    change(&mut config);
    let clock = Clock::Manual(Arc::clone(hand));
    let app = App::build_on(db.clone(), config, clock, Metrics::default()).await.unwrap();
    let router = super::super::routes(&app).merge(crate::http::xrpc::routes(&app));
    (app, router)
}

pub(super) async fn account(app: &App, name: &str, letter: char) -> Account {
    account_with(app, name, letter, Secret::new("hash".to_owned())).await
}

pub(super) async fn account_with(
    app: &App,
    name: &str,
    letter: char,
    password_hash: Secret<String>,
) -> Account {
    let did: genkan_protocol::syntax::Did =
        format!("did:plc:{}", String::from(letter).repeat(24)).parse().unwrap();
    let mut tx = app.db.begin().await.unwrap();
    let new = accounts::NewAccount {
        did: did.clone(),
        handle: format!("{name}.test").parse().unwrap(),
        email: format!("{name}@example.com").parse().unwrap(),
        password_hash,
        host: "oak".into(),
        host_key: app.ring.rotation().public(),
        created_at: app.clock.now(),
    };
    accounts::insert_creating(&mut tx, &new).await.unwrap();
    assert!(accounts::open(&mut tx, &did).await.unwrap());
    tx.commit().await.unwrap();
    app.accounts.find(&did).await.unwrap().unwrap()
}

/// An app: its id, its keys, and how it talks.
#[derive(Debug)]
pub(super) struct TestApp {
    pub(super) id: String,
    pub(super) proof_key: ProofKey,
    pub(super) redirect: String,
    pub(super) scope: String,
    /// The app's own key and the key's id, if the app authenticates itself.
    pub(super) own_key: Option<(P256PrivateKey, &'static str)>,
    /// Counts the codes it asked for: a challenge is good once.
    pub(super) round: AtomicI64,
}

impl TestApp {
    /// An app on the developer's machine.
    pub(super) fn loopback() -> Self {
        let id = "http://localhost?scope=atproto%20transition%3Ageneric&redirect_uri=http%3A%2F%2F127.0.0.1%2Fback";
        Self {
            id: id.to_owned(),
            proof_key: fresh_proof_key(),
            redirect: "http://127.0.0.1:4321/back".to_owned(),
            scope: "atproto transition:generic".to_owned(),
            own_key: None,
            round: AtomicI64::new(0),
        }
    }

    /// An app with a document that has these members besides, or instead.
    pub(super) fn published(world: &World, name: &str, members: &Value) -> Self {
        let origin = world.site.origin.as_str();
        let id = format!("{origin}/{name}.json");
        let redirect = format!("{origin}/back");
        let mut document = json!({
            "client_id": id,
            "redirect_uris": [redirect],
            "scope": "atproto transition:generic",
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none",
            "dpop_bound_access_tokens": true,
        });
        for (member, value) in members.as_object().unwrap() {
            document[member] = value.clone();
        }
        world.site.put(&format!("/{name}.json"), 200, "application/json", &document.to_string());
        let scope = document["scope"].as_str().unwrap_or_default().to_owned();
        Self { id, proof_key: fresh_proof_key(), redirect, scope, own_key: None, round: AtomicI64::new(0) }
    }

    /// An app that signs with its own key.
    pub(super) fn confidential(world: &World, name: &str) -> Self {
        let key = fresh_key();
        let app = Self::published(world, name, &confidential_members(&key, "one"));
        Self { own_key: Some((key, "one")), ..app }
    }

    pub(super) fn proof_at(&self, world: &World, path: &str, nonce: Option<&str>) -> String {
        let now = world.hand.load(Ordering::SeqCst).div_euclid(1000);
        self.proof_key.sign(&ProofClaims {
            jti: &random::id(),
            htm: "POST",
            htu: &format!("{ISSUER}{path}"),
            iat: now,
            nonce,
            ath: None,
        })
    }

    /// Beside an access token.
    pub(super) fn proof_for(&self, world: &World, path: &str, token: Option<&str>) -> String {
        self.proof_key.sign(&ProofClaims {
            jti: &random::id(),
            htm: "POST",
            htu: &format!("{ISSUER}{path}"),
            iat: world.hand.load(Ordering::SeqCst).div_euclid(1000),
            nonce: Some(&world.app.oauth.nonce()),
            ath: token.map(ath).as_deref(),
        })
    }

    pub(super) fn proof(&self, world: &World, path: &str) -> String {
        self.proof_at(world, path, Some(&world.app.oauth.nonce()))
    }

    pub(super) fn assertion(&self, world: &World, change: &Value) -> String {
        let (key, kid) = self.own_key.as_ref().unwrap();
        let now = world.hand.load(Ordering::SeqCst).div_euclid(1000);
        let mut claims = json!({
            "iss": self.id, "sub": self.id, "aud": ISSUER, "iat": now, "exp": now + 60, "jti": random::id(),
        });
        for (member, value) in change.as_object().unwrap() {
            claims[member] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        jwt::sign_es256(key, "JWT", kid, &claims)
    }

    /// Posts with a good proof and good credentials, unless `changes` says otherwise (an empty
    /// value leaves out).
    pub(super) async fn post(
        &self,
        world: &World,
        path: &str,
        form: &[(&str, &str)],
        changes: &[(&str, &str)],
    ) -> Answer {
        let proof = self.proof(world, path);
        self.post_with(world, path, form, changes, &[&proof]).await
    }

    pub(super) async fn post_with(
        &self,
        world: &World,
        path: &str,
        form: &[(&str, &str)],
        changes: &[(&str, &str)],
        proofs: &[&str],
    ) -> Answer {
        let assertion = self.own_key.as_ref().map(|_| self.assertion(world, &json!({})));
        let mut all: Vec<(&str, &str)> = vec![("client_id", &self.id)];
        if let Some(assertion) = &assertion {
            all.push(("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"));
            all.push(("client_assertion", assertion));
        }
        all.extend_from_slice(form);
        for (name, value) in changes {
            all.retain(|(one, _)| one != name);
            if !value.is_empty() {
                all.push((name, value));
            }
        }
        world.post(path, &all, proofs).await
    }

    pub(super) async fn push(&self, world: &World, changes: &[(&str, &str)]) -> Answer {
        let proof = self.proof(world, "/oauth/par");
        self.push_with(world, changes, &[&proof]).await
    }

    pub(super) async fn push_with(&self, world: &World, changes: &[(&str, &str)], proofs: &[&str]) -> Answer {
        let challenge = Challenge::of(&self.verifier()).to_string();
        let form = [
            ("response_type", "code"),
            ("redirect_uri", &self.redirect),
            ("scope", &self.scope),
            ("state", "the state"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        self.post_with(world, "/oauth/par", &form, changes, proofs).await
    }

    /// What goes with the latest code.
    pub(super) fn verifier(&self) -> String {
        format!("verifier-{}-{}", self.round.load(Ordering::SeqCst), self.proof_key.thumbprint())
    }

    pub(super) async fn redeem(&self, world: &World, code: &str, changes: &[(&str, &str)]) -> Answer {
        let verifier = self.verifier();
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &*self.redirect),
            ("code_verifier", &*verifier),
        ];
        self.post(world, "/oauth/token", &form, changes).await
    }

    pub(super) async fn refresh(&self, world: &World, token: &str) -> Answer {
        self.post(world, "/oauth/token", &[("grant_type", "refresh_token"), ("refresh_token", token)], &[])
            .await
    }

    pub(super) async fn revoke(&self, world: &World, token: &str) -> Answer {
        self.post(world, "/oauth/revoke", &[("token", token)], &[]).await
    }
}

pub(super) fn confidential_members(key: &P256PrivateKey, kid: &str) -> Value {
    json!({
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "ES256",
        "jwks": { "keys": [Jwk::of(&key.public()).named(kid)] },
    })
}

pub(super) fn fresh_key() -> P256PrivateKey {
    P256PrivateKey::from_bytes(&random::bytes::<32>()).unwrap()
}

pub(super) fn fresh_proof_key() -> ProofKey {
    ProofKey::new(fresh_key())
}

/// Status, content type and body.
type Page = (u16, String, String);

/// The app's web site: what is at each path now.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) origin: Origin,
    pages: Arc<Mutex<HashMap<String, Page>>>,
    asked: Arc<AtomicI64>,
    /// The number of requests that are still to be answered with 503.
    asleep: Arc<AtomicI64>,
}

impl Site {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let site = Self { origin, pages: Arc::default(), asked: Arc::default(), asleep: Arc::default() };
        let served = site.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let served = served.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    served.asked.fetch_add(1, Ordering::SeqCst);
                    let found = served.pages.lock().unwrap().get(request.uri().path()).cloned();
                    let (mut status, kind, body) =
                        found.unwrap_or_else(|| (404, "text/plain".into(), String::new()));
                    let is_asleep = served.asleep.fetch_sub(1, Ordering::SeqCst) > 0;
                    if is_asleep {
                        status = 503;
                    }
                    let response = Response::builder()
                        .status(status)
                        .header("content-type", kind)
                        .header("location", if status == 302 { body.as_str() } else { "/elsewhere" })
                        .body(Full::new(Bytes::from(body.clone())))
                        .unwrap();
                    async move {
                        if is_asleep {
                            tokio::time::sleep(Duration::from_millis(1200)).await;
                        }
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        site
    }

    pub(super) fn put(&self, path: &str, status: u16, kind: &str, body: &str) {
        let page = (status, kind.to_owned(), body.to_owned());
        self.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    /// Answers the next `times` requests late and with 503.
    pub(super) fn sleep(&self, times: i64) {
        self.asleep.store(times, Ordering::SeqCst);
    }

    pub(super) fn asked(&self) -> i64 {
        self.asked.load(Ordering::SeqCst)
    }
}
