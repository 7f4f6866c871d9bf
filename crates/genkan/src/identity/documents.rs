//! Resolution of DIDs to documents (<https://atproto.com/specs/did>).

use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::did_document::DidDocument;
use genkan_protocol::syntax::Did;
use http::StatusCode;

use super::memory::LookupCache;
use super::{Directory, DirectoryError, Error, Freshness};
use crate::base::Clock;
use crate::base::fetch::{GuardedClient, GuardedError, Limits};

/// Resolves DIDs, `did:plc` at the directory and `did:web` at its own host. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Documents {
    directory: Directory,
    guarded: GuardedClient,
    memory: LookupCache<Arc<DidDocument>>,
    /// The limit of one lookup as a whole.
    within: Duration,
}

impl Documents {
    pub(crate) fn new(directory: Directory, guarded: GuardedClient, clock: Clock, within: Duration) -> Self {
        Self { directory, guarded, memory: LookupCache::new(clock, REMEMBERED), within }
    }

    /// Returns the document of `did`, whose `id` is `did`.
    pub(crate) async fn resolve(&self, did: &Did, freshness: Freshness) -> Result<Arc<DidDocument>, Error> {
        let look_up = look_up(self.directory.clone(), self.guarded.clone(), did.clone(), self.within);
        self.memory.get(did.as_str(), freshness, look_up).await
    }

    /// Returns the document, if it is cached and young enough.
    pub(super) fn recall(&self, did: &str) -> Option<Result<Arc<DidDocument>, Error>> {
        self.memory.recall(did)
    }

    /// Drops a document from the cache, after a change that Genkan knows of.
    pub(crate) fn forget(&self, did: &str) {
        self.memory.forget(did);
    }
}

async fn look_up(
    directory: Directory,
    guarded: GuardedClient,
    did: Did,
    within: Duration,
) -> Result<Arc<DidDocument>, Error> {
    // One limit for the lookup as a whole. A slow server could meet the limit of every single step.
    tokio::time::timeout(within, at_its_method(&directory, &guarded, &did))
        .await
        .map_err(|_| Error::Passing("the DID was not resolved in time".into()))?
}

async fn at_its_method(
    directory: &Directory,
    guarded: &GuardedClient,
    did: &Did,
) -> Result<Arc<DidDocument>, Error> {
    let document = if did.is_plc() {
        at_directory(directory, did).await?
    } else if did.method() == "web" {
        at_its_host(guarded, did).await?
    } else {
        return Err(Error::Unsupported(did.method().into()));
    };
    // A server that answers with another DID's document could otherwise redirect an account.
    if document.id != *did {
        return Err(Error::Unusable("the DID document is another DID's".into()));
    }
    Ok(Arc::new(document))
}

async fn at_directory(directory: &Directory, did: &Did) -> Result<DidDocument, Error> {
    match directory.document(did).await {
        Ok(Some(document)) => Ok(document),
        Ok(None) => Err(Error::NotFound("DID")),
        Err(DirectoryError::Ended) => Err(Error::Ended),
        Err(error @ (DirectoryError::Away(_) | DirectoryError::Garbage(_))) => {
            Err(Error::Passing(error.to_string().into()))
        }
    }
}

/// Resolves a `did:web` at its own host. Paths are not supported (atproto DID spec, "Blessed DID
/// Methods"); a port works only for an origin that the operator listed.
async fn at_its_host(guarded: &GuardedClient, did: &Did) -> Result<DidDocument, Error> {
    let host = did.identifier().replace("%3A", ":").replace("%3a", ":");
    // In a `did:web`, `:` separates the parts of a path, and only a port may be percent-encoded.
    if did.identifier().contains([':', '/']) || host.contains('%') {
        return Err(Error::Unusable("a did:web with a path is not supported".into()));
    }
    // The guarded client still refuses loopback addresses, unless the operator listed the origin.
    let scheme = if host == "localhost" || host.starts_with("localhost:") { "http" } else { "https" };
    let url = format!("{scheme}://{host}/.well-known/did.json");
    let answer = guarded
        .get(&url, "application/did+ld+json, application/json", &LIMITS)
        .await
        .map_err(|error| external_failure(&error))?;
    match answer.status {
        StatusCode::OK => serde_json::from_slice(&answer.body)
            .map_err(|_| Error::Unusable("the answer of its host is not a DID document".into())),
        // Only these say that the DID does not exist. Other failures may pass, so they are not
        // cached.
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Error::NotFound("DID")),
        status => Err(Error::Passing(format!("its host answered {}", status.as_u16()).into())),
    }
}

/// Maps a failed request to an external server to what it means for the lookup.
pub(super) fn external_failure(error: &GuardedError) -> Error {
    match error {
        GuardedError::NoSuchName => Error::NotFound("name"),
        GuardedError::Refused(_)
        | GuardedError::TooLarge(_)
        | GuardedError::Redirects
        | GuardedError::Compressed => Error::Unusable(error.to_string().into()),
        GuardedError::Unreachable(_) | GuardedError::Slow | GuardedError::Broken(_) => {
            Error::Passing(error.to_string().into())
        }
    }
}

const LIMITS: Limits = Limits {
    total: Duration::from_secs(3),
    idle: Duration::from_secs(3),
    body_bytes: 256 * 1024,
    redirects: 0,
};
const REMEMBERED: usize = 20_000;

#[cfg(test)]
mod tests {
    use genkan_protocol::crypto::K256PrivateKey;
    use genkan_protocol::plc;
    use genkan_testing::{FakeDirectory, FakeSite, Trouble};
    use serde_json::json;

    use super::*;
    use crate::base::Origin;
    use crate::base::fetch::test_dns::{Reply, TestDns};
    use crate::base::fetch::{Dns, tls};

    async fn documents(directory: Directory, listed: Vec<Origin>) -> Documents {
        let dns = TestDns::start(|_, _| Reply::NoSuchName).await;
        let dns = Dns::new(&[dns.address()]).unwrap();
        let guarded = GuardedClient::new(dns, tls::client_config(None).unwrap(), listed);
        Documents::new(directory, guarded, Clock::System, Duration::from_secs(5))
    }

    #[tokio::test]
    async fn a_plc_did_is_asked_for_once_and_survives_the_directory() {
        let fake = FakeDirectory::start().await;
        let key = K256PrivateKey::from_bytes(&[7; 32]).unwrap();
        let handle = "alice.example.com".parse().unwrap();
        let keys = vec![key.public().to_did_key()];
        let data = plc::Data::of_account(keys, &key.public(), &handle, "https://oak.example.com");
        let (did, genesis) = plc::genesis(data, &key);
        let documents = documents(Directory::of(&fake), Vec::new()).await;
        assert_eq!(documents.resolve(&did, Freshness::Remembered).await, Err(Error::NotFound("DID")));
        fake.submit(&did, &genesis).unwrap();
        assert!(documents.resolve(&did, Freshness::Remembered).await.is_err(), "remembered as unknown");
        let document = documents.resolve(&did, Freshness::Asked).await.unwrap();
        assert_eq!(document.handle(), Some(handle));
        fake.trouble("*", Trouble::CutBefore);
        assert_eq!(documents.resolve(&did, Freshness::Remembered).await, Ok(document));
        assert!(documents.resolve(&did, Freshness::Asked).await.unwrap_err().is_passing());
    }

    #[tokio::test]
    async fn a_lookup_ends_at_its_time_limit() {
        let fake = FakeDirectory::start().await;
        fake.trouble("*", Trouble::Silent);
        let documents = Documents {
            within: Duration::from_millis(200),
            ..documents(Directory::of(&fake), Vec::new()).await
        };
        let did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
        let asking = documents.resolve(&did, Freshness::Remembered);
        let found = tokio::time::timeout(Duration::from_secs(1), asking).await.expect("in time");
        assert!(found.unwrap_err().is_passing());
    }

    #[tokio::test]
    async fn a_web_did_is_resolved_at_its_own_host_only() {
        let page = json!({"id": "did:web:other.example.com"}).to_string();
        let listed = FakeSite::start().await;
        listed.put("/.well-known/did.json", 200, "application/json", &page);
        let localhost: Origin = listed.localhost_url().parse().unwrap();
        let port = localhost.port();
        let fake = FakeDirectory::start().await;
        let documents = documents(Directory::of(&fake), vec![localhost]).await;
        let resolve = async |did: &str| documents.resolve(&did.parse().unwrap(), Freshness::Asked).await;
        let another = resolve(&format!("did:web:localhost%3A{port}")).await.unwrap_err();
        assert_eq!(another, Error::Unusable("the DID document is another DID's".into()));
        for refused in
            ["did:web:localhost", "did:web:127.0.0.1", "did:web:a.internal", "did:web:a.example.com%3A8443"]
        {
            assert!(matches!(resolve(refused).await, Err(Error::Unusable(_))), "{refused}");
        }
        assert!(matches!(resolve("did:web:example.com:user:alice").await, Err(Error::Unusable(_))));
        assert_eq!(resolve("did:web:nobody.example.com").await, Err(Error::NotFound("name")));
        assert!(matches!(resolve("did:key:z6Mk").await, Err(Error::Unsupported(_))));
    }
}
