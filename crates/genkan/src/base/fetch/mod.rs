//! Outbound HTTP, in two clients that never mix.
//!
//! [`GuardedClient`] dials names that strangers chose (handles, `did:web`, later OAuth clients and servers):
//! it resolves by itself, connects only to an address it has checked, and bounds size and time.
//! The data path dials strangers by connections of its own, at addresses from the same [`Names`].
//! [`UnguardedClient`] dials origins from the operator's configuration: hosts of the fleet and the PLC
//! directory. Neither reads proxies from the environment, keeps cookies, or unpacks compressed bodies.

pub(crate) mod address;
mod body;
pub(crate) mod dns;
mod guarded;
mod names;
pub(crate) mod target;
#[cfg(test)]
pub(crate) mod test_dns;
pub(crate) mod tls;
mod unguarded;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

pub(crate) use dns::{Dns, DnsError};
pub(crate) use guarded::{GuardedClient, GuardedError, Limits};
pub(crate) use names::{NameError, Names};
pub(crate) use unguarded::{UnguardedClient, UnguardedError};

/// A whole answer, its body within the caller's limit.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What we call ourselves towards others.
const USER_AGENT: &str = concat!("genkan/", env!("CARGO_PKG_VERSION"));
