//! The service of this room. Its methods are in files named after what they do.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use genkan_protocol::oauth::dpop::ProofKey;
use genkan_protocol::oauth::jwk::JwkSet;
use serde_json::Value;

use super::backoff::Backoff;
use super::client::{Client, ClientIdentity, ClientKeys, ReloadKeys};
use super::counting::Counting;
use super::credential::Credential;
use super::discovery::{Discovery, Server};
use super::error::UseError;
use super::id::LinkId;
use super::link_grants::LinkGrants;
use super::nonces::{LinkNonce, Nonces};
use super::server_client::ServerClient;
use super::sql;
use super::sql::links::State;
use crate::base::fetch::{GuardedClient, Pool};
use crate::base::seal::Sealer;
use crate::base::single_flight::SingleFlight;
use crate::base::{CacheSize, Clock, Origin, Timestamp, random};
use crate::db::feed::{Change, Feed};
use crate::db::sweep::{Sweep, sweep};
use crate::db::{self, Db, FeedCache};
use crate::identity::Identity;
use crate::limits::StorageBudget;
use crate::telemetry::metrics::Metrics;

/// The operator's settings for linked accounts.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) public_url: Origin,
    /// Genkan's name on the consent pages of other servers.
    pub(crate) client_name: String,
    /// The scopes of the stable client document.
    pub(crate) scope: String,
    /// Links of the document to pages, such as the terms of service.
    pub(crate) pages: Vec<(&'static str, String)>,
    pub(crate) private_origins: Vec<Origin>,
}

/// Everything this room depends on.
pub(crate) struct Dependencies {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) feed: Feed,
    pub(crate) sealer: Sealer,
    pub(crate) identity: Identity,
    pub(crate) guarded: GuardedClient,
    pub(crate) keys: ClientKeys,
    pub(crate) reload_keys: ReloadKeys,
    pub(crate) grants: Arc<dyn LinkGrants>,
    pub(crate) metrics: Metrics,
}

/// The sessions of linked accounts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Links {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) feed: Feed,
    pub(super) sealer: Sealer,
    pub(super) discovery: Discovery,
    pub(super) client: Client,
    pub(super) reload_keys: ReloadKeys,
    /// Credentials by link.
    pub(super) memory: FeedCache<LinkId, Arc<Credential>>,
    pub(super) single_flight: SingleFlight<Result<Arc<Credential>, UseError>>,
    /// Nonces of authorization servers. They differ from those of the PDS, even if both run on one
    /// machine.
    pub(super) server_nonces: Nonces,
    pub(super) pds_nonces: Nonces,
    pub(super) backoff: Backoff,
    pub(super) metrics: Metrics,
    /// The counts by state that the job is still working on.
    pub(super) counting: Mutex<HashMap<State, Counting>>,
    /// Servers that are being told now, with the number of calls.
    pub(super) telling: Mutex<HashMap<String, usize>>,
    /// The name of this process in leases.
    pub(super) holder: String,
    pub(super) grants: Arc<dyn LinkGrants>,
    /// For client documents of sign-ins that strangers begin.
    pub(super) new_clients: StorageBudget,
}

impl Links {
    pub(crate) fn new(with: Dependencies, settings: Settings) -> Self {
        let Dependencies { db, clock, feed, sealer, identity, guarded, keys, reload_keys, grants, metrics } =
            with;
        let anyone = Discovery {
            documents: identity.documents,
            handles: identity.handles,
            guarded,
            listed: settings.private_origins.into(),
        };
        // Sign-ins and refreshes must begin while strangers let other lookups hang.
        let discovery = anyone.in_pool(Pool::SignIns);
        let client =
            Client::new(settings.public_url, settings.client_name, settings.scope, settings.pages, keys);
        let memory = FeedCache::new(&feed, Change::Link, CREDENTIALS, |entries, link| {
            entries.remove(link);
        });
        let inner = Inner {
            db,
            clock,
            sealer,
            discovery,
            client,
            reload_keys,
            memory,
            single_flight: SingleFlight::default(),
            server_nonces: Nonces::new(NONCE_BYTES),
            pds_nonces: Nonces::new(2 * NONCE_BYTES),
            backoff: Backoff::default(),
            metrics,
            counting: Mutex::default(),
            telling: Mutex::default(),
            holder: random::id(),
            grants,
            feed,
            new_clients: StorageBudget::new(NEW_CLIENTS, NEW_CLIENTS_OF_A_NETWORK),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the credential of a link, if it is cached and not due for a refresh. Every request
    /// of a linked account begins with this, so it must not wait.
    pub(crate) fn recall(&self, link: &LinkId) -> Option<Arc<Credential>> {
        let now = self.inner.now();
        let credential = self.inner.memory.get(link.as_str())?;
        // A stale feed may have missed the end of this session.
        (!credential.is_due(now) && self.inner.feed.is_fresh()).then_some(credential)
    }

    /// Returns the nonce that an origin demands in a proof, if one is known.
    pub(crate) fn nonce(&self, link: &LinkId, origin: &Origin) -> Option<LinkNonce> {
        self.inner.pds_nonces.get(link.as_str(), origin)
    }

    /// Remembers the nonce of an answer for the next proof.
    pub(crate) fn hear_nonce(&self, link: &LinkId, origin: &Origin, nonce: &str) {
        self.inner.pds_nonces.hear(link.as_str(), origin, nonce, self.inner.now());
    }

    /// Genkan's client metadata document: the stable one, or the one of a scope's hash. `carried` is
    /// the scope, if the client id carries it.
    pub(crate) async fn client_document(
        &self,
        hash: Option<&str>,
        carried: Option<&str>,
    ) -> db::Result<Option<Value>> {
        let Some(hash) = hash else { return Ok(Some(self.inner.client.document(None))) };
        if let Some(scope) = carried {
            return Ok(self.inner.client.document_with(hash, scope));
        }
        let scope = sql::clients::find(&self.inner.db, hash).await?;
        Ok(scope.map(|scope| self.inner.client.document(Some(&scope))))
    }

    /// Genkan's public client keys.
    pub(crate) fn client_key_set(&self) -> JwkSet {
        self.inner.client.key_set()
    }
}

impl Inner {
    /// The clock that replicas share: they compare when tokens were issued, sent and are due.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The client of a session's server.
    pub(super) fn server_client<'a>(
        &'a self,
        pool: Pool,
        server: &'a Server,
        identity: &'a ClientIdentity,
        session: &'a str,
        key: &'a ProofKey,
    ) -> ServerClient<'a> {
        ServerClient {
            guarded: self.discovery.guarded.in_pool(pool),
            clock: &self.clock,
            nonces: &self.server_nonces,
            server,
            identity,
            session,
            key,
        }
    }
}

/// The sweeps of this room. A link stays for 30 days after its end, for operators who look back.
pub(crate) const SWEEPS: &[Sweep] = &[
    sweep!("linked sign-ins", |db, range| sql::logins::sweep(db, range)),
    sweep!("visits", |db, range| sql::visits::sweep(db, range)),
    sweep!("links", |db, range| sql::links::sweep(db, range.keeping(DAY * 30))),
    // Longer than any session lives.
    sweep!("link clients", |db, range| sql::clients::sweep(db, range.keeping(CLIENT_LIFETIME))),
];

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Links [sealed]")
    }
}

impl fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dependencies")
    }
}

/// Longer than any session is idle. A client document is kept for this long from its last use.
pub(super) const CLIENT_LIFETIME: Duration = Duration::from_hours(800 * 24);
/// Bytes of new client documents per hour. Those of sign-ins that did not end well stay for a day.
const NEW_CLIENTS: u64 = 16 << 20;
const NEW_CLIENTS_OF_A_NETWORK: u64 = 1 << 20;
/// The most bytes of the credentials in memory: some 20 000 whose tokens have 2 KiB.
const CREDENTIALS: CacheSize = CacheSize { name: "linked_tokens", bytes: 64 << 20, typical: 3200 };
/// The most bytes of each cache of nonces: some 20 000.
const NONCE_BYTES: usize = 10 << 20;
pub(super) const DAY: Duration = Duration::from_hours(24);
