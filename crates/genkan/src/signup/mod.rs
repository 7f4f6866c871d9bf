//! Sign-up: from the request to an account on a host.
//!
//! `createAccount` is a *saga*. Its intent is one row with the signed genesis operation. The row is
//! written together with the account's handle, email address and DID, so the unique indexes decide
//! every race before anything leaves Genkan. Then the host creates the account and publishes the
//! operation. An interrupted sign-up is *settled* later: Genkan looks at the host and at the
//! directory first, and then finishes, sends again, or undoes. The steps are in `saga`.

mod context;
mod error;
mod evidence;
mod outcome;
mod record;
mod request;
mod saga;
mod sign_ups;
mod sql;
#[cfg(test)]
mod tests;
mod undo;

pub(crate) use context::Dependencies;
pub(crate) use error::Error;
pub(crate) use request::{Request, Rules, RulesError};
pub(crate) use sign_ups::SignUps;
