//! What a refresh notes about a session besides its tokens: its lease, its pauses, and the use of its
//! client document.

use std::time::Duration;

use super::client::Client;
use super::service::Inner;
use super::sql::links::Row;
use super::sql::{clients, leases};
use crate::db;

impl Inner {
    /// Releases the lease of a refresh that has no new tokens. `answered` means that the server
    /// answered without using the refresh token up, or that nothing was sent.
    pub(super) async fn release(&self, row: &Row, holder: &str, answered: bool) {
        if let Err(cause) = leases::release(&self.db, &row.id, holder, answered).await {
            // The lease runs out on its own.
            tracing::warn!(
                cause = &cause as &dyn std::error::Error,
                link = %row.id,
                "a lease was not released"
            );
        }
    }

    /// Returns the longer of the running pauses of this session and of its server.
    pub(super) fn pause(&self, row: &Row) -> Option<Duration> {
        let now = self.clock.now();
        self.backoff
            .links
            .pause(row.id.as_str(), now)
            .max(self.backoff.servers.pause(&row.server.issuer, now))
    }

    /// Keeps the client document of a session for as long as the session is refreshed.
    pub(super) async fn note_client(&self, row: &Row) {
        let Some(hash) = Client::own_document(&row.client_id) else { return };
        let note = db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            clients::note_use(&mut tx, hash, self.clock.now()).await?;
            tx.commit().await
        });
        if let Err(cause) = note.await {
            // The next refresh tries again. The document lives for two years from its last use.
            let cause = &cause as &dyn std::error::Error;
            tracing::warn!(cause, link = %row.id, "the use of a client document was not noted");
        }
    }
}
