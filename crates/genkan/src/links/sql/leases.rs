//! Table `links`: who refreshes a session, and what came of it.
//!
//! A refresh is claimed by comparing the version, so that nobody refreshes what was refreshed already; that the token
//! leaves the house is written before it does.

use crate::base::Timestamp;
use crate::db::{Db, Result};
use crate::links::discovery::Server;

/// Tokens that came, as they are written.
#[derive(Clone, Copy, Debug)]
pub(in crate::links) struct NewTokens<'a> {
    pub(in crate::links) sealed: &'a str,
    pub(in crate::links) scope: &'a str,
    pub(in crate::links) issued_at: Timestamp,
    pub(in crate::links) expires_at: Option<Timestamp>,
}

/// Takes on the refresh of this version. `false`: somebody else does, or it is done, or the session is over.
pub(in crate::links) async fn take(
    db: &Db,
    id: &str,
    version: i64,
    holder: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool> {
    let mut tx = db.begin().await?;
    let done = sqlx::query(
        "UPDATE links SET lease = $3, lease_until = $5
         WHERE id = $1 AND version = $2 AND lease_until <= $4 AND state IN ('waiting', 'live')",
    )
    .bind(id)
    .bind(version)
    .bind(holder)
    .bind(now.as_millis())
    .bind(until.as_millis())
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}

/// Before the refresh token leaves the house: where to, and that it did. `false`: the lease was lost.
pub(in crate::links) async fn sending(
    db: &Db,
    id: &str,
    holder: &str,
    pds: &str,
    server: &Server,
    now: Timestamp,
) -> Result<bool> {
    let mut tx = db.begin().await?;
    let done = sqlx::query(
        "UPDATE links SET sending_since = $3, unanswered = unanswered + 1, pds = $4, server = $5
         WHERE id = $1 AND lease = $2 AND state IN ('waiting', 'live')",
    )
    .bind(id)
    .bind(holder)
    .bind(now.as_millis())
    .bind(pds)
    .bind(server.to_json())
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}

/// New tokens. They are the only good ones now, so that the lease does not matter, but nobody's newer ones are
/// overwritten. `false`: there are newer ones, or the session is over.
pub(in crate::links) async fn rotate(db: &Db, id: &str, version: i64, new: NewTokens<'_>) -> Result<bool> {
    let mut tx = db.begin().await?;
    let done = sqlx::query(
        "UPDATE links SET sealed = $3, version = version + 1, scope = $4, issued_at = $5, expires_at = $6,
            lease = NULL, lease_until = 0, sending_since = NULL, unanswered = 0
         WHERE id = $1 AND version = $2 AND state IN ('waiting', 'live')",
    )
    .bind(id)
    .bind(version)
    .bind(new.sealed)
    .bind(new.scope)
    .bind(new.issued_at.as_millis())
    .bind(new.expires_at.map(Timestamp::as_millis))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}

/// No new tokens. `answered`: the server said so itself, and did not use the refresh token up.
pub(in crate::links) async fn release(db: &Db, id: &str, holder: &str, answered: bool) -> Result<()> {
    let mut tx = db.begin().await?;
    let text = if answered {
        "UPDATE links SET lease = NULL, lease_until = 0, unanswered = unanswered - 1,
            sending_since = CASE WHEN unanswered > 1 THEN sending_since ELSE NULL END
         WHERE id = $1 AND lease = $2 AND sending_since IS NOT NULL"
    } else {
        "UPDATE links SET lease = NULL, lease_until = 0 WHERE id = $1 AND lease = $2"
    };
    sqlx::query(text).bind(id).bind(holder).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}
