//! A PLC directory that checks what it is sent and keeps every operation.
//!
//! The names of requests in its journal are `submit`, `document`, `data`, `log`, `log/last`,
//! `log/audit` and `health`. It leaves out the three days in which a rotation key of higher rank
//! may undo an operation.

mod log;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use genkan_protocol::did_document::DidDocument;
use genkan_protocol::plc::{Data, Operation};
use genkan_protocol::syntax::Did;
use http::Method;
use http::request::Parts;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::loopback::{self, Handler, Loopback, ReceivedCall, Reply, locked};
use log::{Entry, check};

/// A PLC directory.
#[derive(Debug)]
pub struct FakeDirectory {
    loopback: Loopback,
    logs: Logs,
}

type Logs = Arc<Mutex<BTreeMap<Did, Vec<Entry>>>>;

impl FakeDirectory {
    /// Starts an empty directory.
    pub async fn start() -> Self {
        let logs = Logs::default();
        let kept = Arc::clone(&logs);
        let handler: Handler = Arc::new(move |asked| {
            let logs = Arc::clone(&kept);
            Box::pin(async move { answer(&logs, asked).await })
        });
        let loopback = Loopback::start(name_of, |_| handler).await;
        Self { loopback, logs }
    }

    /// Returns the directory's origin.
    pub fn url(&self) -> String {
        format!("http://{}", self.loopback.address())
    }

    /// Returns every DID that was ever registered.
    pub fn dids(&self) -> Vec<Did> {
        locked(&self.logs).keys().cloned().collect()
    }

    /// Returns a DID's operations, the oldest first.
    pub fn operations(&self, did: &Did) -> Vec<Operation> {
        let logs = locked(&self.logs);
        logs.get(did).map(|log| log.iter().map(|entry| entry.operation.clone()).collect()).unwrap_or_default()
    }

    /// Returns a DID's state. Returns `None` if the DID was never registered or has a tombstone.
    pub fn data(&self, did: &Did) -> Option<Data> {
        locked(&self.logs).get(did)?.last()?.operation.data()
    }

    /// Returns whether a DID has a tombstone.
    pub fn is_tombstoned(&self, did: &Did) -> bool {
        let logs = locked(&self.logs);
        logs.get(did).and_then(|log| log.last()).is_some_and(|entry| entry.operation.data().is_none())
    }

    /// Accepts an operation as if it had been posted.
    ///
    /// # Errors
    ///
    /// The message that the directory would answer with.
    pub fn submit(&self, did: &Did, operation: &Operation) -> Result<(), String> {
        take(&self.logs, did, operation.clone())
    }
}

impl Deref for FakeDirectory {
    type Target = Loopback;

    fn deref(&self) -> &Loopback {
        &self.loopback
    }
}

fn name_of(request: &Parts) -> String {
    let path = request.uri.path();
    if path == "/_health" {
        return "health".to_owned();
    }
    if request.method == Method::POST {
        return "submit".to_owned();
    }
    match path.trim_start_matches('/').split_once('/') {
        None => "document".to_owned(),
        Some((_, rest)) => rest.to_owned(),
    }
}

async fn answer(logs: &Logs, asked: ReceivedCall) -> Reply {
    let ReceivedCall { seen, body } = asked;
    if seen.name == "health" {
        return loopback::json(200, &json!({ "version": "0.0.1" }));
    }
    // Some clients percent-encode the colons of a DID.
    let path = seen.path.trim_start_matches('/').replace("%3A", ":").replace("%3a", ":");
    let (did, _) = path.split_once('/').unwrap_or((&path, ""));
    let Ok(did) = did.parse::<Did>() else { return refuse(400, &format!("Not a valid DID: {did}")) };
    if seen.name == "submit" {
        let Ok(body) = body.collect().await else { return refuse(400, "the body broke off") };
        let body = body.to_bytes();
        let Ok(operation) = serde_json::from_slice::<Operation>(&body) else {
            return refuse(400, &format!("Not a valid operation: {}", String::from_utf8_lossy(&body)));
        };
        return match take(logs, &did, operation) {
            Ok(()) => http::Response::new(loopback::whole("OK")),
            Err(message) => refuse(400, &message),
        };
    }
    let logs = locked(logs);
    let Some(log) = logs.get(&did) else { return refuse(404, &format!("DID not registered: {did}")) };
    let Some(last) = log.last() else { return refuse(404, &format!("DID not registered: {did}")) };
    let gone = || refuse(404, &format!("DID not available: {did}"));
    match seen.name.as_str() {
        "document" => match last.operation.data() {
            Some(data) => document(&did, &data),
            None => gone(),
        },
        "data" => match last.operation.data() {
            Some(data) => loopback::json(200, &with_did(&did, &data)),
            None => gone(),
        },
        "log" => {
            let operations: Vec<_> = log.iter().map(|entry| &entry.operation).collect();
            loopback::json(200, &json!(operations))
        }
        "log/last" => loopback::json(200, &json!(last.operation)),
        "log/audit" => loopback::json(200, &log.iter().map(|entry| entry.audited(&did)).collect()),
        _ => refuse(404, "Not Found"),
    }
}

fn take(logs: &Logs, did: &Did, operation: Operation) -> Result<(), String> {
    let mut logs = locked(logs);
    let log = logs.get(did).map(Vec::as_slice).unwrap_or_default();
    check(did, log, &operation)?;
    logs.entry(did.clone()).or_default().push(Entry::now(operation));
    Ok(())
}

fn document(did: &Did, data: &Data) -> Reply {
    let document = DidDocument::of_plc_data(did, data);
    let mut reply = loopback::json(200, &json!(document));
    reply.headers_mut().insert("content-type", "application/did+ld+json; charset=utf-8".parse().unwrap());
    reply
}

fn with_did(did: &Did, data: &Data) -> Value {
    let mut value = json!(data);
    if let Some(members) = value.as_object_mut() {
        members.insert("did".to_owned(), json!(did));
    }
    value
}

/// Makes an error in the directory's own format.
fn refuse(status: u16, message: &str) -> Reply {
    loopback::json(status, &json!({ "message": message }))
}

#[cfg(test)]
mod tests;
