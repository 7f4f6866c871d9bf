//! The end of a linked session.
//!
//! In one transaction the session and its grant end, for every replica. Then the session's server is
//! told, as often as necessary, and at last its secrets are erased.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use genkan_protocol::oauth::dpop::ProofKey;

use super::error::Reason;
use super::id::LinkId;
use super::server_client::TokenRequestError;
use super::service::{DAY, Links};
use super::sql::links::{self, Row, State};
use crate::base::Timestamp;
use crate::base::fetch::Pool;
use crate::db::audit::{self, Actor};
use crate::db::feed::{self, Change};
use crate::db::{self, Tx};
use crate::telemetry::metrics::LINKS;

/// Holds the row of a session that is not over until `tx` ends. `false`: it is over, or never was.
pub(crate) async fn hold(tx: &mut Tx, link: &LinkId) -> db::Result<bool> {
    links::hold(tx, link).await
}

/// Ends the session of a grant that ends in `tx`. A grant of a home account has none, which is no
/// error.
pub(crate) async fn end_with_grant(tx: &mut Tx, link: &LinkId, now: Timestamp) -> db::Result<()> {
    end_row(tx, link, Reason::GrantEnded, now).await?;
    Ok(())
}

/// `false`: it was over, or never was.
async fn end_row(tx: &mut Tx, link: &LinkId, reason: Reason, now: Timestamp) -> db::Result<bool> {
    // Several processes may end a session at once. Only for one does the update change the row.
    if !links::end(tx, link, reason, now).await? {
        return Ok(false);
    }
    audit::record(tx, now, Actor::Genkan, "link.end", link.as_str(), reason.as_str()).await?;
    // Every process forgets the credential, and one of them tells the server.
    feed::note(tx, Change::Link, link.as_str()).await?;
    Ok(true)
}

/// What must still be so for a session to end.
///
/// A server's refusal is about the tokens that it was shown. Meanwhile another call may have replaced
/// them, or be about to.
#[derive(Clone, Copy, Debug)]
pub(super) enum EndCondition<'a> {
    Always,
    /// It has this version.
    Version(i64),
    /// It has this version, and this worker refreshes it.
    Lease {
        version: i64,
        holder: &'a str,
    },
}

impl Links {
    /// Ends a session and its grant: at once in this process, and within seconds in the others. The
    /// server is told afterwards. Returns `false` if the session had ended or never existed.
    pub(crate) async fn end(&self, link: &LinkId, reason: Reason) -> db::Result<bool> {
        self.end_when(link, reason, EndCondition::Always).await
    }

    /// Ends a session and its grant under a condition. Returns `false` if the condition is not met,
    /// or the session had ended or never existed.
    pub(super) async fn end_when(
        &self,
        link: &LinkId,
        reason: Reason,
        condition: EndCondition<'_>,
    ) -> db::Result<bool> {
        let inner = &self.inner;
        let now = inner.now();
        let mut tx = inner.db.begin().await?;
        // In the transaction of the end: another process may store newer tokens at any moment.
        let is_met = match condition {
            EndCondition::Always => true,
            EndCondition::Version(version) => links::hold_version(&mut tx, link, version).await?,
            EndCondition::Lease { version, holder } => {
                links::hold_lease(&mut tx, link, version, holder).await?
            }
        };
        if !is_met || !end_row(&mut tx, link, reason, now).await? {
            return Ok(false);
        }
        inner.grants.end(&mut tx, link, now).await?;
        tx.commit().await?;
        tracing::info!(%link, reason = reason.as_str(), "a linked session ended");
        Ok(true)
    }

    /// Returns live sessions, a page of them in the order of ids. Leaves out those of the last
    /// minutes, whose grants may not exist yet.
    pub(crate) async fn live(&self, after: Option<&LinkId>, limit: i64) -> db::Result<Vec<LinkId>> {
        let before = self.inner.now().minus(UNDECIDED);
        links::live(&self.inner.db, after, before, limit).await
    }

    /// Returns the sessions that ended in the last hours, for the comparison with their grants.
    pub(crate) async fn ended_lately(&self) -> db::Result<Vec<LinkId>> {
        links::ended_since(&self.inner.db, self.inner.now().minus(LATELY)).await
    }

    /// Returns the ids of Genkan's client keys that sessions still need.
    pub(crate) async fn client_keys_in_use(&self) -> db::Result<Vec<String>> {
        links::client_keys(&self.inner.db).await
    }

    /// Tells the servers of sessions as they end, in any room and process. Runs until the process
    /// stops.
    ///
    /// It listens from this call on, not from the first poll. The job
    /// [`tell_servers`](Self::tell_servers) finds what it misses, such as the ends of a time without a
    /// running server.
    pub(crate) fn follow_ends(&self) -> impl Future<Output = ()> + Send + 'static {
        let (tell, mut hear) = tokio::sync::mpsc::unbounded_channel();
        // Listeners must be quick, so ids go through a channel.
        self.inner.feed.subscribe(Change::Link, move |link| drop(tell.send(LinkId::from(link))));
        let links = self.clone();
        // A few at once, so that a server that does not answer holds up no other one, and the thousand
        // sessions of a blocked client are not a thousand connections.
        let ended = stream::poll_fn(move |context| hear.poll_recv(context));
        ended.for_each_concurrent(TOLD_AT_ONCE, move |link| {
            let links = links.clone();
            async move { links.tell_server(&link).await }
        })
    }

    /// Job: tells servers which of their sessions ended.
    pub(crate) async fn tell_servers(&self) -> db::Result<u64> {
        let due = links::to_revoke(&self.inner.db, self.inner.now(), A_ROUND).await?;
        for link in &due {
            self.tell_server(link).await;
        }
        Ok(due.len() as u64)
    }

    /// Job: ends sessions of people who came back and never decided.
    pub(crate) async fn end_undecided(&self) -> db::Result<u64> {
        let before = self.inner.now().minus(UNDECIDED);
        let mut ended = 0;
        for link in links::undecided(&self.inner.db, before).await? {
            ended += u64::from(self.end(&link, Reason::Undecided).await?);
        }
        Ok(ended)
    }

    /// Job: refreshes sessions that were not refreshed for 30 days, so that their servers keep
    /// them.
    pub(crate) async fn keep_alive(&self) -> db::Result<u64> {
        let now = self.inner.now();
        let mut kept = 0;
        for (link, version) in links::take_idle(&self.inner.db, now.minus(DAY * 30), A_ROUND, now).await? {
            // One that fails stays idle, and is tried again after all others.
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
        let now = inner.now();
        let mut tx = inner.db.begin().await?;
        let Some(row) = links::take_revocation(&mut tx, link, now, now.plus(FIRST_PAUSE)).await? else {
            return Ok(());
        };
        // Committed before the request: no transaction stays open while another server answers.
        tx.commit().await?;
        let told = match (self.identity_of(&row).await, inner.open(&row)) {
            (Ok(Some(identity)), Ok(tokens)) => {
                let key = ProofKey::new(tokens.key);
                let pool = Pool::Revocations;
                let server = inner.server_client(pool, &row.server, &identity, link.as_str(), &key);
                // The refresh token first: it lives longer, and servers should revoke the access
                // tokens together with it (RFC 7009 §2.1).
                match server.revoke(&tokens.refresh, "refresh_token").await {
                    Ok(()) => server.revoke(&tokens.access, "access_token").await,
                    failed => failed,
                }
            }
            // The key is gone for good, so Genkan cannot prove to the server who asks.
            (Ok(None), _) => Ok(()),
            // Perhaps only this process lacks the key, or the sealing key of the secrets. Another
            // one may tell the server.
            (Err(_), _) | (_, Err(_)) => Err(TokenRequestError::NotSent("keys are missing here".into())),
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
            // The server was not asked, so this does not count among its attempts.
            Err(TokenRequestError::NotTried(_)) => {
                links::tell_again_uncounted(&mut tx, &row.id, now.plus(FIRST_PAUSE)).await?;
            }
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
const TOLD_AT_ONCE: usize = 8;
