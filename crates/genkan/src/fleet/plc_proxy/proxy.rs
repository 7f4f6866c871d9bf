//! The proxy itself: it answers from its cache, as a probe, or by asking the directory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use genkan_protocol::syntax::Did;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;

use super::cache::{Cache, Page};
use super::probe::Prober;
use crate::base::fetch::{UnguardedClient, UnguardedError};
use crate::base::{Clock, Origin};

/// Whether Genkan has an account or a sign-up of a DID.
pub(crate) type Knows = dyn Fn(Did) -> BoxFuture<'static, Result<bool, crate::db::Error>> + Send + Sync;

/// What follows an operation of a DID that the directory may have accepted.
pub(crate) type Changed = dyn Fn(Did) -> BoxFuture<'static, Result<(), crate::db::Error>> + Send + Sync;

/// The PLC proxy. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PlcProxy {
    inner: Arc<Inner>,
}

struct Inner {
    directory: Origin,
    client: UnguardedClient,
    timeout: Duration,
    cache: Cache,
    prober: Prober,
    knows: Box<Knows>,
    changed: Box<Changed>,
}

/// The settings of the PLC proxy.
pub(crate) struct PlcProxySettings {
    pub(crate) directory: Origin,
    pub(crate) timeout: Duration,
    pub(crate) cache_entries: usize,
    pub(crate) cache_lifetime: Duration,
}

/// A request of a host.
struct HostRequest {
    method: Method,
    did: String,
    /// `""`, `/data`, `/log`, `/log/last` or `/log/audit`.
    part: String,
    body: Bytes,
}

impl PlcProxy {
    pub(crate) fn new(
        settings: PlcProxySettings,
        client: UnguardedClient,
        clock: Clock,
        prober: Prober,
        knows: Box<Knows>,
        changed: Box<Changed>,
    ) -> Self {
        let PlcProxySettings { directory, timeout, cache_entries, cache_lifetime } = settings;
        let cache = Cache::new(clock, cache_entries, cache_lifetime);
        Self { inner: Arc::new(Inner { directory, client, timeout, cache, prober, knows, changed }) }
    }

    /// Forgets a DID after a change, so that the next reader asks the directory.
    pub(crate) fn forget(&self, did: &str) {
        self.inner.cache.forget(did);
    }

    /// Answers one request. `path` is as the host sent it, percent-encoding included.
    pub(super) async fn answer(&self, method: Method, path: &str, body: Bytes) -> Page {
        if path == "/_health" && method == Method::GET {
            return Page::json(StatusCode::OK, &serde_json::json!({ "genkan": "directory front" }));
        }
        let Some((did, part)) = split(path) else { return Page::message(StatusCode::NOT_FOUND, "not found") };
        let asked = HostRequest { method, did, part, body };
        // Before anything else: the DIDs of host checks exist only here, and the directory must not
        // see them.
        if let Some(probe) = self.inner.prober.recognise(&asked.did) {
            return probe.page(&asked.part);
        }
        match asked.method {
            Method::GET | Method::HEAD => self.read(asked).await,
            Method::POST if asked.part.is_empty() => self.write(asked).await,
            _ => Page::message(StatusCode::METHOD_NOT_ALLOWED, "GET and POST are served here"),
        }
    }

    /// Tells all replicas that a document may have changed.
    async fn report_change(&self, did: &str) {
        let Ok(parsed) = did.parse::<Did>() else { return };
        if let Err(cause) = (self.inner.changed)(parsed).await {
            // The operation is in the log. Copies of the document are renewed within a day.
            tracing::warn!(cause = &cause as &dyn std::error::Error, "a change of {did} was not noted");
        }
    }

    async fn read(&self, asked: HostRequest) -> Page {
        // The directory knows no other method, so it is not asked.
        if !asked.did.starts_with("did:plc:") {
            return Page::message(StatusCode::NOT_FOUND, "DID not registered");
        }
        let inner = Arc::clone(&self.inner);
        let did = asked.did.clone();
        let key = format!("{}{}", asked.did, asked.part);
        let pass =
            // `HEAD` is read as `GET`, so both share one cached page.
            async move { inner.pass(&HostRequest { method: Method::GET, body: Bytes::new(), ..asked }).await };
        self.inner.cache.get(&did, key, pass).await
    }

    async fn write(&self, asked: HostRequest) -> Page {
        let did = asked.did.clone();
        let known = match did.parse::<Did>() {
            Ok(parsed) if parsed.is_plc() => (self.inner.knows)(parsed).await,
            _ => Ok(false),
        };
        let page = match known {
            // Only operations for accounts of this service are forwarded. One for any other DID
            // would come from a faulty or compromised host.
            Ok(true) => {
                let page = self.inner.pass(&asked).await;
                // Even after a refusal or without an answer: the operation may be in the log all
                // the same.
                self.forget(&did);
                self.report_change(&did).await;
                page
            }
            Ok(false) => {
                Page::message(StatusCode::FORBIDDEN, "only accounts of this service are written here")
            }
            // 503 means that another try may help. A refusal would be final.
            Err(_) => {
                Page::message(StatusCode::SERVICE_UNAVAILABLE, "Genkan cannot check this DID at the moment")
            }
        };
        tracing::info!(
            account.did = %did,
            status = page.status.as_u16(),
            "PLC proxy: an operation for {did} was answered {}", page.status.as_u16()
        );
        page
    }
}

impl Inner {
    /// Forwards a request to the directory. A failure becomes 502 or 504.
    async fn pass(&self, asked: &HostRequest) -> Page {
        let mut request = Request::new(Full::new(asked.body.clone()));
        *request.method_mut() = asked.method.clone();
        let Ok(uri) = format!("{}/{}{}", self.directory, asked.did, asked.part).parse() else {
            return Page::message(StatusCode::NOT_FOUND, "not found");
        };
        *request.uri_mut() = uri;
        let json = HeaderValue::from_static("application/json");
        if asked.method == Method::POST {
            request.headers_mut().insert(CONTENT_TYPE, json);
        } else {
            request
                .headers_mut()
                .insert(ACCEPT, HeaderValue::from_static("application/did+ld+json, application/json"));
        }
        match self.client.send(request, self.timeout, MAX_ANSWER_BYTES).await {
            Ok(answer) => {
                let media_type = answer.headers.get(CONTENT_TYPE).cloned();
                Page { status: answer.status, media_type, body: answer.body }
            }
            Err(UnguardedError::Unreachable(why)) => {
                tracing::warn!(cause = %why, "the PLC directory cannot be reached");
                Page::message(StatusCode::BAD_GATEWAY, "the PLC directory cannot be reached")
            }
            Err(error) => {
                tracing::warn!(cause = %error, "the PLC directory did not answer");
                Page::message(StatusCode::GATEWAY_TIMEOUT, "the PLC directory did not answer")
            }
        }
    }
}

impl fmt::Debug for PlcProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlcProxy").field("directory", &self.inner.directory).finish_non_exhaustive()
    }
}

/// Splits `/did%3Aplc%3Aabc/log/last` into the DID and the requested part.
fn split(path: &str) -> Option<(String, String)> {
    let (did, part) = match path.strip_prefix('/')?.split_once('/') {
        Some((did, part)) => (did, format!("/{part}")),
        None => (path.strip_prefix('/')?, String::new()),
    };
    // The reference implementation escapes the colons. No other character of a `did:plc` needs it.
    let did = did.replace("%3A", ":").replace("%3a", ":");
    let readable = did.parse::<Did>().is_ok();
    let known = matches!(part.as_str(), "" | "/data" | "/log" | "/log/last" | "/log/audit");
    (readable && known).then_some((did, part))
}

/// A limit above the size of the longest history of operations.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests;
