//! A link and its grant, ended in one transaction.
//!
//! `links` and `oauth` do not use each other. Each ends the other's half through a trait that
//! [`Pairing`] implements, inside of its own transaction: a process that stops at any point leaves
//! both or none.
//!
//! Every transaction that holds both rows takes the link's first. Two transactions that end a pair
//! from its two sides would otherwise wait for each other.

use futures_util::future::BoxFuture;

use crate::base::Timestamp;
use crate::db::{self, Tx};
use crate::links::{self, LinkGrants, LinkId};
use crate::oauth::{self, GrantId, GrantLinks};

/// Leads from a link to its grant, and back. They have one id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pairing;

impl LinkGrants for Pairing {
    fn end<'a>(&'a self, tx: &'a mut Tx, link: &'a LinkId, now: Timestamp) -> BoxFuture<'a, db::Result<()>> {
        Box::pin(async move { oauth::end_with_link(tx, &link.into(), now).await })
    }
}

impl GrantLinks for Pairing {
    fn hold<'a>(&'a self, tx: &'a mut Tx, grant: &'a GrantId) -> BoxFuture<'a, db::Result<bool>> {
        Box::pin(async move { links::hold(tx, &grant.into()).await })
    }

    fn keep<'a>(
        &'a self,
        tx: &'a mut Tx,
        grant: &'a GrantId,
        now: Timestamp,
    ) -> BoxFuture<'a, db::Result<bool>> {
        Box::pin(async move { links::keep(tx, &grant.into(), now).await })
    }

    fn end<'a>(
        &'a self,
        tx: &'a mut Tx,
        grant: &'a GrantId,
        now: Timestamp,
    ) -> BoxFuture<'a, db::Result<()>> {
        Box::pin(async move { links::end_with_grant(tx, &grant.into(), now).await })
    }
}
