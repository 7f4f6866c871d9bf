//! What this room needs of the room that keeps grants.

use std::fmt::Debug;

use futures_util::future::BoxFuture;

use super::id::LinkId;
use crate::base::Timestamp;
use crate::db::{self, Tx};

/// The grants that rest on links. A link and its grant have one id.
pub(crate) trait LinkGrants: Debug + Send + Sync {
    /// Ends the grant of a link that ends in `tx`. The link's row is held already, and comes before
    /// the grant's in every transaction. A link that waits for its person has no grant yet, which is
    /// no error.
    fn end<'a>(&'a self, tx: &'a mut Tx, link: &'a LinkId, now: Timestamp) -> BoxFuture<'a, db::Result<()>>;
}
