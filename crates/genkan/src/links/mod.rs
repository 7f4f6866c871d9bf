//! Linked accounts: accounts on external PDSes, and the sessions that their own servers gave
//! Genkan.
//!
//! *Link* one sealed session at another server, for one app and device; it has its grant's id ·
//! *login* a sign-in that waits for its browser to come back · *server* the authorization server
//! that speaks for an account · *version* the number of a link's tokens · *credential* one version,
//! unsealed.
//!
//! Sign-in: [`Links::begin`], the other server, [`Links::finish`], the consent page,
//! [`keep`]. Use: [`Links::recall`] and [`Links::credential`]. End: [`Links::end`], or
//! [`end_with_grant`] when the grant ends first; the other server is told afterwards. This room knows
//! nothing of pages, and of grants only [`LinkGrants`]: that they end together with their links.

mod backoff;
mod callback;
mod client;
mod counting;
mod credential;
mod discovery;
mod end;
mod error;
mod id;
mod link_grants;
mod login;
mod nonces;
mod open;
mod prepare;
mod recurring;
mod refresh;
mod server_client;
mod service;
mod sql;
mod tell;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod upkeep;
mod vault;
mod view;

pub(crate) use callback::{Arrival, Callback};
pub(crate) use client::{CALLBACK, ClientKey, ClientKeys, KEY_SET, OTHERS, ReloadKeys, STABLE};
pub(crate) use credential::Credential;
pub(crate) use discovery::Identifier;
pub(crate) use end::{end_with_grant, hold, keep};
pub(crate) use error::{BeginError, Failure, FinishError, Reason, UseError};
pub(crate) use id::LinkId;
pub(crate) use link_grants::LinkGrants;
pub(crate) use login::NewLogin;
pub(crate) use service::{Dependencies, Links, SWEEPS, Settings};
pub(crate) use sql::links::EndedLink;
pub(crate) use vault::SEALED_COLUMNS;
pub(crate) use view::{LinkView, Visitor};
