//! A whole network on loopback: the real Genkan program, with fake hosts and a fake directory
//! behind it and people in front of it.
//!
//! ```no_run
//! # use genkan_testing::Plan;
//! # async fn story() {
//! let net = Plan::new("target/debug/genkan").hosts(2).await;
//! let alice = net.sign_up("alice").await;
//! net.client_of(&alice).query("com.atproto.server.getSession", &[]).await.ok();
//! # }
//! ```
//!
//! Stories act through public doors only: HTTP, the command line, settings and signals.

mod app;
mod plan;
mod ports;
mod running;
mod user;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::syntax::Did;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::loopback::locked;
use crate::{Answer, Browser, Client, FakeDirectory, FakeHost, FakePds};

pub use app::{App, Code};
pub use plan::Plan;
pub use running::{Genkan, Ran};
pub use user::User;

/// A running network. Everything ends when this value is dropped.
#[derive(Debug)]
pub struct TestNetwork {
    directory: FakeDirectory,
    hosts: Vec<FakeHost>,
    external_pdses: Vec<FakePds>,
    genkan: Genkan,
    program: PathBuf,
    /// The variables of the command line and of every Genkan of this network, without the ports.
    variables: Vec<(String, String)>,
    host_keys: Vec<K256PrivateKey>,
    rotation_key: K256PrivateKey,
    /// What earlier processes of this network printed.
    past: Mutex<String>,
    folder: TempDir,
}

impl TestNetwork {
    /// The directory.
    pub fn directory(&self) -> &FakeDirectory {
        &self.directory
    }

    /// A PDS that is not a host of this Genkan.
    ///
    /// # Panics
    ///
    /// If the index is too large.
    #[track_caller]
    pub fn external_pds(&self, index: usize) -> &FakePds {
        self.external_pdses.get(index).expect("the plan has so many")
    }

    /// A host, in the order they were added.
    ///
    /// # Panics
    ///
    /// If the index is too large.
    #[track_caller]
    pub fn host(&self, index: usize) -> &FakeHost {
        self.hosts.get(index).unwrap()
    }

    /// Every host.
    pub fn hosts(&self) -> &[FakeHost] {
        &self.hosts
    }

    /// The host that keeps an account.
    ///
    /// # Panics
    ///
    /// If none does.
    #[track_caller]
    pub fn home_of(&self, did: &Did) -> &FakeHost {
        self.hosts
            .iter()
            .find(|host| host.account(did).is_some())
            .unwrap_or_else(|| panic!("{did} is nowhere"))
    }

    /// The key that signs the sessions of a host's accounts.
    ///
    /// # Panics
    ///
    /// If there is no such host.
    #[track_caller]
    pub fn key_of(&self, host: &FakeHost) -> &K256PrivateKey {
        let at = self.hosts.iter().position(|one| one.did() == host.did()).unwrap();
        self.host_keys.get(at).unwrap()
    }

    /// The key that signs operations.
    pub fn rotation_key(&self) -> &K256PrivateKey {
        &self.rotation_key
    }

    /// The running Genkan.
    pub fn genkan(&self) -> &Genkan {
        &self.genkan
    }

    /// The running Genkan, to be stopped or killed.
    pub fn genkan_mut(&mut self) -> &mut Genkan {
        &mut self.genkan
    }

    /// Genkan's service DID.
    ///
    /// # Panics
    ///
    /// Never: the plan sets it.
    pub fn service_did(&self) -> String {
        format!("did:web:localhost%3A{}", self.genkan.port())
    }

    /// A client without a session.
    pub fn visitor(&self) -> Client {
        self.genkan.client()
    }

    /// A new browser.
    pub fn browser(&self) -> Browser {
        self.genkan.browser()
    }

    /// The operator's own calls.
    pub fn operator(&self) -> Client {
        self.operator_at(self.visitor())
    }

    /// The operator's own calls to one replica.
    pub fn operator_at(&self, client: Client) -> Client {
        let credential = data_encoding::BASE64.encode(format!("admin:{}", plan::ADMIN_PASSWORD).as_bytes());
        client.with("authorization", &format!("Basic {credential}"))
    }

    /// The client of a user's app at Genkan.
    pub fn client_of(&self, user: &User) -> Client {
        self.visitor().bearer(&user.access)
    }

    /// The client of a user's app at a host.
    pub fn client_at(&self, host: &FakeHost, user: &User) -> Client {
        Client::new(&format!("http://{}", host.address())).bearer(&user.access)
    }

    /// Signs a person up whose handle begins with `name`, and expects that to work.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub async fn sign_up(&self, name: &str) -> User {
        let answer = self.try_sign_up(name).await;
        assert!(answer.status == 200, "{}\n{}", answer.transcript(), self.genkan.output());
        User::of(name, &answer)
    }

    /// Requests an account whose handle begins with `name`.
    pub async fn try_sign_up(&self, name: &str) -> Answer {
        self.visitor().procedure("com.atproto.server.createAccount", &User::form(name)).await
    }

    /// Signs in by any identifier.
    pub async fn sign_in(&self, identifier: &str, password: &str) -> Answer {
        let input = json!({ "identifier": identifier, "password": password });
        self.visitor().procedure("com.atproto.server.createSession", &input).await
    }

    /// Continues a session by its refresh token.
    pub async fn refresh(&self, token: &str) -> Answer {
        self.visitor().bearer(token).call("com.atproto.server.refreshSession").await
    }

    /// Ends a session by its refresh token.
    pub async fn sign_out(&self, token: &str) -> Answer {
        self.visitor().bearer(token).call("com.atproto.server.deleteSession").await
    }

    /// Runs `genkan` with these arguments in the operator's environment.
    pub async fn command(&self, arguments: &[&str]) -> Ran {
        running::run(&self.program, arguments, &self.variables).await
    }

    /// Runs `genkan` with these arguments and further variables.
    pub async fn command_with(&self, arguments: &[&str], more: &[(String, String)]) -> Ran {
        running::run(&self.program, arguments, &[self.variables.as_slice(), more].concat()).await
    }

    /// Starts another Genkan beside the first, on the same database.
    pub async fn another_genkan(&self) -> Genkan {
        Genkan::start(&self.program, &self.variables, None, &[]).await
    }

    /// Starts another Genkan beside the first, with further variables.
    pub async fn another_genkan_with(&self, more: &[(String, String)]) -> Genkan {
        Genkan::start(&self.program, &self.variables, None, more).await
    }

    /// Kills Genkan, starts it again, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.restart_with(&[]).await;
    }

    /// Kills Genkan and starts it with further variables for this one run.
    pub async fn restart_with(&mut self, more: &[(String, String)]) {
        self.genkan.kill();
        // The output of the old process is kept, for tests about what is never printed.
        locked(&self.past).push_str(&self.genkan.output());
        // The same ports, because DIDs and the hosts' settings name them.
        let port = Some(self.genkan.ports());
        self.genkan = Genkan::start(&self.program, &self.variables, port, more).await;
    }

    /// Everything that the Genkans of this network printed.
    pub fn printed(&self) -> String {
        format!("{}{}", locked(&self.past), self.genkan.output())
    }

    /// Genkan's metrics.
    pub async fn metrics(&self) -> String {
        let answer = self.genkan.ops().get("/metrics").await.ok();
        String::from_utf8_lossy(&answer.body).into_owned()
    }

    /// The folder of this network's files.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Writes a file that only its owner can read, and returns its path.
    pub fn secret_file(&self, name: &str, secret: &str) -> String {
        plan::secret_file(self.folder.path(), name, secret)
    }

    /// The file of the database, when it is `SQLite`.
    pub fn database_file(&self) -> PathBuf {
        self.folder.path().join("data").join("genkan.db")
    }
}

/// Waits until `test` succeeds, for half a minute at most: a busy machine may need long for what
/// usually takes milliseconds.
///
/// # Panics
///
/// If it never does.
pub async fn eventually(what: &str, test: impl AsyncFnMut() -> bool) {
    within(Duration::from_secs(30), what, test).await;
}

/// Waits until `test` succeeds, for at most `limit`.
///
/// # Panics
///
/// If it never is.
pub async fn within(limit: Duration, what: &str, mut test: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !test().await {
        assert!(start.elapsed() < limit, "after {limit:?} still not: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The claims of a token, unchecked.
///
/// # Panics
///
/// If it is not a token.
#[track_caller]
pub fn claims_of(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    let bytes = data_encoding::BASE64URL_NOPAD.decode(part.as_bytes()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}
