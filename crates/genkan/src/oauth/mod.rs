//! The OAuth authorization server: what an app asks, what its user allows, and the tokens that follow.
//!
//! *Client* an app, named by the URL of its metadata · *request* what a client pushed before it sends a browser ·
//! *consent* what an account allowed a client · *code* what the browser carries back, once · *grant* what lives on:
//! the right to fresh tokens until it is over or taken back · *generation* the number of a grant's refresh token.
//!
//! This room knows nothing of pages or cookies. A browser is a name (`device`), and whoever calls in an account's
//! name brings a [`SignedIn`](crate::signin::SignedIn) as the proof that it is signed in there.

mod client;
mod consent;
mod error;
mod grant;
mod pushed;
mod refresh_token;
mod request;
mod sql;
#[cfg(test)]
mod testing;
mod view;

use std::sync::Arc;
use std::time::Duration;

use crate::base::Clock;
use crate::db::Db;
use crate::keys::Ring;

pub(crate) use client::Standing;
pub(crate) use error::{Code, Error, Problem};
#[expect(unused_imports, reason = "for the doors that list grants")]
pub(crate) use grant::Grant;
#[expect(unused_imports, reason = "for the pages")]
pub(crate) use view::{
    Choice, ClientView, ConsentView, Opened, Outcome, Page, Permission, Prompt, Redirect, ResponseMode,
    SetView,
};

/// What the operator set.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The public origin, without a slash: `iss` everywhere.
    pub(crate) issuer: String,
    pub(crate) access_lifetime: Duration,
    pub(crate) refresh_grace: Duration,
    pub(crate) loopback_clients: bool,
}

/// The authorization server. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct OAuth {
    db: Db,
    clock: Clock,
    settings: Arc<Settings>,
    clients: client::Clients,
    refresh_tokens: refresh_token::RefreshTokens,
}

impl OAuth {
    pub(crate) fn new(db: Db, clock: Clock, ring: &Ring, settings: Settings) -> Self {
        Self {
            clients: client::Clients::new(db.clone(), clock.clone()),
            refresh_tokens: refresh_token::RefreshTokens::new(ring),
            settings: Arc::new(settings),
            db,
            clock,
        }
    }
}
