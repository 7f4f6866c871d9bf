//! An app on a developer's machine, and its user's grant.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use genkan_protocol::crypto::P256PrivateKey;
use genkan_protocol::oauth::dpop::{ProofClaims, ProofKey, ath};
use genkan_protocol::oauth::pkce::Challenge;
use http::Method;
use http_body_util::Full;
use sha2::{Digest, Sha256};

use super::{TestNetwork, User};
use crate::loopback::locked;
use crate::{Answer, Browser, Client, Page};

/// An app with a grant.
#[derive(Debug)]
pub struct App {
    key: ProofKey,
    id: String,
    /// The last access token.
    pub access: String,
    /// The last refresh token.
    pub refresh: String,
    scope: String,
    clients: Vec<Client>,
    /// How many requests were sent so far.
    sent: AtomicUsize,
    origin: String,
    nonce: Mutex<Option<String>>,
}

/// A code, with the values that are needed to redeem it.
#[derive(Debug)]
pub struct Code {
    code: String,
    verifier: String,
}

const REDIRECT: &str = "http://127.0.0.1:4321/back";

impl App {
    /// An app without a grant. `client` calls the server, and `origin` is the server's public
    /// origin.
    ///
    /// # Panics
    ///
    /// Once in four billion times.
    pub fn at(client: Client, origin: &str, scope: &str) -> Self {
        Self::across(vec![client], origin, scope)
    }

    /// An app without a grant, whose requests take turns between several replicas, as behind a load
    /// balancer.
    ///
    /// # Panics
    ///
    /// Once in four billion times.
    pub fn across(clients: Vec<Client>, origin: &str, scope: &str) -> Self {
        // A development client: its id carries the metadata, so no server has to publish a
        // document.
        let query = [("scope", scope), ("redirect_uri", "http://127.0.0.1/back")];
        let key: [u8; 32] = Sha256::digest(unique()).into();
        Self {
            key: ProofKey::new(P256PrivateKey::from_bytes(&key).unwrap()),
            id: format!("http://localhost?{}", serde_html_form::to_string(query).unwrap()),
            access: String::new(),
            refresh: String::new(),
            scope: scope.to_owned(),
            clients,
            sent: AtomicUsize::new(0),
            origin: origin.to_owned(),
            nonce: Mutex::default(),
        }
    }

    fn client(&self) -> Client {
        let turn = self.sent.fetch_add(1, Ordering::SeqCst);
        self.clients.iter().cycle().nth(turn).expect("an app has a client").clone()
    }

    /// Returns a new proof for a request, by the app's own key.
    ///
    /// # Panics
    ///
    /// If the clock is before 1970.
    pub fn proof(&self, method: &str, url: &str, token: Option<&str>) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        self.key.sign(&ProofClaims {
            jti: &unique(),
            htm: method,
            // RFC 9449 §4.2: `htu` has neither query nor fragment.
            htu: url.split('?').next().unwrap_or(url),
            iat: i64::try_from(now).unwrap(),
            nonce: locked(&self.nonce).as_deref(),
            ath: token.map(ath).as_deref(),
        })
    }

    /// Sends a request once, with the app's token and a new proof.
    pub async fn ask_once(
        &self,
        at: &Client,
        origin: &str,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let proof = self.proof(method.as_str(), &format!("{origin}{path}"), Some(&self.access));
        self.ask_with(at, &proof, method, path, body).await
    }

    /// Sends a request with this proof instead of a fresh one.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    pub async fn ask_with(
        &self,
        at: &Client,
        proof: &str,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let request = at
            .request(method, path)
            .header("authorization", format!("DPoP {}", self.access))
            .header("dpop", proof)
            .header("content-type", "application/json");
        let answer = at.send(request.body(Full::new(body.into())).unwrap()).await;
        self.learn(&answer);
        answer
    }

    /// Sends a request as libraries do: again, if the server demands its nonce in the proof.
    pub async fn ask(
        &self,
        at: &Client,
        origin: &str,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let body = body.into();
        let answer = self.ask_once(at, origin, method.clone(), path, body.clone()).await;
        // As apps do: one more attempt with the nonce of the refusal.
        if answer.summary() != "401 use_dpop_nonce" {
            return answer;
        }
        self.ask_once(at, origin, method, path, body).await
    }

    fn learn(&self, answer: &Answer) {
        if let Some(nonce) = answer.headers.get("dpop-nonce") {
            *locked(&self.nonce) = Some(nonce.to_str().unwrap().to_owned());
        }
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.post_to(None, path, form).await
    }

    async fn post_to(&self, at: Option<&Client>, path: &str, form: &[(&str, &str)]) -> Answer {
        let form = [form, &[("client_id", &*self.id)]].concat();
        let body = serde_html_form::to_string(&form).unwrap();
        loop {
            // Only the first request of an app has no nonce. A refusal of a known one is an answer
            // for the test.
            let had_one = locked(&self.nonce).is_some();
            let proof = self.proof("POST", &format!("{}{path}", self.origin), None);
            let client = at.cloned().unwrap_or_else(|| self.client()).with("dpop", &proof);
            let answer = client.post(path, "application/x-www-form-urlencoded", body.clone()).await;
            self.learn(&answer);
            if had_one || answer.summary() != "400 use_dpop_nonce" {
                return answer;
            }
        }
    }

    /// Revokes the grant.
    pub async fn revoke(&self) -> Answer {
        self.post("/oauth/revoke", &[("token", &self.refresh)]).await
    }

    /// Revokes the grant at one replica.
    pub async fn revoke_at(&self, at: &Client) -> Answer {
        self.post_to(Some(at), "/oauth/revoke", &[("token", &self.refresh)]).await
    }

    /// Requests new tokens, and keeps them.
    pub async fn refresh(&mut self) -> Answer {
        let form = [("grant_type", "refresh_token"), ("refresh_token", &*self.refresh)];
        let answer = self.post("/oauth/token", &form).await;
        if answer.status == 200 {
            self.take(&answer);
        }
        answer
    }

    fn take(&mut self, answer: &Answer) {
        (self.access, self.refresh) = (answer.text("/access_token"), answer.text("/refresh_token"));
    }

    /// Signs a person in with a browser, allows everything that the app requests, and returns the
    /// code.
    ///
    /// # Panics
    ///
    /// If a step fails.
    pub async fn code(&self, identifier: &str, password: &str) -> Code {
        let (verifier, browser, page) = self.begin().await;
        let form = page.form("/sign-in").with("identifier", identifier).with("password", password);
        let page = browser.send(&form).await;
        Self::allow(verifier, &browser, &page).await
    }

    /// Signs in an account at an external PDS. Its own server signs it in and sends the browser
    /// back.
    ///
    /// # Panics
    ///
    /// If a step fails.
    pub async fn external_code(&self, identifier: &str) -> Code {
        let (verifier, browser, page) = self.begin().await;
        let back = self.to_own_server(&browser, &page, identifier).await;
        let page = browser.open(&back).await;
        Self::allow(verifier, &browser, &page).await
    }

    /// Goes from the sign-in page to the account's own server, and returns where that sends the
    /// browser.
    ///
    /// # Panics
    ///
    /// If a step fails.
    pub async fn to_own_server(&self, browser: &Browser, page: &Page, identifier: &str) -> String {
        let page = browser.send(&page.form("/sign-in").with("identifier", identifier)).await;
        let there = page.link("Continue");
        // The link must lead to the account's own server.
        assert!(!there.starts_with(&self.origin), "{}", page.html());
        let (origin, path) = there.split_at(there.find("/oauth").unwrap());
        let back = Client::new(origin).get(path).await;
        let back = back.header("location").to_owned();
        // A loopback redirect has an IP address; browsers come to the same port.
        back[back.find("/oauth/callback").unwrap_or_else(|| panic!("not back: {back:?}"))..].to_owned()
    }

    /// Pushes a request, and opens it in a fresh browser.
    ///
    /// # Panics
    ///
    /// If the server does not accept it.
    pub async fn begin(&self) -> (String, Browser, Page) {
        let verifier = unique();
        let challenge = Challenge::of(&verifier).to_string();
        let form = [
            ("response_type", "code"),
            ("redirect_uri", REDIRECT),
            ("scope", &*self.scope),
            ("state", "state"),
            ("code_challenge", &*challenge),
            ("code_challenge_method", "S256"),
        ];
        let pushed = self.post("/oauth/par", &form).await;
        assert!(pushed.status == 201, "{}", pushed.transcript());
        let query = [("client_id", self.id.clone()), ("request_uri", pushed.text("/request_uri"))];
        let query = serde_html_form::to_string(query).unwrap();
        let browser = Browser::new(self.client(), &self.origin);
        let page = browser.open(&format!("/oauth/authorize?{query}")).await;
        (verifier, browser, page)
    }

    /// Allows everything on the consent page, and returns the code.
    ///
    /// # Panics
    ///
    /// If the browser is not sent back with a code.
    pub async fn allow(verifier: String, browser: &Browser, page: &Page) -> Code {
        let page = browser.send(&page.form("/consent").with("answer", "allow")).await;
        let location = page.answer.header("location").to_owned();
        let (_, query) = location.split_once(['?', '#']).unwrap_or_else(|| panic!("{}", page.html()));
        let answer: Vec<(String, String)> = serde_html_form::from_str(query).unwrap();
        let code = answer.into_iter().find(|(name, _)| name == "code");
        Code { code: code.unwrap_or_else(|| panic!("no code in {location}")).1, verifier }
    }

    /// Exchanges a code for tokens.
    pub async fn redeem(&self, code: &Code) -> Answer {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &*code.code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", &*code.verifier),
        ];
        self.post("/oauth/token", &form).await
    }

    /// Goes from the sign-in at the account's own server to the tokens.
    ///
    /// # Panics
    ///
    /// If a step fails.
    pub async fn sign_in_external(&mut self, identifier: &str) {
        let code = self.external_code(identifier).await;
        let tokens = self.redeem(&code).await.ok();
        self.take(&tokens);
    }

    /// Goes from the sign-in to the tokens.
    ///
    /// # Panics
    ///
    /// If a step fails.
    pub async fn sign_in(&mut self, identifier: &str, password: &str) {
        let code = self.code(identifier, password).await;
        let tokens = self.redeem(&code).await.ok();
        self.take(&tokens);
    }
}

impl TestNetwork {
    /// Genkan's origin, as people know it.
    pub fn origin(&self) -> String {
        format!("http://localhost:{}", self.genkan().port())
    }

    /// Signs a user in to an app, and allows everything that the app requests.
    ///
    /// # Panics
    ///
    /// If a step fails.
    pub async fn authorize(&self, user: &User, scope: &str) -> App {
        let mut app = App::at(self.visitor(), &self.origin(), scope);
        app.sign_in(&user.handle, &user.password).await;
        app
    }
}

/// Returns a unique word.
fn unique() -> String {
    // Unique and not random: tests need values that never repeat, on any number of threads.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::SeqCst);
    let seed = format!("{:?} {} {count}", SystemTime::now(), std::process::id());
    data_encoding::HEXLOWER.encode(&Sha256::digest(seed))
}
