//! Table `links`: the lease of a refresh and its result.
//!
//! A refresh is claimed by comparing the version, so that refreshed tokens are not refreshed again.
//! The row records that a refresh token is sent before it is sent.

use crate::base::Timestamp;
use crate::db::leases::LONGEST_DELAY;
use crate::db::{Db, Result};
use crate::links::discovery::Server;
use crate::links::id::LinkId;

/// New tokens, as they are written.
#[derive(Clone, Copy, Debug)]
pub(in crate::links) struct NewTokens<'a> {
    pub(in crate::links) sealed: &'a str,
    pub(in crate::links) scope: &'a str,
    pub(in crate::links) issued_at: Timestamp,
    pub(in crate::links) expires_at: Option<Timestamp>,
}

/// Claims the refresh of this version. Returns `false` if another worker has it, it is done, or the
/// session has ended.
pub(in crate::links) async fn take(
    db: &Db,
    id: &LinkId,
    version: i64,
    holder: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool> {
    // One statement is one step: of two processes that see a free lease, the second matches no row.
    let done = sqlx::query(
        "UPDATE links SET lease = $3, lease_until = $5
         WHERE id = $1 AND version = $2 AND (lease_until <= $4 OR lease_until > $6) AND state IN ('waiting', 'live')",
    )
    .bind(id.as_str())
    .bind(version)
    .bind(holder)
    .bind(now.as_millis())
    .bind(until.as_millis())
    // A lease that ends later than any lease can is of a clock that was wrong.
    .bind(until.plus(LONGEST_DELAY).as_millis())
    .execute(db.writer())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Records that the refresh token is being sent, and where. Returns `false` if the lease was lost.
pub(in crate::links) async fn sending(
    db: &Db,
    id: &LinkId,
    holder: &str,
    pds: &str,
    server: &Server,
    now: Timestamp,
) -> Result<bool> {
    // The lease is compared, and not the time: a holder that was late but not replaced may still
    // send.
    let done = sqlx::query(
        "UPDATE links SET sending_since = $3, unanswered = unanswered + 1, pds = $4, server = $5
         WHERE id = $1 AND lease = $2 AND state IN ('waiting', 'live')",
    )
    .bind(id.as_str())
    .bind(holder)
    .bind(now.as_millis())
    .bind(pds)
    .bind(server.to_json())
    .execute(db.writer())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes new tokens. Returns `false` if there are newer ones or the session has ended.
///
/// No other tokens are valid now, so the lease does not matter. The version does, so that newer
/// tokens are never overwritten.
pub(in crate::links) async fn rotate(db: &Db, id: &LinkId, version: i64, new: NewTokens<'_>) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE links SET sealed = $3, version = version + 1, scope = $4, issued_at = $5, expires_at = $6,
            lease = NULL, lease_until = 0, sending_since = NULL, unanswered = 0
         WHERE id = $1 AND version = $2 AND state IN ('waiting', 'live')",
    )
    .bind(id.as_str())
    .bind(version)
    .bind(new.sealed)
    .bind(new.scope)
    .bind(new.issued_at.as_millis())
    .bind(new.expires_at.map(Timestamp::as_millis))
    .execute(db.writer())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Releases the lease without new tokens. `answered` means that the server answered without using
/// the refresh token up. Without an answer, the record that it was sent stays, and so does the
/// doubt.
pub(in crate::links) async fn release(db: &Db, id: &LinkId, holder: &str, answered: bool) -> Result<()> {
    // Counted down and not set to zero: an earlier request whose answer was lost stays in doubt.
    let text = if answered {
        "UPDATE links SET lease = NULL, lease_until = 0, unanswered = unanswered - 1,
            sending_since = CASE WHEN unanswered > 1 THEN sending_since ELSE NULL END
         WHERE id = $1 AND lease = $2 AND sending_since IS NOT NULL"
    } else {
        "UPDATE links SET lease = NULL, lease_until = 0 WHERE id = $1 AND lease = $2"
    };
    sqlx::query(text).bind(id.as_str()).bind(holder).execute(db.writer()).await?;
    Ok(())
}
