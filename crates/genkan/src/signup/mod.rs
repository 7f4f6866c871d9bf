//! Sign-up: from the request to an account on a host.
//!
//! `createAccount` is a *saga*. Its intent is one row with the signed genesis operation. It is written
//! together with the handle, email address and DID of the account, so that the unique indexes decide
//! every race before anything leaves Genkan. Then the host creates the account and publishes the
//! operation. A sign-up that is interrupted on the way is *settled* later: look at the host and at the
//! directory first, then finish, send again, or undo. The steps are in `saga`.

mod context;
mod error;
mod request;
mod saga;
mod sign_ups;
mod sql;
#[cfg(test)]
mod tests;

pub(crate) use context::Dependencies;
pub(crate) use error::Error;
pub(crate) use request::{Request, Rules, RulesError};
pub(crate) use sign_ups::SignUps;
