//! The OAuth authorization server: what an app asks, what its user allows, and the tokens that follow.
//!
//! *Client* an app, named by the URL of its metadata · *request* what a client pushed before it sends a browser ·
//! *consent* what an account allowed a client · *code* what the browser carries back, once · *grant* what lives on:
//! the right to fresh tokens until it is over or taken back · *generation* the number of a grant's refresh token.
//!
//! This room knows nothing of pages or cookies. Whoever acts in an account's name brings a
//! [`SignIn`](crate::signin::SignIn) as the proof that it is signed in to the browser at hand.

mod access;
mod client;
mod code;
mod consent;
mod error;
mod grant;
mod linked;
mod mint;
mod onward;
mod permission_sets;
mod proof;
mod push;
mod pushed;
mod refresh;
mod refresh_token;
mod request;
mod revoke;
mod seen;
mod sql;
#[cfg(test)]
mod testing;
mod view;

use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::oauth::nonce::Nonces;

use crate::accounts::Accounts;
use crate::base::fetch::{Dns, GuardedClient};
use crate::base::{Clock, Origin, Secret, Timestamp};
use crate::db::Db;
use crate::db::feed::{Change, Feed};
use crate::fleet::Fleet;
use crate::identity::Documents;
use crate::keys::Ring;
use crate::signin::SignIns;

pub(crate) use access::{AccessError, GrantCaller, Place, claimed_account};
pub(crate) use client::Standing;
pub(crate) use error::{Error, Problem};
pub(crate) use grant::Grant;
pub(crate) use linked::Linked;
pub(crate) use onward::Onward;
pub(crate) use proof::{Call, proofs};
pub(crate) use revoke::{Ended, GrantView};
pub(crate) use sql::clients::Stored as ClientRow;
pub(crate) use view::{
    Choice, ClientView, ConsentView, Opened, Outcome, Page, Permission, Redirect, SetView,
};

/// What the operator set.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The public origin, without a slash: `iss` everywhere.
    pub(crate) issuer: String,
    /// Genkan's own DID: the audience of tokens that only Genkan reads.
    pub(crate) service_did: String,
    pub(crate) access_lifetime: Duration,
    pub(crate) refresh_grace: Duration,
    pub(crate) loopback_clients: bool,
    /// Origins where clients may live without a public name.
    pub(crate) private_origins: Vec<Origin>,
    /// Makes DPoP nonces; one of our own if none is given.
    pub(crate) dpop_secret: Option<Secret<[u8; 32]>>,
}

/// What this room stands on.
#[derive(Debug)]
pub(crate) struct Dependencies {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) feed: Feed,
    pub(crate) accounts: Accounts,
    pub(crate) sign_ins: SignIns,
    pub(crate) ring: Ring,
    pub(crate) fleet: Fleet,
    pub(crate) dns: Dns,
    pub(crate) guarded: GuardedClient,
    pub(crate) documents: Documents,
}

/// The authorization server. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct OAuth {
    db: Db,
    clock: Clock,
    feed: Feed,
    accounts: Accounts,
    sign_ins: SignIns,
    ring: Ring,
    fleet: Fleet,
    settings: Arc<Settings>,
    nonces: Arc<Nonces>,
    nonce_secret: Arc<Secret<[u8; 32]>>,
    seen: seen::Seen,
    verified: Arc<access::Verified>,
    signer: Arc<onward::Signer>,
    clients: client::Clients,
    sets: permission_sets::PermissionSets,
    refresh_tokens: refresh_token::RefreshTokens,
}

impl OAuth {
    pub(crate) fn new(with: Dependencies, settings: Settings) -> Self {
        let Dependencies { db, clock, feed, accounts, sign_ins, ring, fleet, dns, guarded, documents } = with;
        let secret = match &settings.dpop_secret {
            Some(given) => given.clone(),
            None => Secret::new(*ring.derived("dpop nonces")),
        };
        let verified = Arc::new(access::Verified::new());
        let forgetting = Arc::clone(&verified);
        feed.subscribe(Change::Grant, move |grant| forgetting.forget(grant));
        let forgetting = Arc::clone(&verified);
        feed.subscribe_to_gaps(move || forgetting.forget_all());
        Self {
            verified,
            signer: Arc::new(onward::Signer::new(&ring)),
            nonces: Arc::new(Nonces::new(secret.expose(), Nonces::INTERVAL)),
            nonce_secret: Arc::new(secret),
            seen: seen::Seen::new(db.clone(), clock.clone()),
            clients: client::Clients::new(
                db.clone(),
                clock.clone(),
                guarded.clone(),
                &settings.private_origins,
                settings.loopback_clients,
            ),
            sets: permission_sets::PermissionSets::new(db.clone(), clock.clone(), dns, documents, guarded),
            refresh_tokens: refresh_token::RefreshTokens::new(&ring),
            settings: Arc::new(settings),
            db,
            clock,
            feed,
            accounts,
            sign_ins,
            ring,
            fleet,
        }
    }

    /// The nonce that proofs should carry from now on.
    pub(crate) fn nonce(&self) -> String {
        self.nonces.next(self.clock.now().as_millis()).as_str().to_owned()
    }

    /// What nonces are made of. Hosts that have it give and take the same ones.
    pub(crate) fn nonce_secret(&self) -> &Secret<[u8; 32]> {
        &self.nonce_secret
    }
}

/// Removes what nothing can use any more. A grant stays a while after its end, for those who look back.
pub(crate) async fn sweep(db: &Db, now: Timestamp) -> crate::db::Result<u64> {
    let mut tx = db.begin().await?;
    let mut gone = sql::seen::sweep(&mut tx, now).await?;
    gone += sql::requests::sweep(&mut tx, now).await?;
    gone += sql::grants::sweep(&mut tx, now.minus(DAY)).await?;
    gone += sql::codes::sweep(&mut tx, now.minus(DAY)).await?;
    gone += sql::scopes::sweep(&mut tx, now.minus(DAY * 90)).await?;
    gone += sql::clients::sweep(&mut tx, now.minus(DAY * 7)).await?;
    gone += sql::permission_sets::sweep(&mut tx, now.minus(DAY)).await?;
    tx.commit().await?;
    Ok(gone)
}

const DAY: Duration = Duration::from_hours(24);
