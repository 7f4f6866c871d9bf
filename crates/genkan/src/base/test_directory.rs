//! A PLC directory and a web site in-process, with faults, for tests.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use genkan_protocol::crypto::PublicKey;
use genkan_protocol::did_document::DidDocument;
use genkan_protocol::plc::Operation;
use genkan_protocol::syntax::Did;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::base::Origin;

/// A directory that checks genesis hashes, `prev` and signatures as the real one does, and keeps
/// every log.
pub(crate) struct TestDirectory {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Connections are closed without an answer.
    Down,
    /// A write takes effect, but its answer is lost.
    AcceptThenCut,
    Slow(Duration),
}

#[derive(Default)]
struct State {
    logs: HashMap<String, Vec<Operation>>,
    fault: Fault,
    /// Every request, as `METHOD /path`.
    asked: Vec<String>,
}

impl TestDirectory {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
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
        Self { address, state }
    }

    pub(crate) fn origin(&self) -> Origin {
        format!("http://{}", self.address).parse().unwrap()
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.state.lock().unwrap().fault = fault;
    }

    /// Accepts an operation as if someone else had sent it.
    pub(crate) fn write(&self, did: &Did, operation: &Operation) {
        let body = serde_json::to_vec(operation).unwrap();
        let (status, said) = write(&mut self.state.lock().unwrap(), did.as_str(), &body);
        assert_eq!(status, 200, "{said}");
    }

    pub(crate) fn log(&self, did: &str) -> Vec<Operation> {
        self.state.lock().unwrap().logs.get(did).cloned().unwrap_or_default()
    }

    /// Returns how many requests began with a text such as `GET /did:plc:x`.
    pub(crate) fn asked(&self, beginning: &str) -> usize {
        self.state.lock().unwrap().asked.iter().filter(|line| line.starts_with(beginning)).count()
    }
}

type Cut = std::io::Error;

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let path = head.uri.path().replace("%3A", ":");
    let fault = {
        let mut state = state.lock().unwrap();
        state.asked.push(format!("{} {path}", head.method));
        state.fault
    };
    match fault {
        Fault::Down => return Err(Cut::other("down")),
        Fault::Slow(delay) => tokio::time::sleep(delay).await,
        Fault::None | Fault::AcceptThenCut => {}
    }
    let path = path.trim_start_matches('/');
    let (did, rest) = path.split_once('/').unwrap_or((path, ""));
    let (status, said) = if head.method == Method::POST {
        let written = write(&mut state.lock().unwrap(), did, &body);
        if matches!(fault, Fault::AcceptThenCut) {
            return Err(Cut::other("cut"));
        }
        written
    } else {
        read(&state.lock().unwrap(), did, rest)
    };
    let body = Full::new(Bytes::from(said.to_string()));
    let response = Response::builder().status(status).header("content-type", "application/json").body(body);
    Ok(response.unwrap())
}

fn read(state: &State, did: &str, what: &str) -> (u16, Value) {
    let Some(last) = state.logs.get(did).and_then(|log| log.last()) else {
        return (404, json!({"message": format!("DID not registered: {did}")}));
    };
    let did: Did = did.parse().unwrap();
    match (what, last.data()) {
        ("log/last", _) => (200, serde_json::to_value(last).unwrap()),
        ("log/audit", _) => {
            let entries = state.logs[did.as_str()].iter().map(|operation| {
                json!({"did": did, "cid": operation.cid(), "operation": operation, "nullified": false,
                    "createdAt": "2026-01-01T00:00:00.000Z"})
            });
            (200, entries.collect())
        }
        (_, None) => (410, json!({"message": format!("DID not available: {did}")})),
        ("data", Some(data)) => (200, serde_json::to_value(data).unwrap()),
        (_, Some(data)) => (200, serde_json::to_value(DidDocument::of_plc_data(&did, &data)).unwrap()),
    }
}

fn write(state: &mut State, did: &str, body: &[u8]) -> (u16, Value) {
    let refuse = |message: &str| (400, json!({ "message": message }));
    let Ok(operation) = serde_json::from_slice::<Operation>(body) else { return refuse("not an operation") };
    let log = state.logs.entry(did.to_owned()).or_default();
    let keys = match log.last() {
        None if operation.did().is_none_or(|own| own.as_str() != did) => {
            return refuse("hash of genesis is another");
        }
        None => operation.data().map(|data| data.rotation_keys),
        Some(last) if operation.prev() != Some(&last.cid()) => return refuse("operation is not the next"),
        Some(last) => last.data().map(|data| data.rotation_keys),
    };
    let keys: Vec<PublicKey> =
        keys.unwrap_or_default().iter().map(|key| PublicKey::from_did_key(key).unwrap()).collect();
    if operation.verify_signature(&keys).is_err() {
        return refuse("signature is not by a rotation key");
    }
    log.push(operation);
    (200, json!({}))
}

/// A server with one fixed answer per path, for tests that need a web site.
pub(crate) async fn site(pages: HashMap<&'static str, (u16, String)>) -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let pages = Arc::new(pages);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let pages = Arc::clone(&pages);
            let service = service_fn(move |request: Request<Incoming>| {
                let (status, body) = pages.get(request.uri().path()).cloned().unwrap_or((404, String::new()));
                let response = Response::builder().status(status).body(Full::new(Bytes::from(body))).unwrap();
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    origin
}
