//! What forwarding asks of the rooms beside it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::Origin;
use crate::routing::target::Target;

/// The rooms that know callers, homes and hosts.
///
/// Whatever begins with `recall` answers from memory at once, or `None`; it is on the path of every request. The
/// others may wait for a database. Tests put fixed answers here.
pub(crate) trait Neighbours: Clone + 'static {
    /// Whom a token speaks for, if it was checked before.
    fn recall_caller(&self, token: &str) -> Option<Result<Arc<Caller>, TokenError>>;

    /// Checks a token.
    async fn check_caller(&self, token: &str) -> Result<Arc<Caller>, TokenError>;

    /// Where an account lives, if memory knows. `Some(None)`: memory knows that it does not live here.
    fn recall_home(&self, account: &Target<'_>) -> Option<Option<Arc<Home>>>;

    /// Where an account lives, or `None` if not here.
    async fn find_home(&self, account: &Target<'_>) -> Result<Option<Arc<Home>>, Unavailable>;

    /// A host by its name.
    fn host(&self, name: &str) -> Option<Arc<Host>>;

    /// Whether this is the address of one of the hosts, whose word on the client's address counts.
    fn is_host(&self, address: IpAddr) -> bool;
}

/// Whom a token speaks for.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) did: Box<str>,
    /// The host the token is made for.
    pub(crate) audience: Arc<str>,
}

/// Where an account lives.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) did: Box<str>,
    pub(crate) host: Arc<str>,
}

/// One of the fleet's hosts.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: Arc<str>,
    pub(crate) origin: Origin,
}

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// Not ours, or not readable.
    Invalid,
    /// Out of date, or revoked.
    Expired,
    /// It could not be checked.
    Unavailable,
}

/// The database is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable;
