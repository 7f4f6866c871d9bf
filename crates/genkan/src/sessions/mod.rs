//! Sessions: a password opens one, a refresh token continues it, and a sign-out ends it.
//!
//! A *session* is a row. Its access tokens are addressed to the account's host and signed with that
//! host's key. Its refresh tokens are addressed to Genkan. No token is stored: a refresh token's
//! `jti` has the session and a *generation*, and the database says which generations are valid.
//! [`AccessTokens`] checks the access token of every request, from its cache if possible.
//!
//! [`Sessions`] opens, continues and ends them. [`SWEEPS`] removes rows that nothing can use any
//! more.

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
pub(crate) use service::{SWEEPS, SessionTokens, Sessions};
pub(crate) use tokens::Lifetimes;
