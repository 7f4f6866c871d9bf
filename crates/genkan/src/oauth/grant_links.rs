//! What this room needs of the room that keeps links.

use std::fmt::Debug;

use futures_util::future::BoxFuture;

use super::ids::GrantId;
use crate::base::Timestamp;
use crate::db::{self, Tx};

/// The links that grants of linked accounts rest on. A grant and its link have one id.
///
/// A transaction takes the link's row before the grant's, since the end of a link does so too.
pub(crate) trait GrantLinks: Debug + Send + Sync {
    /// Holds the link of a grant until `tx` ends. `false`: it is over. A home account's grant has
    /// none.
    fn hold<'a>(&'a self, tx: &'a mut Tx, grant: &'a GrantId) -> BoxFuture<'a, db::Result<bool>>;

    /// Makes the link live whose person allowed the app, as part of `tx`. `false`: it is over.
    fn keep<'a>(
        &'a self,
        tx: &'a mut Tx,
        grant: &'a GrantId,
        now: Timestamp,
    ) -> BoxFuture<'a, db::Result<bool>>;

    /// Ends the link of a grant that ends in `tx`. Its server is told after the commit.
    fn end<'a>(&'a self, tx: &'a mut Tx, grant: &'a GrantId, now: Timestamp)
    -> BoxFuture<'a, db::Result<()>>;
}
