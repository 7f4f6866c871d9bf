//! The service of this room: the authorization server and the resource server.
//!
//! Its methods are in [`server`](super::server) and [`resource`](super::resource).

use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::oauth::nonce::Nonces;

use super::clients::Clients;
use super::grant_links::GrantLinks;
use super::permission_sets::PermissionSets;
use super::tokens::{RefreshTokens, Signer, UsedOnce, VerifiedTokens};
use crate::accounts::Accounts;
use crate::base::fetch::{GuardedClient, UnguardedClient};
use crate::base::{Clock, Origin, Secret, Timestamp};
use crate::db::Db;
use crate::db::feed::Feed;
use crate::fleet::Fleet;
use crate::identity::Documents;
use crate::keys::Ring;
use crate::signin::SignIns;

/// The operator's settings for OAuth.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The public origin, without a trailing slash. It is `iss` everywhere.
    pub(crate) issuer: String,
    /// Genkan's own DID: the audience of tokens that only Genkan reads.
    pub(crate) service_did: String,
    pub(crate) access_lifetime: Duration,
    pub(crate) refresh_grace: Duration,
    pub(crate) loopback_clients: bool,
    /// Origins where clients need no public name.
    pub(crate) private_origins: Vec<Origin>,
    /// The secret for DPoP nonces. `None` means that Genkan derives one.
    pub(crate) dpop_secret: Option<Secret<[u8; 32]>>,
}

/// Everything this room depends on.
#[derive(Debug)]
pub(crate) struct Dependencies {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) feed: Feed,
    pub(crate) accounts: Accounts,
    pub(crate) sign_ins: SignIns,
    pub(crate) ring: Ring,
    pub(crate) fleet: Fleet,
    pub(crate) unguarded: UnguardedClient,
    pub(crate) guarded: GuardedClient,
    pub(crate) documents: Documents,
    pub(crate) links: Arc<dyn GrantLinks>,
}

/// The authorization server. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct OAuth {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) feed: Feed,
    pub(super) accounts: Accounts,
    pub(super) sign_ins: SignIns,
    pub(super) ring: Ring,
    pub(super) fleet: Fleet,
    pub(super) links: Arc<dyn GrantLinks>,
    pub(super) settings: Arc<Settings>,
    pub(super) nonces: Arc<Nonces>,
    pub(super) nonce_secret: Arc<Secret<[u8; 32]>>,
    pub(super) seen: UsedOnce,
    pub(super) verified: VerifiedTokens,
    pub(super) signer: Arc<Signer>,
    pub(super) clients: Clients,
    pub(super) sets: PermissionSets,
    pub(super) refresh_tokens: RefreshTokens,
}

impl OAuth {
    /// The clock that replicas share. A code and a refresh token may reach another replica than the
    /// one that gave them.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn new(with: Dependencies, settings: Settings) -> Self {
        let Dependencies {
            db,
            clock,
            feed,
            accounts,
            sign_ins,
            ring,
            fleet,
            unguarded,
            guarded,
            documents,
            links,
        } = with;
        // Replicas share the database and with it the derived secret, so each accepts the nonces of
        // the others.
        let secret = match &settings.dpop_secret {
            Some(given) => given.clone(),
            None => Secret::new(*ring.derived("dpop nonces")),
        };
        Self {
            verified: VerifiedTokens::new(&feed),
            signer: Arc::new(Signer::new(&ring)),
            nonces: Arc::new(Nonces::new(secret.expose(), Nonces::INTERVAL)),
            nonce_secret: Arc::new(secret),
            seen: UsedOnce::new(db.clone(), clock.clone()),
            clients: Clients::new(
                db.clone(),
                clock.clone(),
                guarded.clone(),
                &settings.private_origins,
                settings.loopback_clients,
            ),
            sets: PermissionSets::new(
                db.clone(),
                clock.clone(),
                fleet.clone(),
                unguarded,
                &documents,
                &guarded,
            ),
            refresh_tokens: RefreshTokens::new(&ring),
            settings: Arc::new(settings),
            db,
            clock,
            feed,
            accounts,
            sign_ins,
            ring,
            fleet,
            links,
        }
    }

    /// Returns the nonce that proofs should carry from now on.
    pub(crate) fn nonce(&self) -> String {
        self.nonces.next(self.clock.now().as_millis()).as_str().to_owned()
    }

    /// The secret that nonces are computed from. Hosts that have it issue and accept the same
    /// nonces.
    pub(crate) fn nonce_secret(&self) -> &Secret<[u8; 32]> {
        &self.nonce_secret
    }
}
