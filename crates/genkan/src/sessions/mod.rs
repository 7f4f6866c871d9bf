//! Sessions: what a password opens, a refresh token continues, and a sign-out ends.
//!
//! A *session* is a row; its access tokens are addressed to the account's host and signed with that
//! host's key, its refresh tokens are addressed to Genkan. No token is stored: a refresh token's
//! `jti` is the session and a *generation*, and the database says which generations are still good.
//! [`AccessTokens`] checks access tokens for every request, from memory when it can.
//!
//! [`Sessions`] opens, continues and ends them. [`sweep`] removes what nothing can use any more.

mod access;
mod caller;
mod error;
mod generations;
mod service;
mod sql;
mod tokens;

pub(crate) use access::AccessTokens;
pub(crate) use caller::{Caller, SessionId};
pub(crate) use error::{Error, TokenError};
pub(crate) use service::{SessionTokens, Sessions, sweep};
pub(crate) use tokens::Lifetimes;
