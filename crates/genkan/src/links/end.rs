//! The end of a linked session.
//!
//! The session ends here first, for every replica. Then its server is told, as often as necessary,
//! and at last its secrets are erased.

use std::time::Duration;

use genkan_protocol::oauth::dpop::ProofKey;

use super::error::Reason;
use super::id::LinkId;
use super::server_client::TokenRequestError;
use super::service::{DAY, Links};
use super::sql::links::{self, Row, State};
use crate::base::Timestamp;
use crate::db;
use crate::db::audit::{self, Actor};
use crate::db::feed::{self, Change};
use crate::telemetry::metrics::LINKS;

impl Links {
    /// Ends a session: at once in this process, and within seconds in the others. Its server is
    /// told afterwards. Returns `false` if the session had ended or never existed.
    pub(crate) async fn end(&self, link: &LinkId, reason: Reason) -> db::Result<bool> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let mut tx = inner.db.begin().await?;
        // Several processes may end a session at once. Only the one whose update changed the row
        // continues and tells the server.
        if !links::end(&mut tx, link, reason, now).await? {
            return Ok(false);
        }
        audit::record(&mut tx, now, Actor::Genkan, "link.end", link.as_str(), reason.as_str()).await?;
        feed::note(&mut tx, now, Change::Link, link.as_str()).await?;
        tx.commit().await?;
        // After the commit, so that a listener that reads the row finds it ended.
        if let Some(tell) = inner.end_listener.get() {
            tell(link);
        }
        tracing::info!(%link, reason = reason.as_str(), "a linked session ended");
        if reason.is_told_to_server() {
            let (links, link) = (self.clone(), link.clone());
            // Spawned, because the caller must not wait for an external server. If this process
            // stops first, the job `tell_servers` finds the row.
            tokio::spawn(async move { links.tell_server(&link).await });
        }
        Ok(true)
    }

    /// Whether a session has ended or never existed.
    pub(crate) async fn is_over(&self, link: &LinkId) -> db::Result<bool> {
        links::is_over(&self.inner.db, link).await
    }

    /// Returns live sessions, a page of them in the order of ids. Leaves out those of the last
    /// minutes, whose grants may not exist yet.
    pub(crate) async fn live(&self, after: Option<&LinkId>, limit: i64) -> db::Result<Vec<LinkId>> {
        let before = self.inner.clock.now().minus(UNDECIDED);
        links::live(&self.inner.db, after, before, limit).await
    }

    /// Returns the sessions that ended in the last hours, for the comparison with their grants.
    pub(crate) async fn ended_lately(&self) -> db::Result<Vec<LinkId>> {
        links::ended_since(&self.inner.db, self.inner.clock.now().minus(LATELY)).await
    }

    /// Returns the ids of Genkan's client keys that sessions still need.
    pub(crate) async fn client_keys_in_use(&self) -> db::Result<Vec<String>> {
        links::client_keys(&self.inner.db).await
    }

    /// Ends the sessions of grants that the feed reports as ended. Runs until the process stops.
    pub(crate) async fn follow_grants(self) {
        let (tell, mut hear) = tokio::sync::mpsc::unbounded_channel();
        // Listeners must be quick, so ids go through a channel. It is unbounded: a dropped id would
        // leave its session alive until the next comparison.
        self.inner.feed.subscribe(Change::Grant, move |grant| drop(tell.send(LinkId::from(grant))));
        while let Some(link) = hear.recv().await {
            // A link has the id of its grant. Most grants belong to home accounts and have no link.
            let ended = match self.is_over(&link).await {
                Ok(true) => continue,
                Ok(false) => self.end(&link, Reason::GrantEnded).await,
                Err(cause) => Err(cause),
            };
            if let Err(cause) = ended {
                // The regular comparison of all sessions with all grants will end it.
                tracing::warn!(
                    cause = &cause as &dyn std::error::Error,
                    %link,
                    "a session was not ended yet"
                );
            }
        }
    }

    /// Job: tells servers which of their sessions ended.
    pub(crate) async fn tell_servers(&self) -> db::Result<u64> {
        let due = links::to_revoke(&self.inner.db, self.inner.clock.now(), A_ROUND).await?;
        for link in &due {
            self.tell_server(link).await;
        }
        Ok(due.len() as u64)
    }

    /// Job: ends sessions of people who came back and never decided.
    pub(crate) async fn end_undecided(&self) -> db::Result<u64> {
        let before = self.inner.clock.now().minus(UNDECIDED);
        let mut ended = 0;
        for link in links::undecided(&self.inner.db, before).await? {
            ended += u64::from(self.end(&link, Reason::Undecided).await?);
        }
        Ok(ended)
    }

    /// Job: refreshes sessions that were not refreshed for 30 days, so that their servers keep
    /// them.
    pub(crate) async fn keep_alive(&self) -> db::Result<u64> {
        let before = self.inner.clock.now().minus(DAY * 30);
        let mut kept = 0;
        for (link, version) in links::idle(&self.inner.db, before, A_ROUND).await? {
            // One that fails stays idle, and the next round tries it again.
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

    async fn tell_server(&self, link: &LinkId) {
        if let Err(cause) = self.try_to_tell(link).await {
            tracing::warn!(
                cause = &cause as &dyn std::error::Error,
                %link,
                "a server could not be told that a session ended"
            );
        }
    }

    /// Tells the server once. The replica that claims the row has it until the next attempt is due.
    async fn try_to_tell(&self, link: &LinkId) -> db::Result<()> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let mut tx = inner.db.begin().await?;
        let Some(row) = links::take_revocation(&mut tx, link, now, now.plus(FIRST_PAUSE)).await? else {
            return Ok(());
        };
        // Committed before the request: no transaction stays open while another server answers.
        tx.commit().await?;
        let told = match (inner.identity_of(&row), inner.open(&row)) {
            (Some(identity), Ok(tokens)) => {
                let key = ProofKey::new(tokens.key);
                let server = inner.server_client(&row.server, &identity, link.as_str(), &key);
                // The refresh token first: it lives longer, and servers should revoke the access
                // tokens together with it (RFC 7009 §2.1).
                match server.revoke(&tokens.refresh, "refresh_token").await {
                    Ok(()) => server.revoke(&tokens.access, "access_token").await,
                    failed => failed,
                }
            }
            // Without the key or the secrets Genkan cannot prove to the server who asks, or about
            // which tokens.
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
                    tracing::warn!(link = %row.id, answer = %error, "a server was not told that its session ended");
                }
                // The server was told, or will not be told again. In both cases the secrets have no
                // further use.
                links::erase(&mut tx, &row.id).await?;
            }
        }
        tx.commit().await
    }
}

/// Whether another attempt may succeed. A refusal is final, except for mistakes on Genkan's side
/// that can be corrected.
fn may_hear_later(error: &TokenRequestError) -> bool {
    !matches!(
        error.code(),
        Some("invalid_grant" | "unsupported_token_type" | "invalid_token" | "invalid_request")
    )
}

/// How long a person may take to decide.
const UNDECIDED: Duration = Duration::from_mins(15);
const LATELY: Duration = Duration::from_hours(3);
const FIRST_PAUSE: Duration = Duration::from_mins(1);
/// Two days, including the pauses between them.
const MOST_ATTEMPTS: i64 = 22;
const A_ROUND: i64 = 100;
