//! The OAuth authorization server: what an app requests, what its user allows, and the tokens that
//! follow.
//!
//! *Client* an app, named by the URL of its metadata · *request* what a client pushed before it
//! sends a browser · *consent* what an account allowed a client · *code* what the browser carries
//! back, once · *grant* the right to fresh tokens until it expires or is revoked · *generation* the
//! number of a grant's refresh token.
//!
//! This room knows nothing of pages or cookies. A caller that acts for an account passes a
//! [`SignIn`](crate::signin::SignIn), which proves that the account is signed in to this browser.

mod call;
mod client_trust;
mod clients;
mod error;
mod grant;
mod grant_links;
mod ids;
mod parameters;
mod permission_sets;
mod resource;
mod scope;
mod server;
mod service;
mod sql;
#[cfg(test)]
mod testing;
mod tokens;

pub(crate) use call::{Call, proofs};
pub(crate) use client_trust::ClientTrust;
pub(crate) use error::Error;
pub(crate) use grant::Grant;
pub(crate) use grant_links::GrantLinks;
pub(crate) use ids::GrantId;
pub(crate) use permission_sets::SetView;
pub(crate) use resource::claimed_account;
pub(crate) use scope::ExpandedScope;
pub(crate) use server::{
    Choice, ConsentView, GrantView, LinkedAccount, OpenRequest, Outcome, Page, Permission, Problem, Redirect,
    SWEEPS, end_with_link,
};
pub(crate) use service::{Dependencies, OAuth, Settings};
pub(crate) use sql::clients::StoredClient;
pub(crate) use sql::grants::GrantsOf;
pub(crate) use tokens::{AccessError, CallerPlace, GrantCaller, Onward};
