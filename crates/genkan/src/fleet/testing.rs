//! An in-process host for tests that answers as the reference PDS 0.5.35 behind an entryway does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use genkan_protocol::crypto::{K256PrivateKey, PublicKey};
use genkan_protocol::did_document::DidDocument;
use genkan_protocol::jwt::session;
use genkan_protocol::plc::Operation;
use genkan_protocol::service_auth;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::host::Health;
use super::{Host, HostClient, HostState};
use crate::base::fetch::UnguardedClient;
use crate::base::{Clock, Origin, Secret};

pub(crate) struct FakeHost {
    pub(crate) origin: Origin,
    state: Arc<Mutex<State>>,
}

/// The host's configuration, as its `PDS_*` settings, and its content.
pub(crate) struct State {
    pub(crate) settings: HashMap<&'static str, String>,
    pub(crate) admin_password: String,
    pub(crate) did: String,
    pub(crate) url: String,
    pub(crate) version: String,
    /// DID to handle.
    pub(crate) accounts: HashMap<String, String>,
    /// `did:key` to private key.
    pub(crate) reserved: HashMap<String, K256PrivateKey>,
    pub(crate) fault: HostFault,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HostFault {
    #[default]
    None,
    /// Connections are closed without an answer.
    Closed,
    /// A write takes effect, but its answer is lost.
    ActThenCut,
}

impl FakeHost {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            settings: HashMap::new(),
            admin_password: "admin word".to_owned(),
            did: format!("did:web:{}", url.trim_start_matches("http://").replace(':', "%3A")),
            url: url.clone(),
            version: "0.5.35".to_owned(),
            accounts: HashMap::new(),
            reserved: HashMap::new(),
            fault: HostFault::None,
        }));
        let served = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let served = Arc::clone(&served);
                let service = service_fn(move |request| answer(Arc::clone(&served), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { origin: url.parse().unwrap(), state }
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// Returns the host as the fleet's snapshot has it.
    pub(crate) fn as_host(&self, id: &str) -> Arc<Host> {
        let (did, password) = self.with(|state| (state.did.clone(), state.admin_password.clone()));
        Arc::new(Host {
            did: did.parse().unwrap(),
            admin_password: Secret::new(password),
            ..bare_host(id, self.origin.clone())
        })
    }
}

/// A healthy host, for tests in which only name and origin matter.
pub(crate) fn host_at(id: &str, origin: Origin) -> Arc<Host> {
    Arc::new(bare_host(id, origin))
}

fn bare_host(id: &str, origin: Origin) -> Host {
    let now = Clock::System.now();
    Host {
        id: id.into(),
        did: "did:web:host.example".parse().unwrap(),
        origin,
        state: HostState::Enabled,
        weight: 1,
        capacity: None,
        region: String::new(),
        sign_ups_per_hour: None,
        admin_password: Secret::new(String::new()),
        version: None,
        blob_limit: None,
        health: Arc::new(Health::new(true, now, now)),
    }
}

pub(crate) fn host_client() -> HostClient {
    HostClient::new(UnguardedClient::new(None).unwrap(), Duration::from_secs(5))
}

type Said = (u16, Value);

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let input: Value = serde_json::from_slice(&body).unwrap_or_default();
    let authorization =
        head.headers.get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned();
    let method = head.uri.path().trim_start_matches("/xrpc/").to_owned();
    let fault = { state.lock().unwrap().fault };
    if fault == HostFault::Closed {
        return Err(std::io::Error::other("closed"));
    }
    let query = head.uri.query().unwrap_or_default().to_owned();
    let (status, said) = match method.as_str() {
        "com.atproto.server.createAccount" => create_account(&state, &authorization, &input).await,
        "com.atproto.admin.updateAccountHandle" => update_handle(&state, &authorization, &input).await,
        _ => simple(&mut state.lock().unwrap(), &method, &query, &authorization, &input),
    };
    if fault == HostFault::ActThenCut && head.method == http::Method::POST {
        return Err(std::io::Error::other("cut"));
    }
    let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_millis(now_millis()));
    let response =
        Response::builder().status(status).header("date", date).header("content-type", "application/json");
    Ok(response.body(Full::new(Bytes::from(said.to_string()))).unwrap())
}

fn now_millis() -> u64 {
    u64::try_from(Clock::System.now().as_millis()).unwrap()
}

fn error(status: u16, name: &str, message: &str) -> Said {
    (status, json!({ "error": name, "message": message }))
}

fn simple(state: &mut State, method: &str, query: &str, authorization: &str, input: &Value) -> Said {
    let setting = |name: &str| state.settings.get(name).cloned();
    match method {
        "_health" => (200, json!({ "version": state.version })),
        "com.atproto.server.describeServer" => {
            let domains = setting("PDS_SERVICE_HANDLE_DOMAINS").unwrap_or_else(|| ".test".to_owned());
            let domains: Vec<&str> = domains.split(',').collect();
            (200, json!({ "did": state.did, "availableUserDomains": domains, "blobUploadLimit": 5_242_880 }))
        }
        "/.well-known/oauth-protected-resource" => {
            let issuer = setting("PDS_ENTRYWAY_URL").unwrap_or_else(|| state.url.clone());
            (200, json!({ "resource": state.url, "authorization_servers": [issuer] }))
        }
        "com.atproto.server.checkAccountStatus" => {
            let key = setting("PDS_ENTRYWAY_JWT_VERIFY_KEY_K256_PUBLIC_KEY_HEX").unwrap_or_default();
            let key = data_encoding::HEXLOWER.decode(key.as_bytes()).unwrap_or_default();
            let key = PublicKey::from_sec1(genkan_protocol::crypto::Curve::K256, &key);
            let token = authorization.trim_start_matches("Bearer ");
            match key.ok().and_then(|key| session::verify_access(token, &key).ok()) {
                Some(claims) if claims.aud == state.did => error(400, "NotFound", "Repo not found"),
                _ => error(400, "InvalidToken", "Token could not be verified"),
            }
        }
        "com.atproto.server.reserveSigningKey" => {
            let key = K256PrivateKey::from_bytes(&crate::base::random::bytes::<32>()).unwrap();
            let name = key.public().to_did_key();
            state.reserved.insert(name.clone(), key);
            (200, json!({ "signingKey": name }))
        }
        "com.atproto.admin.getAccountInfo" | "com.atproto.admin.deleteAccount"
            if !is_admin(state, authorization) =>
        {
            error(401, "AuthenticationRequired", "Authentication Required")
        }
        "com.atproto.admin.getAccountInfo" => {
            let did = query.trim_start_matches("did=");
            match state.accounts.get(did) {
                Some(handle) => {
                    (200, json!({ "did": did, "handle": handle, "indexedAt": "2026-01-01T00:00:00.000Z" }))
                }
                None => error(400, "NotFound", "Account not found"),
            }
        }
        "com.atproto.admin.deleteAccount" => {
            state.accounts.remove(input["did"].as_str().unwrap());
            (200, json!({}))
        }
        _ => error(404, "MethodNotImplemented", "Method Not Implemented"),
    }
}

fn is_admin(state: &State, authorization: &str) -> bool {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("admin:{}", state.admin_password));
    authorization == format!("Basic {pair}")
}

async fn document(state: &Mutex<State>, did: &str) -> Option<DidDocument> {
    let directory = state.lock().unwrap().settings.get("PDS_DID_PLC_URL").cloned()?;
    let request =
        Request::get(format!("{directory}/{}", did.replace(':', "%3A"))).body(Full::default()).unwrap();
    let answer =
        UnguardedClient::new(None).unwrap().send(request, Duration::from_secs(5), 100_000).await.ok()?;
    serde_json::from_slice(&answer.body).ok()
}

async fn create_account(state: &Mutex<State>, authorization: &str, input: &Value) -> Said {
    if let Some(token) = authorization.strip_prefix("Bearer ") {
        let token = service_auth::parse(token).unwrap();
        let Some(document) = document(state, token.issuer().as_str()).await else {
            return error(401, "AuthenticationRequired", "could not resolve iss did");
        };
        let (own, entryway) = {
            let state = state.lock().unwrap();
            (state.did.clone(), state.settings.get("PDS_ENTRYWAY_DID").cloned().unwrap_or_default())
        };
        let now = Clock::System.now().as_seconds();
        let lxm = Some("com.atproto.server.createAccount");
        let key = document.signing_key().unwrap();
        if ![own, entryway].iter().any(|audience| token.verify(&key, audience, lxm, now).is_ok()) {
            return error(401, "BadJwtAudience", "jwt audience does not match service did");
        }
    }
    let Ok(operation) = serde_json::from_value::<Operation>(input["plcOp"].clone()) else {
        return error(400, "InvalidRequest", "non-entryway pds requires bringing a DID and plcOp");
    };
    let state = state.lock().unwrap();
    let data = operation.data().unwrap();
    let rotation = state.settings.get("PDS_ENTRYWAY_PLC_ROTATION_KEY").cloned().unwrap_or_default();
    if !data.rotation_keys.contains(&rotation) {
        return error(400, "IncompatibleDidDoc", "PLC DID does not include service rotation key");
    }
    if operation.verify_signature(&[PublicKey::from_did_key(&rotation).unwrap()]).is_err() {
        return error(400, "IncompatibleDidDoc", "invalid plc operation");
    }
    if !state.reserved.contains_key(data.signing_key().unwrap_or_default()) {
        return error(400, "InvalidRequest", "reserved signing key does not exist");
    }
    error(501, "MethodNotImplemented", "this fake makes no accounts")
}

async fn update_handle(state: &Mutex<State>, authorization: &str, input: &Value) -> Said {
    if !is_admin(&state.lock().unwrap(), authorization) {
        return error(401, "AuthenticationRequired", "Authentication Required");
    }
    let (did, handle) = (input["did"].as_str().unwrap(), input["handle"].as_str().unwrap());
    if !state.lock().unwrap().accounts.contains_key(did) {
        return error(400, "InvalidRequest", "Account not found");
    }
    let named = document(state, did).await.and_then(|document| document.handle());
    if named.is_none_or(|named| named.as_str() != handle) {
        return error(400, "InvalidRequest", "Handle does not match DID doc");
    }
    state.lock().unwrap().accounts.insert(did.to_owned(), handle.to_owned());
    (200, json!({}))
}
