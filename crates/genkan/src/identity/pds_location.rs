//! PDS locations: from an account's DID or handle to the PDS that its DID document names.

use std::sync::Arc;

use genkan_protocol::did_document::AccountFacts;
use genkan_protocol::syntax::{Did, Handle};

use super::{Documents, Error, Freshness, Handles};
use crate::base::{ByteCache, CacheSize, Clock, Origin, Timestamp};
use crate::limits::ClientNetwork;

/// An account, and the PDS that its document names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PdsLocation {
    pub(crate) did: Did,
    pub(crate) pds: Origin,
}

/// Why the PDS location of an account is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PdsLocationError {
    /// The DID or handle was not resolved.
    #[error("{0}")]
    Unresolved(#[from] Error),
    /// The handle leads to a DID whose document names another handle.
    #[error("the handle leads to a DID whose document does not name the handle")]
    Unconfirmed,
    /// The document names no PDS, or one that is neither an https origin nor listed by the
    /// operator.
    #[error("the DID document names no PDS with an https origin")]
    NoPds,
}

/// Finds locations, with the cached documents and handles. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct PdsLocations {
    documents: Documents,
    handles: Handles,
    /// Origins that the operator listed; they need not be https.
    listed: Arc<[Origin]>,
    clock: Clock,
    /// The time of the last fresh lookup of each DID. Any client can cause one, and each costs the
    /// directory a request.
    asked: ByteCache<Did, Timestamp>,
}

impl PdsLocations {
    pub(crate) fn new(documents: Documents, handles: Handles, listed: &[Origin], clock: Clock) -> Self {
        Self { documents, handles, listed: listed.into(), clock, asked: ASKED.build() }
    }

    /// Returns the same locations, looked up for a client of Genkan, which gets a share of the places.
    pub(crate) fn caused_by(&self, client: ClientNetwork) -> Self {
        Self {
            documents: self.documents.caused_by(client),
            handles: self.handles.caused_by(client),
            ..self.clone()
        }
    }

    /// Returns the location of a DID, if it is cached.
    pub(crate) fn recall(&self, did: &str) -> Option<Result<PdsLocation, PdsLocationError>> {
        Some(
            self.documents
                .recall(did)?
                .map_err(PdsLocationError::from)
                .and_then(|document| self.of(&document)),
        )
    }

    /// Returns the location of a handle, if both its DID and the document are cached.
    pub(crate) fn recall_handle(&self, handle: &str) -> Option<Result<PdsLocation, PdsLocationError>> {
        let did = match self.handles.recall(handle)? {
            Ok(did) => did,
            Err(error) => return Some(Err(error.into())),
        };
        let document = match self.documents.recall(did.as_str())? {
            Ok(document) => document,
            Err(error) => return Some(Err(error.into())),
        };
        Some(self.confirmed(handle, &document))
    }

    /// Finds the location of a DID.
    pub(crate) async fn find(
        &self,
        did: &Did,
        freshness: Freshness,
    ) -> Result<PdsLocation, PdsLocationError> {
        let document = self.documents.resolve(did, self.limited(did, freshness)).await?;
        self.of(&document)
    }

    /// Finds the location of a handle. The handle must lead to the DID, and the DID's document must
    /// name the handle.
    pub(crate) async fn find_by_handle(
        &self,
        handle: &Handle,
        freshness: Freshness,
    ) -> Result<PdsLocation, PdsLocationError> {
        // Handle and document have caches of their own, so each is asked with its own freshness.
        let did = self.handles.resolve(handle, freshness).await?;
        let document = self.documents.resolve(&did, self.limited(&did, freshness)).await?;
        self.confirmed(handle.as_str(), &document)
    }

    fn confirmed(&self, handle: &str, document: &AccountFacts) -> Result<PdsLocation, PdsLocationError> {
        let claimed = &document.handle;
        // Both directions must agree (atproto Handle): anyone can point a domain at another
        // account's DID.
        if claimed.as_ref().is_some_and(|claimed| claimed.as_str().eq_ignore_ascii_case(handle)) {
            self.of(document)
        } else {
            Err(PdsLocationError::Unconfirmed)
        }
    }

    fn of(&self, document: &AccountFacts) -> Result<PdsLocation, PdsLocationError> {
        let pds = document.pds.clone().map_err(|_| PdsLocationError::NoPds)?;
        // Tokens and private data go to this origin, so it must be https. Listed origins are the
        // operator's own.
        if pds.is_https() || self.listed.contains(&pds) {
            Ok(PdsLocation { did: document.id.clone(), pds })
        } else {
            Err(PdsLocationError::NoPds)
        }
    }

    /// [`Freshness::Asked`] at most once in [`ASKED_AT_MOST_EVERY`] per DID.
    fn limited(&self, did: &Did, freshness: Freshness) -> Freshness {
        if freshness == Freshness::Remembered {
            return freshness;
        }
        let now = self.clock.now();
        if self.asked.get(did).is_some_and(|at| now.is_within(ASKED_AT_MOST_EVERY, at)) {
            return Freshness::Remembered;
        }
        // Recorded before the question is asked, so that failures are limited as well.
        self.asked.insert(did.clone(), now);
        Freshness::Asked
    }
}

/// The most bytes of `asked`: some 10 000 of a `did:plc`.
const ASKED: CacheSize = CacheSize { name: "fresh_lookups", bytes: 2 << 20, typical: 200 };
const ASKED_AT_MOST_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use genkan_protocol::crypto::K256PrivateKey;
    use genkan_protocol::plc;
    use genkan_testing::{FakeDirectory, Trouble};

    use super::*;
    use crate::base::ManualClock;
    use crate::base::fetch::test_dns::{Reply, TestDns};
    use crate::base::fetch::{Dns, GuardedClient, tls};
    use crate::identity::Directory;

    struct LocationHarness {
        directory: FakeDirectory,
        locations: PdsLocations,
        clock: ManualClock,
        _dns: TestDns,
    }

    /// `alice.example.com` and `mallory.example.com` both lead to the DID that is handed back.
    async fn harness(endpoint: &str) -> (LocationHarness, Did) {
        let directory = FakeDirectory::start().await;
        let (did, genesis) = account(endpoint);
        directory.submit(&did, &genesis).unwrap();
        let text = format!("did={did}");
        let dns = TestDns::start(move |name, _| match name {
            "_atproto.alice.example.com." | "_atproto.mallory.example.com." => Reply::texts(&[&[&text]]),
            _ => Reply::NoSuchName,
        })
        .await;
        let names = Dns::new(&[dns.address()]).unwrap();
        let clock = ManualClock::at(Timestamp::from_seconds(1000));
        let guarded = GuardedClient::new(names, tls::client_config(None).unwrap(), Vec::new());
        let within = Duration::from_secs(5);
        let documents = Documents::new(Directory::of(&directory), &guarded, clock.clock(), within);
        let handles = Handles::new(&guarded, clock.clock(), within);
        let listed = ["http://localhost:2583".parse().unwrap()];
        let locations = PdsLocations::new(documents, handles, &listed, clock.clock());
        (LocationHarness { directory, locations, clock, _dns: dns }, did)
    }

    fn key() -> K256PrivateKey {
        K256PrivateKey::from_bytes(&[7; 32]).unwrap()
    }

    fn data(endpoint: &str) -> plc::Data {
        let keys = vec![key().public().to_did_key()];
        plc::Data::of_account(keys, &key().public(), &"alice.example.com".parse().unwrap(), endpoint)
    }

    fn account(endpoint: &str) -> (Did, plc::Operation) {
        plc::genesis(data(endpoint), &key())
    }

    #[tokio::test]
    async fn an_account_is_found_by_did_and_by_a_handle_that_its_document_claims() {
        let (LocationHarness { locations, directory, .. }, did) = harness("https://pds.example.com").await;
        assert_eq!(locations.recall(did.as_str()), None);
        let location = PdsLocation { did: did.clone(), pds: "https://pds.example.com".parse().unwrap() };
        assert_eq!(locations.find(&did, Freshness::Remembered).await, Ok(location.clone()));
        assert_eq!(locations.recall(did.as_str()), Some(Ok(location.clone())));
        let [alice, mallory, nobody] = ["alice.example.com", "mallory.example.com", "nobody.example.com"]
            .map(|text| text.parse::<Handle>().unwrap());
        let find = async |handle: &Handle| locations.find_by_handle(handle, Freshness::Remembered).await;
        assert_eq!(find(&alice).await, Ok(location.clone()));
        assert_eq!(locations.recall_handle("alice.example.com"), Some(Ok(location)));
        assert_eq!(find(&mallory).await, Err(PdsLocationError::Unconfirmed));
        assert_eq!(locations.recall_handle("mallory.example.com"), Some(Err(PdsLocationError::Unconfirmed)));
        assert!(matches!(find(&nobody).await, Err(PdsLocationError::Unresolved(_))));
        let unknown = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
        directory.trouble("*", Trouble::CutBefore);
        let trouble = locations.find(&unknown, Freshness::Remembered).await;
        assert!(matches!(trouble, Err(PdsLocationError::Unresolved(error)) if error.is_passing()));
        assert_eq!(locations.recall(unknown.as_str()), None, "trouble is not remembered");
    }

    #[tokio::test]
    async fn a_pds_is_an_https_origin_or_listed() {
        for (endpoint, found) in [
            ("https://pds.example.com", true),
            ("https://pds.example.com/", true),
            ("http://localhost:2583", true),
            ("http://pds.example.com", false),
            ("http://localhost:2584", false),
            ("https://pds.example.com/xrpc", false),
            ("https://me@pds.example.com", false),
            ("https://pds.example.com?x", false),
        ] {
            let (harness, did) = harness(endpoint).await;
            let location = harness.locations.find(&did, Freshness::Remembered).await;
            assert_eq!(location.is_ok(), found, "{endpoint}");
            assert!(found || location == Err(PdsLocationError::NoPds), "{endpoint}");
        }
    }

    #[tokio::test]
    async fn a_move_is_seen_on_a_fresh_lookup_and_fresh_lookups_are_limited() {
        let (LocationHarness { locations, directory, clock, .. }, did) =
            harness("https://old.example.com").await;
        let ask = async |freshness| locations.find(&did, freshness).await.unwrap().pds.to_string();
        assert_eq!(ask(Freshness::Remembered).await, "https://old.example.com");
        let genesis = account("https://old.example.com").1;
        let mut moves = plc::update(&genesis.cid(), data("https://new.example.com"), &key());
        directory.submit(&did, &moves).unwrap();
        assert_eq!(ask(Freshness::Remembered).await, "https://old.example.com");
        assert_eq!(ask(Freshness::Asked).await, "https://new.example.com");
        moves = plc::update(&moves.cid(), data("https://newer.example.com"), &key());
        directory.submit(&did, &moves).unwrap();
        assert_eq!(ask(Freshness::Asked).await, "https://new.example.com", "too soon");
        clock.advance(Duration::from_secs(11));
        assert_eq!(ask(Freshness::Asked).await, "https://newer.example.com");
    }
}
