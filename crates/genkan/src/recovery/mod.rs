//! Resetting a lost password by a code from the account's mailbox.
//!
//! Every request for a code gets the same answer after the same time, whether or not the address is
//! an account's. A reset changes the password and ends every session, browser sign-in and grant, in
//! one transaction. App passwords stay, as at the reference PDS.

mod error;
mod service;

pub(crate) use error::Error;
pub(crate) use service::Recovery;
