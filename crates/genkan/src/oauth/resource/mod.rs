//! The resource server: checking the tokens of requests to Genkan's own origin, and signing what goes on to hosts.

mod access;
mod sign;

pub(crate) use access::claimed_account;
