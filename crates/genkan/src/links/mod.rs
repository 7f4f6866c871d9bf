//! Linked accounts: accounts on external PDSes, and the sessions that their own servers gave Genkan.
//!
//! *Link* one sealed session at another server, for one app and device: its id is its grant's · *login* a sign-in that
//! waits for its browser to come back · *server* the authorization server that speaks for an account · *version* the
//! number of a link's tokens · *credential* one version, opened.
//!
//! Sign-in: [`Links::begin`], the other server, [`Links::finish`], the consent page, [`Links::keep`]. Use:
//! [`Links::recall`] and [`Links::credential`]. End: [`Links::end`], which binds everybody first and tells the other
//! server afterwards. This room knows nothing of grants and pages; what has to hear that a session is over is told by
//! [`Links::on_end`].

mod backoff;
mod callback;
mod client;
mod credential;
mod discovery;
mod end;
mod error;
mod login;
mod nonces;
mod open;
mod refresh;
mod server_client;
mod sql;
mod vault;
mod view;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use genkan_protocol::oauth::dpop::ProofKey;
use genkan_protocol::oauth::jwk::JwkSet;
use serde_json::Value;

use crate::base::fetch::GuardedClient;
use crate::base::seal::Sealer;
use crate::base::single_flight::SingleFlight;
use crate::base::{Clock, Origin, Timestamp, random};
use crate::db::feed::{Change, Feed};
use crate::db::{Db, FeedCache};
use crate::identity::Identity;
use crate::telemetry::metrics::Metrics;

pub(crate) use callback::{Arrival, Callback};
pub(crate) use client::{CALLBACK, ClientKey, ClientKeys, KEY_SET, OTHERS, STABLE};
pub(crate) use credential::Credential;
pub(crate) use discovery::Identifier;
pub(crate) use error::{BeginError, Failure, FinishError, Reason, UseError};
pub(crate) use login::NewLogin;
pub(crate) use nonces::HeardNonce;
pub(crate) use vault::SEALED_COLUMNS;
pub(crate) use view::{LinkView, Visitor};

/// What the operator set, and where we are.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) public_url: Origin,
    /// How we call ourselves to people at other servers.
    pub(crate) client_name: String,
    /// The scopes of the stable client document.
    pub(crate) scope: String,
    /// Members of the document that lead to pages: terms and the like.
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
    pub(crate) metrics: Metrics,
}

/// The sessions of linked accounts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Links {
    inner: Arc<Inner>,
}

struct Inner {
    db: Db,
    clock: Clock,
    feed: Feed,
    sealer: Sealer,
    discovery: discovery::Discovery,
    client: client::Client,
    /// Opened credentials by link. What the feed tells of is forgotten.
    memory: FeedCache<Arc<str>, Arc<Credential>>,
    single_flight: SingleFlight<Result<Arc<Credential>, UseError>>,
    /// Of authorization servers, and of PDSs: not the same even where both are one machine.
    server_nonces: nonces::Nonces,
    pds_nonces: nonces::Nonces,
    backoff: backoff::Backoff,
    metrics: Metrics,
    /// Names this process in leases.
    holder: String,
    end_listener: OnceLock<EndListener>,
}

/// Hears of links that ended.
type EndListener = Box<dyn Fn(&str) + Send + Sync>;

impl Links {
    pub(crate) fn new(with: Dependencies, settings: Settings) -> Self {
        let Dependencies { db, clock, feed, sealer, identity, guarded, keys, metrics } = with;
        let discovery = discovery::Discovery {
            documents: identity.documents,
            handles: identity.handles,
            guarded,
            listed: settings.private_origins.into(),
        };
        let client = client::Client::new(
            settings.public_url,
            settings.client_name,
            settings.scope,
            settings.pages,
            keys,
        );
        let memory = FeedCache::new(&feed, Change::Link, REMEMBERED, |entries, link| {
            entries.remove(link);
        });
        let inner = Inner {
            db,
            clock,
            sealer,
            discovery,
            client,
            memory,
            single_flight: SingleFlight::default(),
            server_nonces: nonces::Nonces::new(REMEMBERED),
            pds_nonces: nonces::Nonces::new(2 * REMEMBERED),
            backoff: backoff::Backoff::default(),
            metrics,
            holder: random::id(),
            end_listener: OnceLock::new(),
            feed,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Lets `hear` know of every link that ends in this process. Only the first counts.
    pub(crate) fn on_end(&self, hear: impl Fn(&str) + Send + Sync + 'static) {
        let _ = self.inner.end_listener.set(Box::new(hear));
    }

    /// The credential of a link, if it is in memory and may be used without another look: for the way of a request.
    pub(crate) fn recall(&self, link: &str) -> Option<Arc<Credential>> {
        let now = self.inner.clock.now();
        let credential = self.inner.memory.get(link)?;
        (!credential.is_due(now) && self.inner.feed.is_fresh(now)).then_some(credential)
    }

    /// The nonce that an origin wants to see, as far as it is known.
    pub(crate) fn nonce(&self, link: &str, origin: &Origin) -> Option<HeardNonce> {
        self.inner.pds_nonces.get(link, origin)
    }

    /// Every answer of a PDS that has one says the nonce for the next proof.
    pub(crate) fn hear_nonce(&self, link: &str, origin: &Origin, nonce: &str) {
        self.inner.pds_nonces.hear(link, origin, nonce, self.inner.clock.now());
    }

    /// Our metadata document: at the stable name, or at the one of a hash.
    pub(crate) async fn client_document(&self, hash: Option<&str>) -> crate::db::Result<Option<Value>> {
        let Some(hash) = hash else { return Ok(Some(self.inner.client.document(None))) };
        let scope = sql::clients::find(&self.inner.db, hash).await?;
        Ok(scope.map(|scope| self.inner.client.document(Some(&scope))))
    }

    /// Our public keys.
    pub(crate) fn client_key_set(&self) -> JwkSet {
        self.inner.client.key_set()
    }
}

impl Inner {
    /// How to speak to a session's server.
    fn server_client<'a>(
        &'a self,
        server: &'a discovery::Server,
        identity: &'a client::ClientIdentity,
        session: &'a str,
        key: &'a ProofKey,
    ) -> server_client::ServerClient<'a> {
        server_client::ServerClient {
            guarded: &self.discovery.guarded,
            clock: &self.clock,
            nonces: &self.server_nonces,
            server,
            identity,
            session,
            key,
        }
    }
}

/// Removes what nothing can use any more. A link stays a while after its end, for those who look back.
pub(crate) async fn sweep(db: &Db, now: Timestamp) -> crate::db::Result<u64> {
    let mut tx = db.begin().await?;
    let mut gone = sql::logins::sweep(&mut tx, now).await?;
    gone += sql::visits::sweep(&mut tx, now).await?;
    gone += sql::links::sweep(&mut tx, now.minus(DAY * 30)).await?;
    // Longer than any session lives.
    gone += sql::clients::sweep(&mut tx, now.minus(DAY * 800)).await?;
    tx.commit().await?;
    Ok(gone)
}

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

const REMEMBERED: usize = 20_000;
const DAY: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests;
