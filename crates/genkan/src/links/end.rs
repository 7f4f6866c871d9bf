//! The end of a linked session: in one transaction the session and its grant end, for every
//! replica. Its server is told afterwards, see `tell`.

use super::error::Reason;
use super::id::LinkId;
use super::service::Links;
use super::sql::links;
use crate::base::Timestamp;
use crate::db::audit::{self, Actor};
use crate::db::feed::{self, Change};
use crate::db::{self, Tx};

/// Holds the row of a session that is not over until `tx` ends. `false`: it is over, or never was.
pub(crate) async fn hold(tx: &mut Tx, link: &LinkId) -> db::Result<bool> {
    links::hold(tx, link).await
}

/// Keeps a session whose person allowed the app, as part of `tx`. Returns `false` if it has ended.
pub(crate) async fn keep(tx: &mut Tx, link: &LinkId, now: Timestamp) -> db::Result<bool> {
    links::keep(tx, link, now).await
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
        let ended = db::repeated(|| self.end_once(link, reason, condition)).await?;
        if ended {
            tracing::info!(%link, reason = reason.as_str(), "a linked session ended");
        }
        Ok(ended)
    }

    async fn end_once(&self, link: &LinkId, reason: Reason, condition: EndCondition<'_>) -> db::Result<bool> {
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
        Ok(true)
    }
}
