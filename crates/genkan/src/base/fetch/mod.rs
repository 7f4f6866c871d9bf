//! Outgoing HTTP of the control runtime: two clients that never mix.
//!
//! [`GuardedClient`] connects to names that users or external servers chose: handles, `did:web`,
//! OAuth clients and authorization servers. It resolves names by itself, connects only to addresses
//! that it has checked, and limits size, time and
//! concurrency. The data path has connections of its own to external servers, at addresses from the
//! same [`Names`].
//!
//! [`UnguardedClient`] connects to origins from the operator's configuration: hosts of the fleet
//! and the PLC directory. They may well be private.
//!
//! Neither client reads proxies from the environment, keeps cookies or decompresses bodies.

pub(crate) mod address;
mod body;
pub(crate) mod dns;
mod guarded;
mod names;
mod places;
pub(crate) mod target;
#[cfg(test)]
pub(crate) mod test_dns;
pub(crate) mod tls;
mod unguarded;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

pub(crate) use dns::{Dns, DnsError};
pub(crate) use guarded::{GuardedClient, GuardedError, Limits, TextsError};
pub(crate) use names::{NameError, Names};
pub(crate) use places::Pool;
pub(crate) use unguarded::{UnguardedClient, UnguardedError};

/// A whole answer. Its body is within the caller's limit.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The `User-Agent` of every outgoing request of this room.
const USER_AGENT: &str = concat!("genkan/", env!("CARGO_PKG_VERSION"));
