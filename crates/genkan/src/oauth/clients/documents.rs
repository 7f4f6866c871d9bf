//! Clients' own documents: fetched, cached, and kept for times when their servers are away.

use std::time::Duration;

use genkan_protocol::json_bounds;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::base::fetch::{GuardedClient, GuardedError, Limits};

/// Why a document could not be fetched.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{url}: {why}")]
pub(super) struct DocumentError {
    url: String,
    why: String,
    /// Whether Genkan did not ask the server, because too many calls are under way.
    pub(super) is_busy: bool,
}

impl DocumentError {
    pub(super) fn new(url: &str, why: &str) -> Self {
        Self { url: url.to_owned(), why: why.to_owned(), is_busy: false }
    }
}

/// A document to fetch: the metadata at `client_id`, or the key set that the metadata names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Document {
    Metadata,
    KeySet,
}

/// Fetches a document. Tries twice if the server needs time to start.
pub(super) async fn fetch(
    guarded: &GuardedClient,
    url: &str,
    what: Document,
) -> Result<String, DocumentError> {
    match fetch_once(guarded, url, what).await {
        Err(Trouble { passing: true, .. }) => fetch_once(guarded, url, what).await,
        done => done,
    }
    .map_err(|trouble| DocumentError { url: url.to_owned(), why: trouble.why, is_busy: trouble.is_busy })
}

struct Trouble {
    why: String,
    /// Whether another try at once may succeed.
    passing: bool,
    is_busy: bool,
}

async fn fetch_once(guarded: &GuardedClient, url: &str, what: Document) -> Result<String, Trouble> {
    let answer = guarded.get(url, "application/json", &LIMITS).await.map_err(|error| Trouble {
        passing: error.is_passing() && !matches!(error, GuardedError::Busy),
        is_busy: matches!(error, GuardedError::Busy),
        why: error.to_string(),
    })?;
    let final_trouble = |why: String| Err(Trouble { why, passing: false, is_busy: false });
    if answer.status != StatusCode::OK {
        let passing = answer.status.is_server_error();
        let why = format!("answered {}", answer.status.as_u16());
        return Err(Trouble { why, passing, is_busy: false });
    }
    let kind = answer.headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let essence = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    match essence {
        Some(kind) if kind.eq_ignore_ascii_case("application/json") => {}
        // As in the reference implementation: a key set may have no type, or one of its own.
        None if what == Document::KeySet => {}
        Some(kind) if what == Document::KeySet && kind.eq_ignore_ascii_case("application/jwk-set+json") => {}
        Some(kind) => {
            // The server chooses the type's length, and the text goes into an error.
            let shown: String = kind.chars().take(64).collect();
            return final_trouble(format!("has the content type {shown:?} instead of application/json"));
        }
        None => return final_trouble("has no content type, application/json is expected".to_owned()),
    }
    // Before the text is read as a tree, which takes many times its length.
    if let Err(error) = json_bounds::check(&answer.body) {
        return final_trouble(error.to_string());
    }
    match String::from_utf8(answer.body.to_vec()) {
        // PostgreSQL cannot store a NUL, and JSON does not allow one.
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => final_trouble("is not UTF-8".to_owned()),
    }
}

const LIMITS: Limits = Limits {
    total: Duration::from_secs(10),
    idle: Duration::from_secs(10),
    body_bytes: 512 * 1024,
    redirects: 0,
};
