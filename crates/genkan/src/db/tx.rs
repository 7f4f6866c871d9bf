//! Write transactions.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::changes::{Change, Subscribers};
use super::connection::TxConnection;
use super::repeat::{UnconfirmedCommit, lost_connection};
use super::{Error, Result};
use crate::base::WaitingClient;

/// A write transaction. Dropping it without [`Tx::commit`] rolls it back.
///
/// Statements run on the connection below it: `.execute(&mut **tx)` for a borrowed transaction,
/// `.execute(&mut *tx)` for an owned one.
#[derive(Debug)]
pub(crate) struct Tx {
    inner: TxConnection,
    subscribers: Arc<Subscribers>,
    /// The changes noted in it, in order. This process learns of them after the commit.
    changes: Vec<(Change, String)>,
}

impl Tx {
    pub(super) const fn new(inner: TxConnection, subscribers: Arc<Subscribers>) -> Self {
        Self { inner, subscribers, changes: Vec::new() }
    }

    /// Remembers a change that was written to the feed, for the commit.
    pub(super) fn remember(&mut self, change: Change, subject: &str) {
        self.changes.push((change, subject.to_owned()));
    }

    /// Holds a name until the transaction ends, as the version before does for handles.
    pub(crate) async fn lock(&mut self, name: &str) -> Result<()> {
        if let Some(statement) = self.inner.dialect().lock_name() {
            sqlx::query(statement).bind(name).execute(&mut self.inner).await?;
        }
        Ok(())
    }

    /// Makes everything that was written durable, then informs this process of the noted changes.
    /// Other processes read them from the feed.
    ///
    /// # Errors
    ///
    /// The database's own error. The transaction may be committed all the same, because a
    /// connection can break between the commit and its confirmation. Then this process too learns
    /// of the changes from the feed.
    pub(crate) async fn commit(self) -> Result<()> {
        let Self { inner, subscribers, changes } = self;
        inner.commit().await.map_err(|cause| {
            if lost_connection(&cause) { Error::Unconfirmed(UnconfirmedCommit(cause)) } else { cause.into() }
        })?;
        // Not earlier: a listener that dropped an entry before the commit could read the old row
        // again and cache it.
        for (change, subject) in &changes {
            subscribers.tell(*change, subject);
        }
        Ok(())
    }
}

impl Tx {
    /// Commits if the client still waits for the answer, which no other request can have. It then
    /// waits for the end of the commit. Otherwise everything is rolled back, and a repeated request
    /// can succeed.
    ///
    /// # Errors
    ///
    /// [`Error::ClientGone`] if the client has left, and those of [`Tx::commit`].
    pub(crate) async fn commit_for(self, client: &WaitingClient) -> Result<()> {
        if client.detain() { self.commit().await } else { Err(Error::ClientGone) }
    }
}

impl Deref for Tx {
    type Target = TxConnection;

    fn deref(&self) -> &TxConnection {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut TxConnection {
        &mut self.inner
    }
}
