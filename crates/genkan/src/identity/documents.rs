//! Resolution of DIDs to documents (<https://atproto.com/specs/did>).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use genkan_protocol::did_document::{AccountFacts, AccountFactsError, DidDocument};
use genkan_protocol::syntax::Did;
use http::StatusCode;
use serde_json::value::{RawValue, to_raw_value};

use super::memory::LookupCache;
use super::{Directory, DirectoryError, Error, Freshness};
use crate::base::fetch::{GuardedClient, GuardedError, Limits, Pool};
use crate::base::{CacheSize, Clock, Weigh};
use crate::limits::ClientNetwork;

/// Resolves DIDs, `did:plc` at the directory and `did:web` at its own host. Cheap to clone.
///
/// Anyone can publish a document and make Genkan resolve it. So only what is used of a document is
/// kept. The whole text is read for callers that pass it on, and kept in
/// [`HomeDocuments`](super::HomeDocuments).
#[derive(Clone, Debug)]
pub(crate) struct Documents {
    sources: Sources,
    facts: LookupCache<Arc<AccountFacts>>,
}

/// A DID document to pass on.
#[derive(Debug)]
pub(super) struct WholeDocument {
    pub(super) facts: AccountFacts,
    /// The document as Genkan writes it.
    pub(super) text: Box<RawValue>,
}

/// Where documents come from.
#[derive(Clone, Debug)]
struct Sources {
    directory: Directory,
    guarded: GuardedClient,
    /// The limit of one lookup as a whole.
    within: Duration,
}

impl Documents {
    pub(crate) fn new(directory: Directory, guarded: &GuardedClient, clock: Clock, within: Duration) -> Self {
        let guarded = guarded.in_pool(Pool::DidDocuments);
        Self { sources: Sources { directory, guarded, within }, facts: LookupCache::new(clock, FACTS) }
    }

    /// Returns the same documents, looked up with the places of another pool.
    pub(crate) fn in_pool(&self, pool: Pool) -> Self {
        let guarded = self.sources.guarded.in_pool(pool);
        Self { sources: Sources { guarded, ..self.sources.clone() }, ..self.clone() }
    }

    /// Returns the same documents, looked up for a client of Genkan, which gets a share of the places.
    pub(crate) fn caused_by(&self, client: ClientNetwork) -> Self {
        let guarded = self.sources.guarded.caused_by(client.address());
        Self { sources: Sources { guarded, ..self.sources.clone() }, ..self.clone() }
    }

    /// Returns what the document of `did` says about the account.
    pub(crate) async fn resolve(&self, did: &Did, freshness: Freshness) -> Result<Arc<AccountFacts>, Error> {
        let look_up = || {
            let (sources, asked) = (self.sources.clone(), did.clone());
            async move {
                let text = sources.text(&asked).await?;
                read_facts(&text, &asked).map(Arc::new)
            }
        };
        self.facts.get(did.as_str(), freshness, look_up).await
    }

    /// Fetches the whole document of `did`. Nothing of it is cached here.
    pub(super) async fn fetch_whole(&self, did: &Did) -> Result<WholeDocument, Error> {
        let text = self.sources.text(did).await?;
        // First, because the facts' reader bounds the tree that is built next.
        let facts = read_facts(&text, did)?;
        let document: DidDocument = serde_json::from_slice(&text).map_err(|_| not_a_document(did))?;
        let text = to_raw_value(&document).map_err(|_| not_a_document(did))?;
        Ok(WholeDocument { facts, text })
    }

    /// Returns what the document says about the account, if it is cached and young enough.
    pub(crate) fn recall(&self, did: &str) -> Option<Result<Arc<AccountFacts>, Error>> {
        self.facts.recall(did)
    }

    /// Drops a document from the cache, after a change that Genkan knows of.
    pub(crate) fn forget(&self, did: &str) {
        self.facts.forget(did);
    }
}

impl Sources {
    /// Fetches the document of `did` as its server writes it.
    async fn text(&self, did: &Did) -> Result<Bytes, Error> {
        let at_its_method = async {
            match did.method() {
                "plc" => at_directory(&self.directory, did).await,
                "web" => at_its_host(&self.guarded, did).await,
                method => Err(Error::Unsupported(method.into())),
            }
        };
        // One limit for the lookup as a whole. A slow server could meet the limit of every single
        // step.
        tokio::time::timeout(self.within, at_its_method)
            .await
            .map_err(|_| Error::Passing("the DID was not resolved in time".into()))?
    }
}

fn read_facts(text: &[u8], did: &Did) -> Result<AccountFacts, Error> {
    AccountFacts::parse(text, did).map_err(|error| match error {
        AccountFactsError::Malformed => not_a_document(did),
        AccountFactsError::AnotherDid | AccountFactsError::TooLarge(_) => {
            Error::Unusable(error.to_string().into())
        }
    })
}

fn not_a_document(did: &Did) -> Error {
    if did.is_plc() {
        // The directory writes the documents itself, so something between it and Genkan is broken.
        Error::Passing(DirectoryError::Garbage("an unreadable body".into()).to_string().into())
    } else {
        Error::Unusable("the answer of its host is not a DID document".into())
    }
}

async fn at_directory(directory: &Directory, did: &Did) -> Result<Bytes, Error> {
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
async fn at_its_host(guarded: &GuardedClient, did: &Did) -> Result<Bytes, Error> {
    let origin = origin_of_web(did.identifier())
        .ok_or_else(|| Error::Unusable("a did:web with a path is not supported".into()))?;
    let url = format!("{origin}/.well-known/did.json");
    let answer = guarded
        .get(&url, "application/did+ld+json, application/json", &LIMITS)
        .await
        .map_err(|error| external_failure(&error))?;
    match answer.status {
        StatusCode::OK => Ok(answer.body),
        // Only these say that the DID does not exist. Other failures may pass, so they are not
        // cached.
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Error::NotFound("DID")),
        status => Err(Error::Passing(format!("its host answered {}", status.as_u16()).into())),
    }
}

impl Weigh for AccountFacts {
    fn heap_bytes(&self) -> usize {
        let Self { id, handle, pds, signing_key: _ } = self;
        id.heap_bytes() + handle.heap_bytes() + pds.as_ref().map_or(0, Weigh::heap_bytes)
    }
}

/// Returns the origin, as text, at which the document of a `did:web` with this identifier is.
/// `None` if the identifier has a path, or something else than a port that is percent-encoded.
///
/// The origin is not checked: the guarded client refuses `localhost`, unless the operator listed it.
pub(crate) fn origin_of_web(identifier: &str) -> Option<String> {
    let host = identifier.replace("%3A", ":").replace("%3a", ":");
    // In a `did:web`, `:` separates the parts of a path, and only a port may be percent-encoded.
    if identifier.contains([':', '/']) || host.contains('%') {
        return None;
    }
    let scheme = if host == "localhost" || host.starts_with("localhost:") { "http" } else { "https" };
    Some(format!("{scheme}://{host}"))
}

/// Maps a failed request to an external server to what it means for the lookup.
pub(super) fn external_failure(error: &GuardedError) -> Error {
    match error {
        GuardedError::NoSuchName => Error::NotFound("name"),
        GuardedError::Busy => Error::Busy,
        error if error.is_passing() => Error::Passing(error.to_string().into()),
        error => Error::Unusable(error.to_string().into()),
    }
}

const LIMITS: Limits = Limits {
    total: Duration::from_secs(3),
    idle: Duration::from_secs(3),
    body_bytes: 256 * 1024,
    redirects: 0,
};
/// The most bytes of the cache of facts: some 20 000 accounts with a `did:plc`.
const FACTS: CacheSize = CacheSize { name: "document_facts", bytes: 16 << 20, typical: 700 };

#[cfg(test)]
mod tests {
    use genkan_protocol::crypto::K256PrivateKey;
    use genkan_protocol::json_bounds::MAX_VALUES;
    use genkan_protocol::plc;
    use genkan_testing::{FakeDirectory, FakeSite, Gate, Trouble};
    use serde_json::json;

    use super::*;
    use crate::base::fetch::test_dns::{Reply, TestDns};
    use crate::base::fetch::{Dns, tls};
    use crate::base::{Origin, assert_weighs};

    async fn documents(directory: Directory, listed: Vec<Origin>) -> Documents {
        let dns = TestDns::start(|_, _| Reply::NoSuchName).await;
        let dns = Dns::new(&[dns.address()]).unwrap();
        let guarded = GuardedClient::new(dns, tls::client_config(None).unwrap(), listed);
        Documents::new(directory, &guarded, Clock::of_process(), Duration::from_secs(5))
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
        assert_eq!(document.handle, Some(handle));
        fake.trouble("*", Trouble::CutBefore);
        assert_eq!(documents.resolve(&did, Freshness::Remembered).await, Ok(document));
        assert!(documents.resolve(&did, Freshness::Asked).await.unwrap_err().is_passing());
    }

    #[tokio::test]
    async fn a_lookup_ends_at_its_time_limit() {
        let fake = FakeDirectory::start().await;
        fake.trouble("*", Trouble::Silent);
        let mut documents = documents(Directory::of(&fake), Vec::new()).await;
        documents.sources.within = Duration::from_millis(200);
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

    #[tokio::test]
    async fn a_web_did_waits_for_no_place_of_other_calls() {
        let (directory, site, gate) = (FakeDirectory::start().await, FakeSite::start().await, Gate::closed());
        let origin = site.localhost_url();
        let documents = documents(Directory::of(&directory), vec![origin.parse().unwrap()]).await;
        site.trouble("/hang", Trouble::Held(gate.clone()));
        let url = format!("{origin}/hang");
        documents.sources.guarded.take_places(Pool::Other, 8, &url, || site.asked("/hang")).await;
        let did = format!("did:web:localhost%3A{}", site.address().port());
        site.put("/.well-known/did.json", 200, "application/json", json!({ "id": did }).to_string());
        let resolved = documents.resolve(&did.parse().unwrap(), Freshness::Asked).await;
        assert!(resolved.is_ok(), "{resolved:?}");
        gate.open();
    }

    #[test]
    fn documents_weigh_what_is_kept_of_them() {
        let labels = |length: usize| format!("{}example.com", "a.".repeat(length / 2));
        let facts_of = |did: &str, handle: &str, pds: &str| AccountFacts {
            id: did.parse().unwrap(),
            handle: Some(handle.parse().unwrap()),
            pds: Ok(pds.parse().unwrap()),
            signing_key: None,
        };
        let (did, handle, pds) = ("did:plc:ann", "ann.test", "https://pds.example.com");
        assert_weighs(|length| facts_of(&format!("did:web:{}", labels(length)), handle, pds));
        assert_weighs(|length| facts_of(did, &labels(length), pds));
        assert_weighs(|length| facts_of(did, handle, &format!("https://{}", labels(length))));
    }

    /// The memory of this process, in bytes.
    #[cfg(target_os = "linux")]
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn documents_full_of_small_values_take_little_memory() {
        let directory = FakeDirectory::start().await;
        let mut sites = Vec::new();
        for _ in 0..8 {
            sites.push(FakeSite::start().await);
        }
        let listed = sites.iter().map(|site| site.localhost_url().parse().unwrap()).collect();
        let documents = documents(Directory::of(&directory), listed).await;
        let before = resident();
        for site in &sites {
            let port = site.localhost_url().rsplit(':').next().unwrap().to_owned();
            let did = format!("did:web:localhost%3A{port}");
            let many = vec![r#"{"a":0}"#; 32_000].join(",");
            let page = format!(r#"{{"id":"{did}","more":[{many}]}}"#);
            site.put("/.well-known/did.json", 200, "application/json", &page);
            let did: Did = did.parse().unwrap();
            let refused = documents.resolve(&did, Freshness::Remembered).await.unwrap_err();
            assert!(matches!(&refused, Error::Unusable(why) if why.contains("too many")), "{refused:?}");
            assert!(documents.fetch_whole(&did).await.is_err());
            // Long texts are no values: such a document is read, and only the account is kept.
            let page = format!(r#"{{"id":"{did}","more":"{}"}}"#, "x".repeat(250_000));
            site.put("/.well-known/did.json", 200, "application/json", &page);
            documents.resolve(&did, Freshness::Asked).await.unwrap();
            site.put("/.well-known/did.json", 404, "text/plain", "");
        }
        assert!(sites.len() > 1);
        let grown = resident().saturating_sub(before);
        assert!(grown < 32 << 20, "{} MiB", grown >> 20);
    }

    /// As trees, they would take some 10 MiB each.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn of_documents_just_within_the_bounds_no_tree_is_kept() {
        let directory = FakeDirectory::start().await;
        let mut sites = Vec::new();
        for _ in 0..8 {
            sites.push(FakeSite::start().await);
        }
        let listed = sites.iter().map(|site| site.localhost_url().parse().unwrap()).collect();
        let documents = documents(Directory::of(&directory), listed).await;
        // 29 objects, one in another.
        let nested = format!("{}0{}", r#"{"a":"#.repeat(29), "}".repeat(29));
        let before = resident();
        for site in &sites {
            let did = format!("did:web:localhost%3A{}", site.address().port());
            let many = vec![&*nested; MAX_VALUES / 30 - 1].join(",");
            let page = format!(r#"{{"id":"{did}","more":[{many}]}}"#);
            site.put("/.well-known/did.json", 200, "application/json", &page);
            let did: Did = did.parse().unwrap();
            documents.resolve(&did, Freshness::Remembered).await.unwrap();
            documents.fetch_whole(&did).await.unwrap();
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 32 << 20, "{} MiB", grown >> 20);
    }
}
