//! A client of the PLC directory (<https://web.plc.directory/spec/v0.1/did-plc>).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use genkan_protocol::json_bounds;
use genkan_protocol::plc::Operation;
use genkan_protocol::syntax::Did;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::Full;

use crate::base::Origin;
use crate::base::fetch::{Answer, UnguardedClient, UnguardedError};

/// A client of the PLC directory. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    client: UnguardedClient,
    origin: Origin,
    timeout: Duration,
}

/// Why the directory gave no usable answer. An unknown DID is no error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DirectoryError {
    #[error("the DID was ended by a tombstone operation")]
    Ended,
    #[error("the PLC directory {0}")]
    Away(Arc<str>),
    #[error("the PLC directory answered with {0}")]
    Garbage(Arc<str>),
}

/// The outcome of submitting an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Submission {
    Accepted,
    /// The operation is not in the log, and never will be as long as the log stays as it is. Status
    /// 429 means too many operations for now.
    Refused {
        status: u16,
        message: String,
    },
    /// Nothing was sent, so the operation is not in the log.
    Unreachable(Arc<str>),
    /// The operation may be in the log. Read the log before sending again.
    Unanswered(Arc<str>),
}

impl Directory {
    pub(crate) const fn new(client: UnguardedClient, origin: Origin, timeout: Duration) -> Self {
        Self { client, origin, timeout }
    }

    /// Returns the text of the DID document as the directory renders it, or `None` if there is no
    /// such DID.
    pub(crate) async fn document(&self, did: &Did) -> Result<Option<Bytes>, DirectoryError> {
        self.read(did, "").await
    }

    /// Returns the latest valid operation, which may be a tombstone, or `None` if there is no such
    /// DID.
    pub(crate) async fn log_last(&self, did: &Did) -> Result<Option<Operation>, DirectoryError> {
        let Some(text) = self.read(did, "/log/last").await? else { return Ok(None) };
        let garbage = |why: String| DirectoryError::Garbage(format!("an unreadable body: {why}").into());
        // Owners of DIDs write operations, and the directory bounds only their length.
        json_bounds::check(&text).map_err(|error| garbage(error.to_string()))?;
        serde_json::from_slice(&text).map(Some).map_err(|error| garbage(error.to_string()))
    }

    /// Submits an operation.
    pub(crate) async fn submit(&self, did: &Did, operation: &Operation) -> Submission {
        let body = serde_json::to_vec(operation).expect("an operation is plain JSON");
        let request = Request::post(self.url(did, ""))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("an origin and a DID make a URL");
        match self.client.send(request, self.timeout, MAX_BYTES).await {
            Ok(answer) => submission(&answer),
            Err(UnguardedError::Unreachable(why)) => Submission::Unreachable(why),
            Err(error) => Submission::Unanswered(error.to_string().into()),
        }
    }

    async fn read(&self, did: &Did, path: &str) -> Result<Option<Bytes>, DirectoryError> {
        let request =
            Request::get(self.url(did, path)).body(Full::default()).expect("an origin and a DID make a URL");
        let answer = self
            .client
            .send(request, self.timeout, MAX_BYTES)
            .await
            .map_err(|error| DirectoryError::Away(error.to_string().into()))?;
        match answer.status {
            StatusCode::OK => Ok(Some(answer.body)),
            StatusCode::NOT_FOUND => Ok(None),
            // The directory answers 410 for a DID whose last operation is a tombstone.
            StatusCode::GONE => Err(DirectoryError::Ended),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(DirectoryError::Away(format!("answered {}", status.as_u16()).into()))
            }
            status => Err(DirectoryError::Garbage(format!("status {}", status.as_u16()).into())),
        }
    }

    fn url(&self, did: &Did, path: &str) -> String {
        format!("{}/{did}{path}", self.origin)
    }
}

fn submission(answer: &Answer) -> Submission {
    let status = answer.status;
    if status.is_success() {
        return Submission::Accepted;
    }
    // Other failures may come from a proxy after the directory accepted the operation, so they
    // leave doubt.
    if !status.is_client_error() || status == StatusCode::REQUEST_TIMEOUT {
        return Submission::Unanswered(format!("answered {}", status.as_u16()).into());
    }
    let said: Refusal = serde_json::from_slice(&answer.body).unwrap_or_default();
    // The text is stored and shown, so its length is bounded here.
    Submission::Refused { status: status.as_u16(), message: said.message.chars().take(300).collect() }
}

/// The body of a refusal.
#[derive(Default, serde::Deserialize)]
struct Refusal {
    message: String,
}

/// Maximum size of an answer. Documents and operations have a few KiB.
const MAX_BYTES: usize = 256 * 1024;

#[cfg(test)]
impl Directory {
    pub(crate) fn of(fake: &genkan_testing::FakeDirectory) -> Self {
        let client = UnguardedClient::new(None).expect("the built-in roots are good");
        Self::new(client, fake.url().parse().expect("a URL is an origin"), Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use genkan_protocol::crypto::K256PrivateKey;
    use genkan_protocol::plc::{self, Data};
    use genkan_testing::{FakeDirectory, Trouble};

    use super::*;

    fn key(number: u8) -> K256PrivateKey {
        K256PrivateKey::from_bytes(&[number; 32]).unwrap()
    }

    fn data(handle: &str) -> Data {
        let keys = vec![key(1).public().to_did_key()];
        Data::of_account(keys, &key(2).public(), &handle.parse().unwrap(), "https://oak.example.com")
    }

    #[tokio::test]
    async fn reads_back_what_was_accepted() {
        let fake = FakeDirectory::start().await;
        let directory = Directory::of(&fake);
        let (did, genesis) = plc::genesis(data("alice.example.com"), &key(1));
        assert_eq!(directory.document(&did).await, Ok(None));
        assert_eq!(directory.log_last(&did).await, Ok(None));
        assert_eq!(directory.submit(&did, &genesis).await, Submission::Accepted);
        assert_eq!(directory.log_last(&did).await, Ok(Some(genesis.clone())));
        let document = directory.document(&did).await.unwrap().unwrap();
        let facts = genkan_protocol::did_document::AccountFacts::parse(&document, &did).unwrap();
        assert_eq!(facts.pds.unwrap().as_str(), "https://oak.example.com");
        let update = plc::update(&genesis.cid(), data("alice.example.org"), &key(1));
        assert_eq!(directory.submit(&did, &update).await, Submission::Accepted);
        assert_eq!(directory.log_last(&did).await, Ok(Some(update.clone())));
        let end = plc::tombstone(&update.cid(), &key(1));
        assert_eq!(directory.submit(&did, &end).await, Submission::Accepted);
        // The published directory answers 404 for a DID that was ended, and its specification says 410.
        assert_eq!(directory.document(&did).await, Ok(None));
        fake.trouble("document", Trouble::Status(410));
        assert_eq!(directory.document(&did).await, Err(DirectoryError::Ended));
    }

    #[tokio::test]
    async fn tells_refused_from_unreachable_from_perhaps_done() {
        let fake = FakeDirectory::start().await;
        let directory = Directory::of(&fake);
        let (did, genesis) = plc::genesis(data("alice.example.com"), &key(1));
        let forged = plc::genesis(data("alice.example.com"), &key(3)).1;
        assert!(matches!(directory.submit(&did, &forged).await, Submission::Refused { status: 400, .. }));
        fake.trouble_times("submit", Trouble::CutAfter, 1);
        assert!(matches!(directory.submit(&did, &genesis).await, Submission::Unanswered(_)));
        fake.trouble("*", Trouble::CutBefore);
        assert!(matches!(directory.submit(&did, &genesis).await, Submission::Unanswered(_)));
        assert!(matches!(directory.document(&did).await, Err(DirectoryError::Away(_))));
        fake.mend();
        assert_eq!(directory.log_last(&did).await, Ok(Some(genesis)));
        let nobody = "http://127.0.0.1:1".parse().unwrap();
        let nobody = Directory::new(UnguardedClient::new(None).unwrap(), nobody, Duration::from_secs(2));
        assert!(matches!(nobody.submit(&did, &forged).await, Submission::Unreachable(_)));
    }

    #[tokio::test]
    async fn a_slow_directory_is_given_up() {
        let fake = FakeDirectory::start().await;
        fake.trouble("*", Trouble::Silent);
        let directory = Directory { timeout: Duration::from_millis(200), ..Directory::of(&fake) };
        let did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
        assert!(matches!(directory.document(&did).await, Err(DirectoryError::Away(_))));
    }
}
