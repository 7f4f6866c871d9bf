//! The end of a linked session.
//!
//! First it is over here, for every replica; then its server is told, as often as that takes; then its
//! secrets are erased.

use std::time::Duration;

use genkan_protocol::oauth::dpop::ProofKey;

use super::error::Reason;
use super::server_client::TokenRequestError;
use super::service::{DAY, Links};
use super::sql::links::{self, Row, State};
use crate::base::Timestamp;
use crate::db;
use crate::db::audit::{self, Actor};
use crate::db::feed::{self, Change};
use crate::telemetry::metrics::LINKS;

impl Links {
    /// Ends a session. It binds this process at once and others within seconds; its server is told afterwards, as
    /// often as that takes. `false`: it was over, or never was.
    pub(crate) async fn end(&self, link: &str, reason: Reason) -> db::Result<bool> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let mut tx = inner.db.begin().await?;
        // Several processes may end a session at once. Only the one whose update changed the row
        // goes on to tell the server.
        if !links::end(&mut tx, link, reason, now).await? {
            return Ok(false);
        }
        audit::record(&mut tx, now, Actor::Genkan, "link.end", link, reason.as_str()).await?;
        feed::note(&mut tx, now, Change::Link, link).await?;
        tx.commit().await?;
        // After the commit, so that a listener which reads the row finds it ended.
        if let Some(tell) = inner.end_listener.get() {
            tell(link);
        }
        tracing::info!(link, reason = reason.as_str(), "a linked session ended");
        if reason.is_told_to_server() {
            let (links, link) = (self.clone(), link.to_owned());
            // Spawned, because the caller must not wait for an external server. If this process
            // stops before, the job `tell_servers` finds the row.
            tokio::spawn(async move { links.tell_server(&link).await });
        }
        Ok(true)
    }

    /// Whether a session is over, or never was.
    pub(crate) async fn is_over(&self, link: &str) -> db::Result<bool> {
        links::is_over(&self.inner.db, link).await
    }

    /// Sessions that live, a page of them in the order of ids; not those of the last minutes, whose grants are under way.
    pub(crate) async fn live(&self, after: &str, limit: i64) -> db::Result<Vec<String>> {
        let before = self.inner.clock.now().minus(UNDECIDED);
        links::live(&self.inner.db, after, before, limit).await
    }

    /// Sessions that ended in the last hours, for the comparison with their grants.
    pub(crate) async fn ended_lately(&self) -> db::Result<Vec<String>> {
        links::ended_since(&self.inner.db, self.inner.clock.now().minus(LATELY)).await
    }

    /// The names of our keys that sessions still need.
    pub(crate) async fn client_keys_in_use(&self) -> db::Result<Vec<String>> {
        links::client_keys(&self.inner.db).await
    }

    /// Ends the sessions of grants that end, as the feed tells of them. For ever.
    pub(crate) async fn follow_grants(self) {
        let (tell, mut hear) = tokio::sync::mpsc::unbounded_channel();
        // Listeners must be quick, so ids go through a channel. It is unbounded: an id that was
        // dropped would leave its session alive until the next comparison.
        self.inner.feed.subscribe(Change::Grant, move |grant| drop(tell.send(grant.to_owned())));
        while let Some(grant) = hear.recv().await {
            // Most grants belong to home accounts and have no link.
            let ended = match self.is_over(&grant).await {
                Ok(true) => continue,
                Ok(false) => self.end(&grant, Reason::GrantEnded).await,
                Err(cause) => Err(cause),
            };
            if let Err(cause) = ended {
                // The comparison of all sessions with all grants comes round.
                tracing::warn!(
                    cause = &cause as &dyn std::error::Error,
                    grant,
                    "a session was not ended yet"
                );
            }
        }
    }

    /// Job: tells servers of sessions that ended.
    pub(crate) async fn tell_servers(&self) -> db::Result<u64> {
        let due = links::to_revoke(&self.inner.db, self.inner.clock.now(), A_ROUND).await?;
        for link in &due {
            self.tell_server(link).await;
        }
        Ok(due.len() as u64)
    }

    /// Job: people came back and went away.
    pub(crate) async fn end_undecided(&self) -> db::Result<u64> {
        let before = self.inner.clock.now().minus(UNDECIDED);
        let mut ended = 0;
        for link in links::undecided(&self.inner.db, before).await? {
            ended += u64::from(self.end(&link, Reason::Undecided).await?);
        }
        Ok(ended)
    }

    /// Job: refreshes sessions that were not used for 30 days, so that their servers keep them.
    pub(crate) async fn keep_alive(&self) -> db::Result<u64> {
        let before = self.inner.clock.now().minus(DAY * 30);
        let mut kept = 0;
        for (link, version) in links::idle(&self.inner.db, before, A_ROUND).await? {
            kept += u64::from(self.shared_refresh(&link, version).await.is_ok());
        }
        Ok(kept)
    }

    /// Job: counts sessions by state, for the metrics.
    pub(crate) async fn count(&self) -> db::Result<()> {
        let counted = links::count(&self.inner.db).await?;
        for state in State::ALL {
            let number =
                counted.iter().find(|(name, _)| name == state.as_str()).map_or(0, |(_, number)| *number);
            self.inner.metrics.gauge(&LINKS, &[state.as_str()]).set(number);
        }
        Ok(())
    }

    async fn tell_server(&self, link: &str) {
        if let Err(cause) = self.try_to_tell(link).await {
            tracing::warn!(cause = &cause as &dyn std::error::Error, link, "a session's end was not told");
        }
    }

    /// One attempt, by one replica at a time: the one that takes it on has until the next is due.
    async fn try_to_tell(&self, link: &str) -> db::Result<()> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let mut tx = inner.db.begin().await?;
        let Some(row) = links::take_revocation(&mut tx, link, now, now.plus(FIRST_PAUSE)).await? else {
            return Ok(());
        };
        tx.commit().await?;
        let told = match (inner.identity_of(&row), inner.open(&row)) {
            (Some(identity), Ok(tokens)) => {
                let key = ProofKey::new(tokens.key);
                let server = inner.server_client(&row.server, &identity, link, &key);
                // The refresh token first: it lives longer, and servers should end the access
                // tokens together with it (RFC 7009 §2.1).
                match server.revoke(&tokens.refresh, "refresh_token").await {
                    Ok(()) => server.revoke(&tokens.access, "access_token").await,
                    failed => failed,
                }
            }
            // Without the key or the secrets the server could not be told who asks, or about what.
            _ => Ok(()),
        };
        self.note_told(&row, told, now).await
    }

    async fn note_told(
        &self,
        row: &Row,
        told: Result<(), TokenRequestError>,
        now: Timestamp,
    ) -> db::Result<()> {
        let mut tx = self.inner.db.begin().await?;
        match told {
            Err(error) if row.revoke_attempts < MOST_ATTEMPTS && may_hear_later(&error) => {
                // One minute, doubled up to three hours. `revoke_attempts` already counts this
                // attempt, so the first failure doubles nothing.
                let doublings = u32::try_from(row.revoke_attempts.clamp(1, 10)).unwrap_or(1) - 1;
                let pause = (FIRST_PAUSE * 2_u32.pow(doublings)).min(DAY / 8);
                links::tell_again(&mut tx, &row.id, now.plus(pause)).await?;
            }
            told => {
                if let Err(error) = told {
                    tracing::warn!(link = row.id, answer = %error, "its server was not told that a session ended");
                }
                // The server was told, or it will not be asked again. In both cases the secrets
                // have no further use.
                links::erase(&mut tx, &row.id).await?;
            }
        }
        tx.commit().await
    }
}

/// A refusal stays one, but for our own mistakes that are mended.
fn may_hear_later(error: &TokenRequestError) -> bool {
    !matches!(
        error.code(),
        Some("invalid_grant" | "unsupported_token_type" | "invalid_token" | "invalid_request")
    )
}

/// How long a person may think.
const UNDECIDED: Duration = Duration::from_mins(15);
const LATELY: Duration = Duration::from_hours(3);
const FIRST_PAUSE: Duration = Duration::from_mins(1);
/// Two days, with the pauses between them.
const MOST_ATTEMPTS: i64 = 22;
const A_ROUND: i64 = 100;
