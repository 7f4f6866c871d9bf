//! An external PDS with its own OAuth server. It behaves as the published PDS does towards a client
//! that it does not know.
//!
//! It knows clients by [`FakePds::know_client`] (those in development, `http://localhost?…`, need
//! not be known). It accepts every sign-in at once. [`Quirks`] and, as in every listener here,
//! troubles make it misbehave. The names of requests in its journal are NSIDs, and paths outside
//! `/xrpc/`. Access tokens are opaque. The OAuth server and the PDS have different nonces.

mod authorize;
mod clients;
mod metadata;
mod proofs;
mod resource;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::oauth::jwk::JwkSet;
use genkan_protocol::plc;
use genkan_protocol::syntax::{Did, Handle};
use serde_json::{Map, Value};

use crate::directory::FakeDirectory;
use crate::loopback::{Handler, Loopback, ReceivedCall, Reply, locked};

use authorize::PushedRequest;
use clients::ClientMetadata;
use proofs::NonceShop;
use tokens::{Code, Session};

/// A PDS that the operator of the tested Genkan does not run.
#[derive(Debug)]
pub struct FakePds {
    loopback: Loopback,
    origin: String,
    place: Arc<PdsState>,
}

/// The state from which the listener answers.
#[derive(Debug)]
struct PdsState {
    origin: Mutex<String>,
    /// The OAuth server in charge: of this place, or of another one.
    server: Arc<Server>,
    is_server: bool,
    accounts: Mutex<BTreeMap<Did, Handle>>,
    quirks: Mutex<Quirks>,
    nonces: NonceShop,
    /// The calls whose credentials were accepted, by name.
    accepted: Mutex<BTreeMap<String, usize>>,
}

/// An OAuth server.
#[derive(Debug)]
struct Server {
    issuer: Mutex<String>,
    clients: Mutex<BTreeMap<String, ClientMetadata>>,
    pushed: Mutex<BTreeMap<String, PushedRequest>>,
    codes: Mutex<BTreeMap<String, Code>>,
    sessions: Mutex<BTreeMap<u64, Session>>,
    /// Access tokens to their session and end, in seconds.
    access: Mutex<BTreeMap<String, (u64, i64)>>,
    /// Proofs and assertions that were used.
    used: Mutex<BTreeSet<String>>,
    nonces: NonceShop,
    next: AtomicU64,
    /// Milliseconds, when a test stops the clock.
    clock: Mutex<Option<Arc<AtomicI64>>>,
}

/// The ways in which the PDS deviates from correct behaviour.
#[derive(Clone, Debug)]
pub struct Quirks {
    /// The `iss` that the browser brings back: the issuer if `None`, and no `iss` if empty.
    pub callback_iss: Option<String>,
    /// The error that the browser brings back instead of a code.
    pub denial: Option<&'static str>,
    /// Members to set in the answer of the token endpoint. Null removes one.
    pub token_answer: Map<String, Value>,
    /// Members to set in the server's metadata. Null removes one.
    pub server_metadata: Map<String, Value>,
    /// Members to set in the PDS's metadata. Null removes one.
    pub resource_metadata: Map<String, Value>,
    /// Lifetime of access tokens in seconds. With `None` the answer names no lifetime, and it is an
    /// hour.
    pub expires_in: Option<i64>,
    /// Whether every answer changes the nonce.
    pub nonce_each: bool,
    /// Whether every proof is refused with a demand for a nonce.
    pub nonce_never_good: bool,
    /// The account that signs in. `None`: the account of the hint, or else the first one.
    pub signs_in: Option<Did>,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            callback_iss: None,
            denial: None,
            token_answer: Map::new(),
            server_metadata: Map::new(),
            resource_metadata: Map::new(),
            expires_in: Some(3600),
            nonce_each: false,
            nonce_never_good: false,
            signs_in: None,
        }
    }
}

/// A session at the OAuth server, as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// The account.
    pub did: Did,
    /// The app that has it.
    pub client_id: String,
    /// The scope of the session.
    pub scope: String,
    /// How often it was refreshed.
    pub refreshes: usize,
    /// Why it ended, if it has.
    pub ended: Option<&'static str>,
}

impl FakePds {
    /// Starts a PDS that is its own OAuth server and has no accounts.
    pub async fn start() -> Self {
        Self::start_on(Arc::default(), true).await
    }

    /// Starts a PDS whose OAuth server is another one's.
    pub async fn start_behind(other: &Self) -> Self {
        Self::start_on(Arc::clone(&other.place.server), false).await
    }

    async fn start_on(server: Arc<Server>, is_server: bool) -> Self {
        let place = Arc::new(PdsState {
            origin: Mutex::default(),
            server,
            is_server,
            accounts: Mutex::default(),
            quirks: Mutex::default(),
            nonces: NonceShop::default(),
            accepted: Mutex::default(),
        });
        let kept = Arc::clone(&place);
        let loopback = Loopback::start(name_of, |address| {
            let origin = format!("http://127.0.0.1:{}", address.port());
            if is_server {
                // The port is known only now, and the issuer is the origin.
                locked(&kept.server.issuer).clone_from(&origin);
            }
            *locked(&kept.origin) = origin;
            let handler: Handler = Arc::new(move |asked| {
                let place = Arc::clone(&kept);
                Box::pin(async move { place.answer(asked).await })
            });
            handler
        })
        .await;
        let origin = locked(&place.origin).clone();
        Self { loopback, origin, place }
    }

    /// Its origin.
    pub fn url(&self) -> String {
        self.origin.clone()
    }

    /// The issuer of its OAuth server.
    pub fn issuer(&self) -> String {
        locked(&self.place.server.issuer).clone()
    }

    /// Uses this clock (milliseconds since the epoch) from now on.
    pub fn set_clock(&self, clock: Arc<AtomicI64>) {
        *locked(&self.place.server.clock) = Some(clock);
    }

    /// Lets an app push requests with these scopes, signed by these keys.
    pub fn know_client(&self, client_id: &str, scope: &str, keys: JwkSet) {
        let known = ClientMetadata { scope: scope.to_owned(), keys };
        locked(&self.place.server.clients).insert(client_id.to_owned(), known);
    }

    /// Creates an account here, and registers it in the directory.
    ///
    /// # Panics
    ///
    /// If the directory does not accept it.
    pub fn make_account(&self, directory: &FakeDirectory, handle: &str) -> Did {
        let handle: Handle = handle.parse().unwrap();
        let key = key_of(&handle);
        let keys = vec![key.public().to_did_key()];
        let data = plc::Data::of_account(keys, &key.public(), &handle, &self.origin);
        let (did, genesis) = plc::genesis(data, &key);
        directory.submit(&did, &genesis).unwrap();
        self.adopt(&did, &handle);
        did
    }

    /// Adds an account, whatever the directory says.
    pub fn adopt(&self, did: &Did, handle: &Handle) {
        locked(&self.place.accounts).insert(did.clone(), handle.clone());
    }

    /// Takes over an account of another PDS, and registers that in the directory.
    ///
    /// # Panics
    ///
    /// If there is no such account, or the directory does not accept it.
    pub fn take_over(&self, directory: &FakeDirectory, did: &Did) {
        let last = directory.operations(did).pop().unwrap();
        let mut data = last.data().unwrap();
        let handle = data.handle().unwrap();
        data.set_pds_endpoint(&self.origin);
        directory.submit(did, &plc::update(&last.cid(), data, &key_of(&handle))).unwrap();
        self.adopt(did, &handle);
    }

    /// Drops an account, as after it has moved away.
    pub fn drop_account(&self, did: &Did) {
        locked(&self.place.accounts).remove(did);
    }

    /// The key that signs for an account that was made here.
    pub fn account_key(&self, handle: &str) -> K256PrivateKey {
        key_of(&handle.parse().unwrap())
    }

    /// Changes the behaviour from now on.
    pub fn set(&self, change: impl FnOnce(&mut Quirks)) {
        change(&mut locked(&self.place.quirks));
    }

    /// Returns all sessions of its OAuth server, the oldest first.
    pub fn sessions(&self) -> Vec<SessionView> {
        locked(&self.place.server.sessions).values().map(Session::view).collect()
    }

    /// Ends every session, as a person does who revokes access.
    pub fn end_sessions(&self) {
        self.place.server.end_all("taken back");
    }

    /// Refuses the present access tokens from now on, as after a change of keys.
    pub fn forget_access_tokens(&self) {
        locked(&self.place.server.access).clear();
    }

    /// Whether all access tokens that were given out so far have expired.
    pub fn access_tokens_have_expired(&self) -> bool {
        let now = self.place.server.now();
        locked(&self.place.server.access).values().all(|(_, end)| *end <= now)
    }

    /// How many calls of this method had their token and proof accepted. Their bodies may still be
    /// on the way.
    pub fn accepted(&self, nsid: &str) -> usize {
        locked(&self.place.accepted).get(nsid).copied().unwrap_or_default()
    }

    /// Accepts only new nonces from now on.
    pub fn change_nonces(&self) {
        self.place.nonces.change();
        self.place.server.nonces.change();
    }
}

impl Deref for FakePds {
    type Target = Loopback;

    fn deref(&self) -> &Loopback {
        &self.loopback
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            issuer: Mutex::default(),
            clients: Mutex::default(),
            pushed: Mutex::default(),
            codes: Mutex::default(),
            sessions: Mutex::default(),
            access: Mutex::default(),
            used: Mutex::default(),
            nonces: NonceShop::default(),
            next: AtomicU64::new(1),
            clock: Mutex::default(),
        }
    }
}

impl Server {
    /// Milliseconds since the epoch.
    fn now_millis(&self) -> i64 {
        match locked(&self.clock).as_ref() {
            Some(clock) => clock.load(Ordering::SeqCst),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0)),
        }
    }

    fn now(&self) -> i64 {
        self.now_millis() / 1000
    }

    /// Returns a unique text. It need not be unguessable in tests.
    fn fresh(&self, prefix: &str) -> String {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        // The issuer is part of it, so that two servers never give out the same token.
        let digest = proofs::digest(&format!("{prefix} {number} {}", locked(&self.issuer)));
        format!("{prefix}-{digest}")
    }
}

impl PdsState {
    async fn answer(&self, asked: ReceivedCall) -> Reply {
        match asked.seen.path.as_str() {
            "/.well-known/oauth-protected-resource" => self.resource_metadata(),
            "/.well-known/oauth-authorization-server" if self.is_server => self.server_metadata(),
            "/oauth/authorize" if self.is_server => self.authorize(&asked.seen),
            "/oauth/par" | "/oauth/token" | "/oauth/revoke" if self.is_server => self.endpoint(asked).await,
            path if path.starts_with("/xrpc/") => self.resource(asked).await,
            _ => crate::loopback::refusal(404, "NotFound", "Not Found"),
        }
    }

    fn quirks(&self) -> Quirks {
        locked(&self.quirks).clone()
    }

    fn origin(&self) -> String {
        locked(&self.origin).clone()
    }
}

fn name_of(request: &http::request::Parts) -> String {
    let path = request.uri.path();
    path.strip_prefix("/xrpc/").unwrap_or(path).to_owned()
}

/// Returns the key of a handle's account. It depends on the handle only, so a server that takes the
/// account over has the key too.
fn key_of(handle: &Handle) -> K256PrivateKey {
    K256PrivateKey::from_bytes(&proofs::sha256(handle.as_str())).unwrap()
}

/// Sets members of an object; null removes one.
fn overlaid(value: Value, over: &Map<String, Value>) -> Value {
    let Value::Object(mut members) = value else { return value };
    for (name, value) in over {
        if value.is_null() {
            // Null takes a member away, so that a test can leave out a mandatory one.
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    Value::Object(members)
}

#[cfg(test)]
mod tests;
