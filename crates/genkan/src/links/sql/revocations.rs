//! Table `links`: servers that must be told that a session ended.

use std::time::Duration;

use sqlx::Row as _;

use super::links::{COLUMNS, Row, issuer_of, read};
use crate::base::Timestamp;
use crate::db::{Db, Result, Tx};
use crate::links::id::LinkId;

/// Ended sessions whose servers must be told.
#[derive(Debug, Default)]
pub(in crate::links) struct ToRevoke {
    /// With the issuer of each one's server.
    pub(in crate::links) due: Vec<(String, LinkId)>,
    /// Those whose server cannot be read.
    pub(in crate::links) unreadable: Vec<LinkId>,
}

/// Returns a batch of ended sessions whose server must be told, those that are due the longest
/// first. One that is put off for longer than [`LONGEST_PAUSE`] is due as well: a clock was wrong
/// when it was put off.
pub(in crate::links) async fn to_revoke(db: &Db, now: Timestamp) -> Result<ToRevoke> {
    // Two ranges of the index. With an OR, PostgreSQL would read all sessions that are put off.
    let rows = sqlx::query(
        "SELECT id, server, revoke_at FROM (
            SELECT id, server, revoke_at FROM links WHERE state = 'ending' AND revoke_at <= $1
            ORDER BY revoke_at LIMIT 200) AS due
         UNION ALL SELECT id, server, revoke_at FROM (
            SELECT id, server, revoke_at FROM links WHERE state = 'ending' AND revoke_at > $2
            ORDER BY revoke_at LIMIT 200) AS delayed
         ORDER BY revoke_at LIMIT 200",
    )
    .bind(now.as_millis())
    .bind(now.plus(LONGEST_PAUSE).as_millis())
    .fetch_all(db.reader())
    .await?;
    let mut found = ToRevoke::default();
    for row in &rows {
        let id: LinkId = row.try_get::<String, _>("id")?.into();
        match issuer_of(row, &id) {
            Ok(issuer) => found.due.push((issuer, id)),
            Err(_) => found.unreadable.push(id),
        }
    }
    Ok(found)
}

/// Moves the telling of a server, which was not tried, to a later time.
pub(in crate::links) async fn put_off_revocation(
    tx: &mut Tx,
    id: &LinkId,
    now: Timestamp,
    until: Timestamp,
) -> Result<()> {
    // Only if it is still due: another process may have claimed it since it was read.
    sqlx::query(
        "UPDATE links SET revoke_at = $3
         WHERE id = $1 AND state = 'ending' AND (revoke_at <= $2 OR revoke_at > $4)",
    )
    .bind(id.as_str())
    .bind(now.as_millis())
    .bind(until.as_millis())
    .bind(now.plus(LONGEST_PAUSE).as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Claims the telling of a server until `again_at`. Returns `None` if another replica has claimed
/// it, or it is done.
pub(in crate::links) async fn take_revocation(
    tx: &mut Tx,
    id: &LinkId,
    now: Timestamp,
    again_at: Timestamp,
) -> Result<Option<Row>> {
    let text = format!(
        "UPDATE links SET revoke_at = $3, revoke_attempts = revoke_attempts + 1
         WHERE id = $1 AND state = 'ending' AND (revoke_at <= $2 OR revoke_at > $4) RETURNING {COLUMNS}"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(id.as_str())
        .bind(now.as_millis())
        .bind(again_at.as_millis())
        .bind(now.plus(LONGEST_PAUSE).as_millis())
        .fetch_optional(&mut **tx)
        .await?;
    row.as_ref().map(read).transpose()
}

/// Schedules another attempt, because the server was not reached.
pub(in crate::links) async fn tell_again(tx: &mut Tx, id: &LinkId, again_at: Timestamp) -> Result<()> {
    sqlx::query("UPDATE links SET revoke_at = $2 WHERE id = $1 AND state = 'ending'")
        .bind(id.as_str())
        .bind(again_at.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Puts off a revocation that did not begin. It does not count as an attempt.
pub(in crate::links) async fn tell_again_uncounted(
    tx: &mut Tx,
    id: &LinkId,
    again_at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "UPDATE links SET revoke_at = $2, revoke_attempts = revoke_attempts - 1
         WHERE id = $1 AND state = 'ending' AND revoke_attempts > 0",
    )
    .bind(id.as_str())
    .bind(again_at.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Erases the secrets of a session: its server was told, or never will be.
pub(in crate::links) async fn erase(tx: &mut Tx, id: &LinkId) -> Result<()> {
    sqlx::query(
        "UPDATE links SET state = 'dead', sealed = NULL, revoke_at = NULL WHERE id = $1 AND state = 'ending'",
    )
    .bind(id.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Longer than the pause between two attempts to tell a server.
const LONGEST_PAUSE: Duration = Duration::from_hours(4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;
    use crate::links::error::Reason;
    use crate::links::sql::leases;
    use crate::links::sql::links::end;
    use crate::links::testing::insert_live;

    on_each_database!(a_clock_that_was_ahead_delays_neither_a_refresh_nor_a_revocation);

    async fn a_clock_that_was_ahead_delays_neither_a_refresh_nor_a_revocation(db: Db) {
        let did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
        let now = Timestamp::from_seconds(1_000_000);
        let later = |hours| now.plus(Duration::from_hours(hours));
        let take = async |id: &LinkId, holder: &str, at: Timestamp| {
            leases::take(&db, id, 1, holder, at, at.plus(Duration::from_secs(20))).await.unwrap()
        };
        let link = LinkId::from("refreshed");
        insert_live(&db, &link, &did, now).await;
        assert!(take(&link, "of a clock that is ahead", later(1)).await);
        assert!(take(&link, "of the right clock", now).await, "an hour is no lease");
        assert!(!take(&link, "another", now).await, "the right clock's lease holds");

        let link = LinkId::from("revoked");
        insert_live(&db, &link, &did, now).await;
        let mut tx = db.begin().await.unwrap();
        assert!(end(&mut tx, &link, Reason::GrantEnded, now).await.unwrap());
        // The longest pause of all, by a clock that is far ahead.
        tell_again(&mut tx, &link, later(24 + 3)).await.unwrap();
        tx.commit().await.unwrap();
        let issuer = "https://pds.example.com".to_owned();
        assert_eq!(to_revoke(&db, now).await.unwrap().due, [(issuer, link.clone())]);
        let mut tx = db.begin().await.unwrap();
        let taken = take_revocation(&mut tx, &link, now, now.plus(Duration::from_mins(1))).await.unwrap();
        tx.commit().await.unwrap();
        assert!(taken.is_some());
        assert_eq!(to_revoke(&db, now).await.unwrap().due, [], "it is put off by the right clock");

        let mut tx = db.begin().await.unwrap();
        tell_again(&mut tx, &link, later(24)).await.unwrap();
        put_off_revocation(&mut tx, &link, now, later(1)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(to_revoke(&db, now).await.unwrap().due, [], "it was put off, from a day ahead");
    }
}
