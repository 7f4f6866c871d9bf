//! Genkan's own calls to a host: `com.atproto.*` methods with the admin password or without
//! credentials.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use genkan_protocol::crypto::PublicKey;
use genkan_protocol::plc::Operation;
use genkan_protocol::syntax::{Did, Handle};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::Full;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Host;
use crate::base::fetch::{Answer, UnguardedClient, UnguardedError};
use crate::base::{Origin, Secret};

/// A client for Genkan's own calls to hosts. Cheap to clone.
///
/// Hosts' origins come from the operator, so they are called without the guard for external names.
#[derive(Clone, Debug)]
pub(crate) struct HostClient {
    client: UnguardedClient,
    timeout: Duration,
}

/// Why a call to a host failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostError {
    /// Nothing was sent, so nothing happened.
    #[error("the host {0}")]
    Unreachable(Arc<str>),
    /// The call was sent and not answered. It may have taken effect.
    #[error("the host {0}")]
    Unanswered(Arc<str>),
    #[error("the host refused: {status} {name}: {message}")]
    Refused { status: u16, name: String, message: String },
    /// A success whose body cannot be read. It probably took effect.
    #[error("the host answered with {0}")]
    Garbage(Arc<str>),
}

impl HostError {
    /// Whether the host may have acted. If so, look at its state before calling again.
    pub(crate) const fn may_be_done(&self) -> bool {
        match self {
            Self::Unreachable(_) => false,
            Self::Unanswered(_) | Self::Garbage(_) => true,
            // A 4xx refuses the call as a whole. A 5xx may come from a failure halfway.
            Self::Refused { status, .. } => *status >= 500,
        }
    }

    /// Whether the host answered with this status and XRPC error name.
    pub(crate) fn is_refusal(&self, wanted_status: u16, wanted_name: &str) -> bool {
        matches!(self, Self::Refused { status, name, .. } if *status == wanted_status && name == wanted_name)
    }

    /// Whether the host read a DID document that does not name the handle, or not yet.
    pub(crate) fn is_outdated_document(&self) -> bool {
        self.says(HANDLE_NOT_IN_DOCUMENT)
    }

    /// Whether the host looked for a signing key that it never reserved.
    pub(super) fn is_unreserved_key(&self) -> bool {
        matches!(self, Self::Refused { status: 400, .. }) && self.says(KEY_NOT_RESERVED)
    }

    /// Whether the host asks for the operation that makes the account's DID.
    pub(super) fn is_missing_operation(&self) -> bool {
        matches!(self, Self::Refused { status: 400, .. }) && self.says(OPERATION_MISSING)
    }

    fn says(&self, text: &str) -> bool {
        matches!(self, Self::Refused { message, .. } if message.contains(text))
    }
}

// The reference PDS has no error name of their own for these refusals, so the text of the message decides.
// No other place matches a host's text.
const HANDLE_NOT_IN_DOCUMENT: &str = "does not match DID doc";
const KEY_NOT_RESERVED: &str = "reserved signing key";
const OPERATION_MISSING: &str = "plcOp";

/// A host's answer to `com.atproto.server.describeServer`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Description {
    pub(crate) did: Did,
    #[serde(default)]
    pub(crate) available_user_domains: Vec<String>,
    pub(crate) blob_upload_limit: Option<u64>,
}

/// A host's answer to `com.atproto.admin.getAccountInfo`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct AccountInfo {
    pub(crate) handle: String,
}

/// A change of an account's status on its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StatusChange {
    Deactivated(bool),
    TakenDown { applied: bool, reference: Option<String> },
}

/// The credential of a call.
pub(super) enum Credential<'a> {
    None,
    Admin(&'a Secret<String>),
    Bearer(&'a str),
}

impl HostClient {
    pub(crate) const fn new(client: UnguardedClient, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    /// Returns the version that the host reports, if it reports one. Waits for at most `limit`.
    pub(crate) async fn health(&self, origin: &Origin, limit: Duration) -> Result<Option<String>, HostError> {
        #[derive(Deserialize)]
        struct Output {
            version: Option<String>,
        }
        let request = request(origin, Method::GET, "_health", None, &Credential::None);
        let answer = self.client.send(request, limit, MAX_BYTES).await.map_err(wire)?;
        // A host of another make may answer 200 without a version, so the member is optional.
        read::<Output>(&judge(answer)?).map(|output| output.version)
    }

    pub(crate) async fn describe_server(&self, origin: &Origin) -> Result<Description, HostError> {
        let path = "com.atproto.server.describeServer";
        read(&self.call(origin, Method::GET, path, None, &Credential::None).await?)
    }

    /// Reserves a signing key on the host. It stays reserved until an account is created with it.
    pub(crate) async fn reserve_signing_key(&self, host: &Host) -> Result<PublicKey, HostError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Output {
            signing_key: String,
        }
        let path = "com.atproto.server.reserveSigningKey";
        let answer = self.call(&host.origin, Method::POST, path, Some(json!({})), &Credential::None).await?;
        PublicKey::from_did_key(&read::<Output>(&answer)?.signing_key)
            .map_err(|_| HostError::Garbage("a signing key that is not a did:key".into()))
    }

    /// Creates an account. The session tokens in the answer are dropped: Genkan issues its own.
    pub(crate) async fn create_account(
        &self,
        host: &Host,
        did: &Did,
        handle: &Handle,
        operation: &Operation,
    ) -> Result<(), HostError> {
        // Without a password: Genkan keeps it and answers every sign-in.
        let body = json!({ "did": did, "handle": handle, "plcOp": operation });
        let path = "com.atproto.server.createAccount";
        self.call(&host.origin, Method::POST, path, Some(body), &Credential::None).await.map(drop)
    }

    /// Looks an account up. Returns `None` if the host has no such account.
    pub(crate) async fn account_info(
        &self,
        host: &Host,
        did: &Did,
    ) -> Result<Option<AccountInfo>, HostError> {
        let path = format!("com.atproto.admin.getAccountInfo?did={did}");
        let credential = Credential::Admin(&host.admin_password);
        match self.call(&host.origin, Method::GET, &path, None, &credential).await {
            Ok(answer) => read(&answer).map(Some),
            // The reference PDS answers 400 and not 404 for an unknown account.
            Err(error) if error.is_refusal(400, "NotFound") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes an account's handle. The directory must have it already, since the host looks there.
    pub(crate) async fn update_account_handle(
        &self,
        host: &Host,
        did: &Did,
        handle: &Handle,
    ) -> Result<(), HostError> {
        let body = json!({ "did": did, "handle": handle });
        self.administer(host, "com.atproto.admin.updateAccountHandle", body).await
    }

    pub(crate) async fn update_subject_status(
        &self,
        host: &Host,
        did: &Did,
        change: &StatusChange,
    ) -> Result<(), HostError> {
        let (what, value) = match change {
            StatusChange::Deactivated(applied) => ("deactivated", json!({ "applied": applied })),
            StatusChange::TakenDown { applied, reference: Some(reference) } => {
                ("takedown", json!({ "applied": applied, "ref": reference }))
            }
            StatusChange::TakenDown { applied, reference: None } => {
                ("takedown", json!({ "applied": applied }))
            }
        };
        let body =
            json!({ "subject": { "$type": "com.atproto.admin.defs#repoRef", "did": did }, what: value });
        self.administer(host, "com.atproto.admin.updateSubjectStatus", body).await
    }

    /// Deletes an account. Succeeds also when the host has no such account.
    pub(crate) async fn delete_account(&self, host: &Host, did: &Did) -> Result<(), HostError> {
        self.administer(host, "com.atproto.admin.deleteAccount", json!({ "did": did })).await
    }

    async fn administer(&self, host: &Host, path: &str, body: Value) -> Result<(), HostError> {
        let credential = Credential::Admin(&host.admin_password);
        self.call(&host.origin, Method::POST, path, Some(body), &credential).await.map(drop)
    }

    /// Makes one call. An answer other than 2xx is [`HostError::Refused`].
    pub(super) async fn call(
        &self,
        origin: &Origin,
        method: Method,
        path: &str,
        body: Option<Value>,
        credential: &Credential<'_>,
    ) -> Result<Answer, HostError> {
        judge(self.exchange(origin, method, path, body, credential).await?)
    }

    /// Makes one call and returns the answer, of any status.
    pub(super) async fn exchange(
        &self,
        origin: &Origin,
        method: Method,
        path: &str,
        body: Option<Value>,
        credential: &Credential<'_>,
    ) -> Result<Answer, HostError> {
        let request = request(origin, method, path, body, credential);
        self.client.send(request, self.timeout, MAX_BYTES).await.map_err(wire)
    }

    /// Fetches a path of the host outside of XRPC, and returns the answer, of any status.
    pub(super) async fn page(&self, origin: &Origin, path: &str) -> Result<Answer, HostError> {
        let request = Request::get(format!("{origin}{path}"))
            .body(Full::default())
            .expect("an origin and a path make a URL");
        self.client.send(request, self.timeout, MAX_BYTES).await.map_err(wire)
    }
}

fn request(
    origin: &Origin,
    method: Method,
    path: &str,
    body: Option<Value>,
    credential: &Credential<'_>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(format!("{origin}/xrpc/{path}"));
    match credential {
        Credential::None => {}
        Credential::Admin(password) => {
            let pair = STANDARD.encode(format!("admin:{}", password.expose()));
            request = request.header(AUTHORIZATION, format!("Basic {pair}"));
        }
        Credential::Bearer(token) => request = request.header(AUTHORIZATION, format!("Bearer {token}")),
    }
    let body = match body {
        Some(body) => {
            request = request.header(CONTENT_TYPE, "application/json");
            Bytes::from(body.to_string())
        }
        None => Bytes::new(),
    };
    request.body(Full::new(body)).expect("an origin and a method make a URL, base64 a header")
}

fn wire(error: UnguardedError) -> HostError {
    match error {
        UnguardedError::Unreachable(why) => {
            HostError::Unreachable(format!("cannot be reached: {why}").into())
        }
        UnguardedError::Unanswered(why) => HostError::Unanswered(format!("did not answer: {why}").into()),
        // The status was not judged, so the host may have acted.
        UnguardedError::TooLarge(_) => HostError::Unanswered(error.to_string().into()),
    }
}

fn judge(answer: Answer) -> Result<Answer, HostError> {
    if answer.status.is_success() { Ok(answer) } else { Err(refusal(&answer)) }
}

/// The XRPC error of an answer. Name and message are empty if its body is no XRPC error.
pub(super) fn refusal(answer: &Answer) -> HostError {
    // A proxy before the host may answer with a page of its own. The status then says enough.
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text =
        // The text goes into logs, so its length is bounded.
        |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default().chars().take(300).collect();
    HostError::Refused { status: answer.status.as_u16(), name: text("error"), message: text("message") }
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, HostError> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| HostError::Garbage(format!("an unreadable body: {error}").into()))
}

const MAX_BYTES: usize = 1024 * 1024;
