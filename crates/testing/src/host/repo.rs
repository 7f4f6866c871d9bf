//! Records and blobs.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use genkan_protocol::did_document::DidDocument;
use genkan_protocol::syntax::{Did, Handle};
use genkan_protocol::xrpc_error::XrpcError;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Pds;
use super::accounts::Account;
use super::admin::parameter;
use super::create_account::invalid;
use crate::loopback::{self, Body, Reply, SeenRequest, locked, whole};

/// A blob. It has its bytes if it is small, and otherwise only a recipe to make them again.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    size: u64,
    kind: String,
    bytes: Option<Bytes>,
}

impl Blob {
    pub(super) fn of_pattern(size: u64) -> Self {
        Self { size, kind: "application/octet-stream".to_owned(), bytes: None }
    }

    pub(super) fn reply(&self) -> Reply {
        let body = match &self.bytes {
            Some(bytes) => whole(bytes.clone()),
            // A large blob is made while it is read, so that tests with gigabytes need little
            // memory.
            None => pattern(self.size),
        };
        http::Response::builder()
            .header("content-type", self.kind.as_str())
            .header("content-length", self.size)
            .header("x-content-type-options", "nosniff")
            .header("content-security-policy", "default-src 'none'; sandbox")
            .body(body)
            .unwrap()
    }
}

/// Makes a body of `size` bytes that are always the same. The bytes are made while they are read.
pub fn pattern(size: u64) -> Body {
    const PIECE: usize = 64 * 1024;
    // 251 is a prime, so within a piece the pattern does not line up with buffers whose size is a
    // power of two.
    let piece: Bytes = (0..PIECE).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
    let pieces = stream::unfold((size, piece), |(left, piece)| async move {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
        (length > 0).then(|| {
            let frame = Frame::data(piece.slice(..length));
            (Ok::<_, io::Error>(frame), (left - length as u64, piece))
        })
    });
    StreamBody::new(pieces).boxed_unsync()
}

impl Pds {
    pub(super) fn put_record(
        &self,
        account: &Account,
        input: &Value,
        create: bool,
    ) -> Result<Reply, XrpcError> {
        let text = |name: &str| input.get(name).and_then(Value::as_str).map(str::to_owned);
        self.own_repo(account, text("repo"))?;
        let collection =
            text("collection").ok_or_else(|| invalid("Input must have the property \"collection\""))?;
        let record =
            input.get("record").cloned().ok_or_else(|| invalid("Input must have the property \"record\""))?;
        let cid = cid_of(0x71, record.to_string().as_bytes());
        let key = match text("rkey") {
            Some(key) => key,
            // Derived from the content, so equal records get equal keys.
            None if create => format!("3{}", cid.get(cid.len() - 12..).unwrap_or("zzzzzzzzzzzz")),
            None => return Err(invalid("Input must have the property \"rkey\"")),
        };
        let path = format!("{collection}/{key}");
        locked(&self.accounts)
            .change(&account.did, |account| drop(account.records.insert(path.clone(), record)));
        Ok(loopback::json(
            200,
            &json!({
                "uri": format!("at://{}/{path}", account.did), "cid": cid,
                "commit": { "cid": cid, "rev": "3zzzzzzzzzzzz" }, "validationStatus": "unknown",
            }),
        ))
    }

    pub(super) fn delete_record(&self, account: &Account, input: &Value) -> Result<Reply, XrpcError> {
        let text = |name: &str| input.get(name).and_then(Value::as_str).map(str::to_owned);
        self.own_repo(account, text("repo"))?;
        let path = format!("{}/{}", text("collection").unwrap_or_default(), text("rkey").unwrap_or_default());
        locked(&self.accounts).change(&account.did, |account| drop(account.records.remove(&path)));
        Ok(loopback::json(200, &json!({})))
    }

    pub(super) fn apply_writes(&self, account: &Account, input: &Value) -> Result<Reply, XrpcError> {
        self.own_repo(account, input.get("repo").and_then(Value::as_str).map(str::to_owned))?;
        // Counted and not applied: no test reads the records of such a call.
        let writes = input.get("writes").and_then(Value::as_array).map_or(0, Vec::len);
        Ok(loopback::json(
            200,
            &json!({ "commit": { "cid": "bafy", "rev": "3zzzzzzzzzzzz" }, "results": vec![json!({}); writes] }),
        ))
    }

    fn own_repo(&self, account: &Account, repo: Option<String>) -> Result<(), XrpcError> {
        let repo = repo.ok_or_else(|| invalid("Input must have the property \"repo\""))?;
        match self.find_repo(&repo) {
            Some(named) if named.did == account.did => Ok(()),
            Some(_) => Err(XrpcError::new(401, "AuthenticationRequired", "Authentication Required")),
            None => Err(invalid(format!("Could not find repo: {repo}"))),
        }
    }

    pub(super) fn record(&self, seen: &SeenRequest) -> Result<Reply, XrpcError> {
        let (account, collection) = self.readable(seen)?;
        let key = parameter(seen, "rkey").ok_or_else(|| invalid("Params must have the property \"rkey\""))?;
        let path = format!("{collection}/{key}");
        let uri = format!("at://{}/{path}", account.did);
        let Some(record) = account.records.get(&path) else {
            return Err(XrpcError::new(400, "RecordNotFound", format!("Could not locate record: {uri}")));
        };
        let cid = cid_of(0x71, record.to_string().as_bytes());
        Ok(loopback::json(200, &json!({ "uri": uri, "cid": cid, "value": record })))
    }

    pub(super) fn records(&self, seen: &SeenRequest) -> Result<Reply, XrpcError> {
        let (account, collection) = self.readable(seen)?;
        let of_collection = format!("{collection}/");
        let records: Vec<_> = account
            .records
            .iter()
            .filter(|(path, _)| path.starts_with(&of_collection))
            .map(|(path, record)| {
                let cid = cid_of(0x71, record.to_string().as_bytes());
                json!({ "uri": format!("at://{}/{path}", account.did), "cid": cid, "value": record })
            })
            .collect();
        Ok(loopback::json(200, &json!({ "records": records })))
    }

    pub(super) async fn describe_repo(&self, seen: &SeenRequest) -> Result<Reply, XrpcError> {
        let repo =
            parameter(seen, "repo").ok_or_else(|| invalid("Params must have the property \"repo\""))?;
        let account = self.find_repo(&repo).ok_or_else(|| invalid(format!("Could not find user: {repo}")))?;
        refuse_hidden(&account)?;
        let document = self.resolve(&account.did).await;
        let is_correct = document.as_ref().and_then(DidDocument::handle) == Some(account.handle.clone());
        Ok(loopback::json(
            200,
            &json!({
                "handle": account.handle, "did": account.did, "didDoc": document,
                "collections": [], "handleIsCorrect": is_correct,
            }),
        ))
    }

    fn readable(&self, seen: &SeenRequest) -> Result<(Account, String), XrpcError> {
        let repo =
            parameter(seen, "repo").ok_or_else(|| invalid("Params must have the property \"repo\""))?;
        let collection = parameter(seen, "collection")
            .ok_or_else(|| invalid("Params must have the property \"collection\""))?;
        let account = self.find_repo(&repo).ok_or_else(|| invalid(format!("Could not find repo: {repo}")))?;
        refuse_hidden(&account)?;
        Ok((account, collection))
    }

    fn find_repo(&self, repo: &str) -> Option<Account> {
        let accounts = locked(&self.accounts);
        match repo.parse::<Did>() {
            Ok(did) => accounts.find(&did).cloned(),
            Err(_) => accounts.by_handle(&repo.parse::<Handle>().ok()?).cloned(),
        }
    }

    /// Reads a blob as a stream. Only the length and the hash of a large blob are kept.
    pub(super) async fn upload_blob(
        &self,
        seen: &SeenRequest,
        account: &Account,
        mut body: Incoming,
    ) -> Result<Reply, XrpcError> {
        let mut hash = Sha256::new();
        let (mut size, mut small) = (0_u64, Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| invalid("Request aborted"))?;
            let Ok(data) = frame.into_data() else { continue };
            hash.update(&data);
            size += data.len() as u64;
            // A large upload must not fill the memory of the test.
            if size <= SMALL {
                small.extend_from_slice(&data);
            }
        }
        let cid = cid_of_hash(0x55, &hash.finalize());
        let kind = match seen.header("content-type") {
            "" => "application/octet-stream",
            kind => kind,
        }
        .to_owned();
        let blob = Blob { size, kind: kind.clone(), bytes: (size <= SMALL).then(|| small.into()) };
        locked(&self.accounts).change(&account.did, |account| drop(account.blobs.insert(cid.clone(), blob)));
        Ok(loopback::json(
            200,
            &json!({ "blob": { "$type": "blob", "ref": { "$link": cid }, "mimeType": kind, "size": size } }),
        ))
    }
}

const SMALL: u64 = 1024 * 1024;

/// Refuses reads of an account that is deactivated or taken down.
pub(super) fn refuse_hidden(account: &Account) -> Result<(), XrpcError> {
    let did = &account.did;
    match account.status() {
        Some("takendown") => {
            Err(XrpcError::new(400, "RepoTakendown", format!("Repo has been takendown: {did}")))
        }
        Some(_) => Err(XrpcError::new(400, "RepoDeactivated", format!("Repo has been deactivated: {did}"))),
        None => Ok(()),
    }
}

fn cid_of(codec: u8, bytes: &[u8]) -> String {
    cid_of_hash(codec, &Sha256::digest(bytes))
}

fn cid_of_hash(codec: u8, hash: &[u8]) -> String {
    // CID version 1, the codec, and a SHA-256 multihash of 32 bytes.
    let bytes = [&[0x01, codec, 0x12, 0x20], hash].concat();
    format!("b{}", data_encoding::BASE32_NOPAD.encode(&bytes).to_lowercase())
}
