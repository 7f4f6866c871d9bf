//! The resource server: checks the tokens of requests to Genkan's own origin, and signs what goes
//! on to hosts.

mod access;
mod sign;

pub(crate) use access::claimed_account;
