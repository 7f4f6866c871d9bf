//! Looking a client up: its documents from the cache, the database or its server, and the
//! operator's trust in it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::oauth::client_id::ClientId;
use genkan_protocol::oauth::client_metadata::{Authentication, ClientMetadata, Keys};
use genkan_protocol::oauth::error::OAuthErrorCode as Code;
use genkan_protocol::oauth::jwk::JwkSet;

use super::documents::{self, Document, DocumentError};
use super::view::ClientView;
use crate::base::fetch::{GuardedClient, Pool};
use crate::base::single_flight::SingleFlight;
use crate::base::{ByteCache, CacheSize, Clock, Origin, Timestamp, Weigh};
use crate::db::Db;
use crate::db::audit::{self, Actor};
use crate::db::feed::{self, Change};
use crate::limits::StorageBudget;
use crate::oauth::client_trust::{BLOCKED, ClientTrust};
use crate::oauth::error::Error;
use crate::oauth::sql::clients;

/// A client whose metadata is known.
#[derive(Clone, Debug)]
pub(in crate::oauth) struct Client {
    pub(in crate::oauth) id: ClientId,
    pub(in crate::oauth) metadata: Arc<ClientMetadata>,
    pub(in crate::oauth) trusted: bool,
    /// Whether the operator has registered it for plain Bearer tokens, so that it needs no proof.
    pub(in crate::oauth) bearer: bool,
}

impl Client {
    /// Whether earlier consents count for it. Anyone can pretend to be a public client.
    pub(in crate::oauth) fn is_believed(&self) -> bool {
        self.trusted || self.metadata.is_confidential()
    }
}

/// The purpose of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::oauth) enum Purpose {
    /// A new sign-in, which needs documents that are at most minutes old. `network` is that of the
    /// caller, who may be anyone.
    Begin { network: IpAddr },
    /// The continuation of a grant, for which an older copy is enough while the client's server is
    /// away.
    GoOn,
    /// A caller without a live code or token. Copies of any age are enough, and no server is asked:
    /// an invented `client_id` must not make Genkan connect anywhere.
    Recall,
}

/// Looks clients up. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::oauth) struct Clients {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    db: Db,
    pub(super) clock: Clock,
    guarded: GuardedClient,
    /// Origins that the operator listed. Clients there need no public name.
    listed: Vec<String>,
    development: bool,
    metadata: ByteCache<String, CachedDocument<ClientMetadata>>,
    key_sets: ByteCache<String, CachedDocument<JwkSet>>,
    single_flight: SingleFlight<Result<String, DocumentError>>,
    /// For documents of clients that strangers name.
    new_documents: StorageBudget,
}

#[derive(Debug)]
struct CachedDocument<T> {
    value: Arc<T>,
    /// The length of its text.
    length: usize,
    /// When it was fetched.
    at: Timestamp,
    /// When its server was last asked.
    asked_at: Timestamp,
}

impl<T> Clone for CachedDocument<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), ..*self }
    }
}

impl<T: Weigh> Weigh for CachedDocument<T> {
    fn heap_bytes(&self) -> usize {
        // Each text of the document is kept at most twice, in an allocation that may have room to
        // spare.
        self.value.heap_bytes() + 4 * self.length
    }
}

impl Weigh for ClientMetadata {
    /// Without its texts, which count by the length of the document.
    fn heap_bytes(&self) -> usize {
        let keys = match &self.authentication {
            Authentication::PrivateKeyJwt { keys: Keys::Here(set), .. } => set.heap_bytes(),
            _ => 0,
        };
        self.redirect_uris.len() * ITEM + keys
    }
}

impl Weigh for JwkSet {
    /// Without the numbers of RSA keys, which count by the length of the document.
    fn heap_bytes(&self) -> usize {
        self.keys.len() * ITEM
    }
}

/// The most bytes of a redirect URI or a key beside its texts.
const ITEM: usize = 256;

impl Clients {
    pub(in crate::oauth) fn new(
        db: Db,
        clock: Clock,
        guarded: GuardedClient,
        listed: &[Origin],
        development: bool,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                db,
                clock,
                guarded,
                listed: listed.iter().map(ToString::to_string).collect(),
                development,
                metadata: METADATA.build(),
                key_sets: KEY_SETS.build(),
                single_flight: SingleFlight::default(),
                new_documents: StorageBudget::new(NEW_DOCUMENTS, NEW_DOCUMENTS_OF_A_NETWORK),
            }),
        }
    }

    #[cfg(test)]
    pub(in crate::oauth) fn guarded(&self) -> &GuardedClient {
        &self.inner.guarded
    }

    /// Finds a client by its id and reads its metadata, unless the operator has blocked it. Returns
    /// `None` only for [`Purpose::Recall`], if nothing is known of the client.
    pub(in crate::oauth) async fn find(
        &self,
        client_id: &str,
        purpose: Purpose,
    ) -> Result<Option<Client>, Error> {
        let inner = &*self.inner;
        let id = ClientId::parse(client_id, &inner.listed)
            .map_err(|error| Error::refused(Code::InvalidClientId, error.to_string()))?;
        if id.is_development() {
            if !inner.development {
                let why = "development clients (http://localhost) are not allowed on this server";
                return Err(Error::refused(Code::InvalidClientId, why));
            }
            let metadata = ClientMetadata::of_development(&id)
                .map_err(|error| Error::refused(Code::InvalidClientMetadata, error.to_string()))?;
            let metadata = Arc::new(metadata);
            return Ok(Some(Client { id, metadata, trusted: false, bearer: false }));
        }
        // Read from the database each time, so that the operator's decision counts from the next
        // call on every replica.
        let (trust, bearer) =
            clients::trust(&inner.db, client_id).await?.unwrap_or((ClientTrust::Known, false));
        if trust == ClientTrust::Blocked {
            return Err(Error::refused(Code::InvalidClient, "the client is blocked on this server"));
        }
        let Some(metadata) = self.metadata(&id, purpose).await? else { return Ok(None) };
        // atproto requires DPoP-bound tokens. The operator's registration is the only exception.
        if !bearer && let Err(error) = metadata.require_binding() {
            return Err(Error::refused(Code::InvalidClientMetadata, error.to_string()));
        }
        Ok(Some(Client { id, metadata, trusted: trust == ClientTrust::Trusted, bearer }))
    }

    /// Finds a client as [`find`](Self::find) does, for a new sign-in.
    pub(in crate::oauth) async fn look_up(&self, client_id: &str, network: IpAddr) -> Result<Client, Error> {
        let found = self.find(client_id, Purpose::Begin { network }).await?;
        // Its server is asked for what is not known, so this cannot happen.
        found.ok_or_else(|| Error::refused(Code::InvalidClientId, "the client is not known"))
    }

    /// Whether the operator has registered a client for plain Bearer tokens.
    pub(in crate::oauth) async fn gets_bearer(&self, client_id: &str) -> crate::db::Result<bool> {
        Ok(clients::trust(&self.inner.db, client_id).await?.is_some_and(|(_, bearer)| bearer))
    }

    pub(in crate::oauth) async fn set_bearer(&self, client_id: &str, bearer: bool) -> Result<(), Error> {
        let now = self.inner.clock.now();
        let mut tx = self.inner.db.begin().await?;
        clients::set_bearer(&mut tx, client_id, bearer, now).await?;
        let word = if bearer { "bearer" } else { "dpop" };
        audit::record(&mut tx, now, Actor::Operator, "oauth.client", client_id, word).await?;
        Ok(tx.commit().await?)
    }

    /// The view for people of a client whose metadata was read when it pushed its request.
    pub(in crate::oauth) async fn shown(&self, client_id: &str) -> crate::db::Result<ClientView> {
        let inner = &*self.inner;
        let stored = clients::find(&inner.db, client_id).await?;
        let trusted = stored.as_ref().is_some_and(|stored| stored.trust == ClientTrust::Trusted);
        let id = ClientId::parse(client_id, &inner.listed).ok();
        let metadata = match (&id, stored.and_then(|stored| stored.document)) {
            (Some(id), Some((document, _))) => ClientMetadata::parse(document.as_bytes(), id).ok(),
            _ => None,
        };
        let shown =
            |read: fn(&ClientMetadata) -> &Option<String>| metadata.as_ref().and_then(|it| read(it).clone());
        Ok(ClientView {
            host: id.as_ref().map_or_else(|| client_id.to_owned(), |id| id.host().to_owned()),
            development: id.as_ref().is_some_and(ClientId::is_development),
            id: client_id.to_owned(),
            trusted,
            // Clients choose their own names and logos, so only trusted clients may show them. Only
            // the host in the client id proves an identity.
            name: shown(|it| &it.client_name).filter(|_| trusted),
            logo: shown(|it| &it.logo_uri).filter(|_| trusted),
            home: shown(|it| &it.client_uri).filter(|_| trusted),
            terms: shown(|it| &it.tos_uri),
            policy: shown(|it| &it.policy_uri),
        })
    }

    /// Sets the operator's trust. It counts from the client's next call. The caller ends the
    /// client's grants.
    pub(in crate::oauth) async fn set_trust(&self, client_id: &str, trust: ClientTrust) -> Result<(), Error> {
        let now = self.inner.clock.now();
        let mut tx = self.inner.db.begin().await?;
        clients::set_trust(&mut tx, client_id, trust, now).await?;
        audit::record(&mut tx, now, Actor::Operator, "oauth.client", client_id, trust.as_str()).await?;
        if trust == ClientTrust::Blocked {
            // Every process forgets the tokens of this client at once.
            feed::note(&mut tx, Change::Grant, &format!("{BLOCKED}{client_id}")).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn metadata(&self, id: &ClientId, purpose: Purpose) -> Result<Option<Arc<ClientMetadata>>, Error> {
        let memory = &self.inner.metadata;
        let read = |text: &str| ClientMetadata::parse(text.as_bytes(), id).map_err(|error| error.to_string());
        let source = Source { client_id: id.as_str(), url: id.as_str(), what: Document::Metadata };
        self.document(memory, source, purpose, false, read, ClientMetadata::is_confidential)
            .await
            .map(Some)
            .or_else(|why| match why {
                NoDocument::Unknown => Ok(None),
                why => Err(why.into_error(Code::InvalidClientMetadata)),
            })
    }

    /// Returns the client's public keys. `again` means that the cached set lacks one, so the server
    /// is asked again, unless that happened a moment ago.
    pub(super) async fn keys(
        &self,
        client: &Client,
        keys: &Keys,
        purpose: Purpose,
        again: bool,
    ) -> Result<Arc<JwkSet>, Error> {
        let url = match keys {
            Keys::Here(set) => return Ok(Arc::new(set.clone())),
            Keys::At(url) => url,
        };
        let read = |text: &str| JwkSet::parse(text.as_bytes()).map_err(|error| error.to_string());
        let source = Source { client_id: client.id.as_str(), url: url.as_str(), what: Document::KeySet };
        self.document(&self.inner.key_sets, source, purpose, again, read, |_| true)
            .await
            .map_err(|why| why.into_error(Code::InvalidClientMetadata))
    }

    /// Returns a document from the cache, the database or its server, or the last good copy if the
    /// server is away.
    async fn document<T: Weigh>(
        &self,
        memory: &ByteCache<String, CachedDocument<T>>,
        source: Source<'_>,
        purpose: Purpose,
        again: bool,
        read: impl Fn(&str) -> Result<T, String>,
        is_confidential: impl Fn(&T) -> bool,
    ) -> Result<Arc<T>, NoDocument> {
        let now = self.inner.clock.now();
        let mut known = memory.get(source.url);
        let mut stored_bytes = 0;
        // Another replica may have fetched it meanwhile.
        if known.as_ref().is_none_or(|known| !now.is_within(FRESH, known.at))
            && let Some((text, at)) = self.stored(source).await?
        {
            stored_bytes = text.len();
            if known.as_ref().is_none_or(|known| known.at < at)
                && let Ok(value) = read(&text)
            {
                let stored = CachedDocument { value: Arc::new(value), length: text.len(), at, asked_at: at };
                memory.insert(source.url.to_owned(), stored.clone());
                known = Some(stored);
            }
        }
        if purpose == Purpose::Recall {
            return known.map(|known| known.value).ok_or(NoDocument::Unknown);
        }
        // `again` means that a key is missing. A shorter pause still applies, so that assertions
        // with invented key ids cannot make Genkan ask the client's server without limit.
        let pause = if again { ASK_AGAIN } else { FRESH };
        if let Some(known) = &known
            && now.is_within(pause, known.at)
        {
            return Ok(Arc::clone(&known.value));
        }
        // Not every refresh waits for a server that is away.
        let lately = known.as_ref().filter(|known| {
            purpose == Purpose::GoOn && known.asked_at > known.at && now.is_within(ASK_AGAIN, known.asked_at)
        });
        if let Some(known) = lately {
            return Ok(Arc::clone(&known.value));
        }
        let (why, is_busy) = match self.ask(source, purpose).await {
            Ok(text) => match read(&text) {
                Ok(value) => {
                    let value = Arc::new(value);
                    let (value_of, length) = (Arc::clone(&value), text.len());
                    let fetched = CachedDocument { value: value_of, length, at: now, asked_at: now };
                    // Cached before it is stored: a database that is away must not cost the next
                    // caller another fetch.
                    memory.insert(source.url.to_owned(), fetched);
                    if self.may_store(purpose, text.len(), stored_bytes, now) {
                        self.store(source, &text, now).await?;
                    }
                    return Ok(value);
                }
                Err(why) => (format!("{}: {why}", source.url), false),
            },
            Err(error) => (error.to_string(), error.is_busy),
        };
        match known {
            Some(known) if now.since(known.at) < patience(purpose, is_confidential(&known.value)) => {
                // Only `asked_at` moves, and only if the host was asked. The copy keeps its age, so
                // the patience with an absent host has an end.
                if !is_busy {
                    let tried = CachedDocument { asked_at: now, ..known.clone() };
                    memory.insert(source.url.to_owned(), tried);
                }
                Ok(known.value)
            }
            _ if is_busy => Err(NoDocument::Busy),
            _ => Err(NoDocument::Refused(why)),
        }
    }

    async fn ask(&self, source: Source<'_>, purpose: Purpose) -> Result<String, DocumentError> {
        let guarded = match purpose {
            Purpose::Begin { network } => self.inner.guarded.in_pool(Pool::PushedClients).caused_by(network),
            Purpose::GoOn | Purpose::Recall => self.inner.guarded.in_pool(Pool::GrantedClients),
        };
        let fetching = || {
            let (guarded, url, what) = (guarded.clone(), source.url.to_owned(), source.what);
            async move { documents::fetch(&guarded, &url, what).await }
        };
        let has_not_begun =
            |fetched: &Result<String, DocumentError>| fetched.as_ref().is_err_and(|error| error.is_busy);
        let broken = || DocumentError::new(source.url, "could not be fetched");
        // Not shared between the two: the fetch of a push may wait for a place for long.
        let key = format!("{} {}", matches!(purpose, Purpose::Begin { .. }), source.url);
        let fetched = self.inner.single_flight.share(&key, fetching, has_not_begun).await;
        fetched.unwrap_or_else(|| Err(broken()))
    }

    /// Whether a document may be stored. Without its row a client still signs people in: its
    /// documents are fetched again where they are needed, and not kept for times when its server is
    /// away.
    fn may_store(&self, purpose: Purpose, bytes: usize, stored_bytes: usize, now: Timestamp) -> bool {
        let Purpose::Begin { network } = purpose else { return true };
        bytes <= stored_bytes || self.inner.new_documents.spend(network, bytes - stored_bytes, now)
    }

    async fn stored(&self, source: Source<'_>) -> crate::db::Result<Option<(String, Timestamp)>> {
        let stored = clients::find(&self.inner.db, source.client_id).await?;
        Ok(stored.and_then(|stored| match source.what {
            Document::Metadata => stored.document,
            Document::KeySet => stored.key_set,
        }))
    }

    async fn store(&self, source: Source<'_>, text: &str, now: Timestamp) -> crate::db::Result<()> {
        let mut tx = self.inner.db.begin().await?;
        match source.what {
            Document::Metadata => clients::put_document(&mut tx, source.client_id, text, now).await?,
            Document::KeySet => clients::put_keys(&mut tx, source.client_id, text, now).await?,
        }
        tx.commit().await
    }
}

#[derive(Clone, Copy)]
struct Source<'a> {
    client_id: &'a str,
    url: &'a str,
    what: Document,
}

enum NoDocument {
    /// Nothing is known of the document, and its server was not asked.
    Unknown,
    /// Its server was not asked, because too many calls are under way.
    Busy,
    Refused(String),
    Storage(crate::db::Error),
}

impl From<crate::db::Error> for NoDocument {
    fn from(cause: crate::db::Error) -> Self {
        Self::Storage(cause)
    }
}

impl NoDocument {
    fn into_error(self, code: Code) -> Error {
        match self {
            Self::Unknown => Error::nothing_live(),
            Self::Busy => Error::Busy,
            Self::Refused(why) => Error::refused(code, why),
            Self::Storage(cause) => Error::Storage(cause),
        }
    }
}

/// The age up to which a copy is used while its server is away.
fn patience(purpose: Purpose, confidential: bool) -> Duration {
    match (purpose, confidential) {
        (Purpose::Begin { .. }, _) => Duration::ZERO,
        // A confidential client may have removed its keys meanwhile.
        (Purpose::GoOn | Purpose::Recall, true) => Duration::from_hours(7 * 24),
        (Purpose::GoOn | Purpose::Recall, false) => Duration::from_hours(90 * 24),
    }
}

/// Bytes of new documents that pushed requests cause to be stored, per hour.
const NEW_DOCUMENTS: u64 = 64 << 20;
const NEW_DOCUMENTS_OF_A_NETWORK: u64 = 4 << 20;
/// The most bytes of each of the two caches: some 2000 documents.
const METADATA: CacheSize = CacheSize { name: "app_metadata", bytes: 32 << 20, typical: 16 << 10 };
const KEY_SETS: CacheSize = CacheSize { name: "app_keys", ..METADATA };
const FRESH: Duration = Duration::from_mins(10);
const ASK_AGAIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use genkan_protocol::crypto::P256PrivateKey;
    use genkan_protocol::oauth::jwk::Jwk;
    use genkan_protocol::oauth::jws::Algorithm;
    use genkan_protocol::oauth::redirect_uri::RedirectUri;

    use super::*;
    use crate::base::assert_weighs;

    #[test]
    fn a_document_weighs_what_its_text_and_its_lists_take() {
        let at = Timestamp::from_seconds(1);
        let of = |set: JwkSet, length| CachedDocument { value: Arc::new(set), length, at, asked_at: at };
        assert_weighs(|length| of(JwkSet::default(), length));
        let key = Jwk::of(&P256PrivateKey::from_bytes(&[5; 32]).unwrap().public());
        let set = JwkSet { keys: vec![key; JwkSet::MAX_KEYS] };
        let bytes_of_keys = set.keys.len() * size_of::<Jwk>();
        assert!(of(set.clone(), 0).heap_bytes() >= bytes_of_keys);

        let id = ClientId::parse("http://localhost", &[]).unwrap();
        let mut client = ClientMetadata::of_development(&id).unwrap();
        let redirect = client.redirect_uris.pop().unwrap();
        client.redirect_uris = vec![redirect; ClientMetadata::MAX_REDIRECTS];
        let bytes_of_redirects = client.redirect_uris.len() * size_of::<RedirectUri>();
        assert!(client.heap_bytes() >= bytes_of_redirects);
        client.authentication =
            Authentication::PrivateKeyJwt { alg: Algorithm::Es256, keys: Keys::Here(set) };
        assert!(client.heap_bytes() >= bytes_of_redirects + bytes_of_keys);
    }
}
