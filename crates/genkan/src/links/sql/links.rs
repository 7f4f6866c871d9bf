//! Table `links`: sessions from their beginning to their end. The lease of a refresh is in `leases`,
//! the telling of servers in `revocations`, and the turns of idle sessions in `turns`.

use genkan_protocol::syntax::Did;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::base::{Origin, Timestamp};
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Error, Result, Tx};
use crate::links::discovery::Server;
use crate::links::error::Reason;
use crate::links::id::LinkId;

/// A stored session.
#[derive(Clone, Debug)]
pub(in crate::links) struct Row {
    pub(in crate::links) id: LinkId,
    pub(in crate::links) did: Did,
    pub(in crate::links) handle: Option<String>,
    pub(in crate::links) pds: Origin,
    pub(in crate::links) server: Server,
    pub(in crate::links) client_id: String,
    pub(in crate::links) client_key: Option<String>,
    pub(in crate::links) scope: String,
    pub(in crate::links) state: State,
    pub(in crate::links) sealed: Option<String>,
    pub(in crate::links) version: i64,
    pub(in crate::links) issued_at: Timestamp,
    pub(in crate::links) expires_at: Option<Timestamp>,
    /// How often the refresh token of this version was sent without a stored answer.
    pub(in crate::links) unanswered: i64,
    pub(in crate::links) request: Option<String>,
    pub(in crate::links) device: String,
    pub(in crate::links) created_at: Timestamp,
    pub(in crate::links) used_at: Timestamp,
    pub(in crate::links) reason: Option<Reason>,
    pub(in crate::links) revoke_attempts: i64,
}

/// The state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// The person has returned and not decided yet.
    Waiting,
    Live,
    /// Ended for everybody. The server has not been told yet.
    Ending,
    Dead,
}

impl State {
    pub(crate) const ALL: [Self; 4] = [Self::Waiting, Self::Live, Self::Ending, Self::Dead];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Live => "live",
            Self::Ending => "ending",
            Self::Dead => "dead",
        }
    }

    pub(in crate::links) const fn is_usable(self) -> bool {
        matches!(self, Self::Waiting | Self::Live)
    }
}

pub(super) const COLUMNS: &str = "id, did, handle, pds, server, client_id, client_key, scope, state, sealed, version, \
     issued_at, expires_at, unanswered, request, device, created_at, used_at, reason, revoke_attempts";

pub(in crate::links) async fn insert(tx: &mut Tx, row: &Row) -> Result<()> {
    sqlx::query(
        "INSERT INTO links (id, did, handle, pds, server, client_id, client_key, scope, state, sealed, version,
            issued_at, expires_at, lease_until, unanswered, request, device, created_at, used_at, revoke_attempts)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0, 0, $14, $15, $16, $17, 0)",
    )
    .bind(row.id.as_str())
    .bind(row.did.as_str())
    .bind(row.handle.as_deref())
    .bind(row.pds.as_str())
    .bind(row.server.to_json())
    .bind(&row.client_id)
    .bind(row.client_key.as_deref())
    .bind(&row.scope)
    .bind(row.state.as_str())
    .bind(row.sealed.as_deref())
    .bind(row.version)
    .bind(row.issued_at.as_millis())
    .bind(row.expires_at.map(Timestamp::as_millis))
    .bind(row.request.as_deref())
    .bind(&row.device)
    .bind(row.created_at.as_millis())
    .bind(row.used_at.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(in crate::links) async fn find(db: &Db, id: &LinkId) -> Result<Option<Row>> {
    let text = format!("SELECT {COLUMNS} FROM links WHERE id = $1");
    let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id.as_str()).fetch_optional(db.reader()).await?;
    row.as_ref().map(read).transpose()
}

/// Returns an account's usable sessions, the newest first.
pub(in crate::links) async fn of_account(db: &Db, did: &Did) -> Result<Vec<Row>> {
    let text = format!(
        "SELECT {COLUMNS} FROM links WHERE did = $1 AND state IN ('waiting', 'live') ORDER BY created_at DESC LIMIT 1000"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(did.as_str()).fetch_all(db.reader()).await?;
    rows.iter().map(read).collect()
}

/// Returns the newest session in this browser that waits for the decision on an authorization
/// request.
pub(in crate::links) async fn waiting(db: &Db, request: &str, device: &str) -> Result<Option<Row>> {
    let text = format!(
        "SELECT {COLUMNS} FROM links WHERE request = $1 AND device = $2 AND state = 'waiting'
         ORDER BY created_at DESC LIMIT 1"
    );
    let row =
        sqlx::query(sqlx::AssertSqlSafe(text)).bind(request).bind(device).fetch_optional(db.reader()).await?;
    row.as_ref().map(read).transpose()
}

/// Makes a waiting session live. Returns `false` if it has ended.
pub(in crate::links) async fn keep(tx: &mut Tx, id: &LinkId, now: Timestamp) -> Result<bool> {
    // A repeated approval finds the session live already, which is no error.
    let done = sqlx::query(
        "UPDATE links SET state = 'live', used_at = $2 WHERE id = $1 AND state IN ('waiting', 'live')",
    )
    .bind(id.as_str())
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(in crate::links) async fn used(tx: &mut Tx, id: &LinkId, now: Timestamp) -> Result<()> {
    sqlx::query("UPDATE links SET used_at = $2 WHERE id = $1")
        .bind(id.as_str())
        .bind(now.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Holds a session's row until `tx` ends. Returns `false` if the session has ended or never existed.
pub(in crate::links) async fn hold(tx: &mut Tx, id: &LinkId) -> Result<bool> {
    // The update changes nothing. It takes the row's lock in the one way that both databases know.
    let held =
        sqlx::query("UPDATE links SET version = version WHERE id = $1 AND state IN ('waiting', 'live')")
            .bind(id.as_str())
            .execute(&mut **tx)
            .await?;
    Ok(held.rows_affected() == 1)
}

/// Holds a session's row while it has this version. Returns `false` if it has a newer one, has ended
/// or never existed.
pub(in crate::links) async fn hold_version(tx: &mut Tx, id: &LinkId, version: i64) -> Result<bool> {
    let held = sqlx::query(
        "UPDATE links SET version = version WHERE id = $1 AND version = $2 AND state IN ('waiting', 'live')",
    )
    .bind(id.as_str())
    .bind(version)
    .execute(&mut **tx)
    .await?;
    Ok(held.rows_affected() == 1)
}

/// Holds a session's row while it has this version and this worker refreshes it.
pub(in crate::links) async fn hold_lease(
    tx: &mut Tx,
    id: &LinkId,
    version: i64,
    holder: &str,
) -> Result<bool> {
    let held = sqlx::query(
        "UPDATE links SET version = version
         WHERE id = $1 AND version = $2 AND lease = $3 AND state IN ('waiting', 'live')",
    )
    .bind(id.as_str())
    .bind(version)
    .bind(holder)
    .execute(&mut **tx)
    .await?;
    Ok(held.rows_affected() == 1)
}

/// Ends a session for everybody. Secrets that its server need not be told about are erased at once.
/// Returns `false` if it had already ended.
pub(in crate::links) async fn end(tx: &mut Tx, id: &LinkId, reason: Reason, now: Timestamp) -> Result<bool> {
    // The server is told with the tokens, so they are kept until then. Otherwise they are erased
    // now.
    let text = if reason.is_told_to_server() {
        "UPDATE links SET state = 'ending', ended_at = $2, reason = $3, revoke_at = $2
         WHERE id = $1 AND state IN ('waiting', 'live')"
    } else {
        "UPDATE links SET state = 'dead', ended_at = $2, reason = $3, sealed = NULL
         WHERE id = $1 AND state IN ('waiting', 'live')"
    };
    let done = sqlx::query(text)
        .bind(id.as_str())
        .bind(now.as_millis())
        .bind(reason.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns a page of sessions after `after` in the order of ids that returned before `before` and were
/// never decided.
pub(in crate::links) async fn undecided(
    db: &Db,
    after: Option<&LinkId>,
    before: Timestamp,
) -> Result<Vec<LinkId>> {
    let rows = sqlx::query(
        "SELECT id FROM links WHERE state = 'waiting' AND id > $1 AND created_at < $2 ORDER BY id LIMIT 200",
    )
    .bind(after.map_or("", LinkId::as_str))
    .bind(before.as_millis())
    .fetch_all(db.reader())
    .await?;
    rows.iter().map(|row| Ok(row.try_get::<String, _>("id")?.into())).collect()
}

/// Returns a page of live sessions after `after` in the order of ids, created before `before`.
pub(in crate::links) async fn live(
    db: &Db,
    after: Option<&LinkId>,
    before: Timestamp,
) -> Result<Vec<LinkId>> {
    let rows = sqlx::query(
        "SELECT id FROM links WHERE state = 'live' AND id > $1 AND created_at < $2 ORDER BY id LIMIT 200",
    )
    .bind(after.map_or("", LinkId::as_str))
    .bind(before.as_millis())
    .fetch_all(db.reader())
    .await?;
    rows.iter().map(|row| Ok(row.try_get::<String, _>("id")?.into())).collect()
}

/// A session that ended, and when: a position in the order of ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndedLink {
    pub(crate) id: LinkId,
    pub(crate) at: Timestamp,
}

/// Returns a page of sessions that ended by `until`, in the order of their ends.
pub(in crate::links) async fn ended_after(
    db: &Db,
    after: &EndedLink,
    until: Timestamp,
) -> Result<Vec<EndedLink>> {
    let rows = sqlx::query(
        "SELECT id, ended_at FROM links WHERE (ended_at, id) > ($1, $2) AND ended_at <= $3
         ORDER BY ended_at, id LIMIT 200",
    )
    .bind(after.at.as_millis())
    .bind(after.id.as_str())
    .bind(until.as_millis())
    .fetch_all(db.reader())
    .await?;
    rows.iter()
        .map(|row| {
            let id = row.try_get::<String, _>("id")?.into();
            Ok(EndedLink { id, at: Timestamp::from_millis(row.try_get("ended_at")?) })
        })
        .collect()
}

pub(super) fn issuer_of(row: &AnyRow, id: &LinkId) -> Result<String> {
    let server = Server::of_json(&row.try_get::<String, _>("server")?);
    Ok(server.ok_or_else(|| Error::corrupt("links", "server", id.as_str()))?.issuer)
}

/// Counts the next sessions in a state, in the order of ids. Returns their number and the last one;
/// fewer than [`COUNTED_AT_ONCE`] are the last ones.
pub(in crate::links) async fn count_some(db: &Db, state: State, after: &str) -> Result<(i64, String)> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS number, COALESCE(MAX(id), '') AS last FROM (
            SELECT id FROM links WHERE state = $1 AND id > $2 ORDER BY id LIMIT 5000) AS counted",
    )
    .bind(state.as_str())
    .bind(after)
    .fetch_one(db.reader())
    .await?;
    Ok((row.try_get("number")?, row.try_get("last")?))
}

pub(in crate::links) const COUNTED_AT_ONCE: i64 = 5000;

/// Whether a session that began with this client key still needs it, which it does for its whole
/// life.
pub(in crate::links) async fn is_client_key_in_use(db: &Db, key: &str) -> Result<bool> {
    // A session that is ending still needs its key, to sign the call that revokes it.
    let row = sqlx::query("SELECT 1 FROM links WHERE client_key = $1 AND state <> 'dead' LIMIT 1")
        .bind(key)
        .fetch_optional(db.reader())
        .await?;
    Ok(row.is_some())
}

/// Removes a batch of sessions that ended in `range`.
pub(in crate::links) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows { table: "links", key: "id", time: "ended_at", only: Some("state = 'dead'") };
    old.sweep(db, range).await
}

pub(super) fn read(row: &AnyRow) -> Result<Row> {
    let id: LinkId = row.try_get::<String, _>("id")?.into();
    let corrupt = |column| Error::corrupt("links", column, id.as_str());
    let time = |column| Ok::<_, Error>(Timestamp::from_millis(row.try_get(column)?));
    let state: String = row.try_get("state")?;
    let reason: Option<String> = row.try_get("reason")?;
    Ok(Row {
        did: row.try_get::<String, _>("did")?.parse().map_err(|_| corrupt("did"))?,
        handle: row.try_get("handle")?,
        pds: row.try_get::<String, _>("pds")?.parse().map_err(|_| corrupt("pds"))?,
        server: Server::of_json(&row.try_get::<String, _>("server")?).ok_or_else(|| corrupt("server"))?,
        client_id: row.try_get("client_id")?,
        client_key: row.try_get("client_key")?,
        scope: row.try_get("scope")?,
        state: State::ALL.into_iter().find(|one| one.as_str() == state).ok_or_else(|| corrupt("state"))?,
        sealed: row.try_get("sealed")?,
        version: row.try_get("version")?,
        issued_at: time("issued_at")?,
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(Timestamp::from_millis),
        unanswered: row.try_get("unanswered")?,
        request: row.try_get("request")?,
        device: row.try_get("device")?,
        created_at: time("created_at")?,
        used_at: time("used_at")?,
        reason: reason.as_deref().and_then(Reason::parse),
        revoke_attempts: row.try_get("revoke_attempts")?,
        id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;
    use crate::links::testing::insert_live;

    on_each_database!(what_ended_by_a_clock_that_was_ahead_is_not_compared_yet);

    async fn what_ended_by_a_clock_that_was_ahead_is_not_compared_yet(db: Db) {
        let did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
        let second = Timestamp::from_seconds;
        for id in ["ahead", "right"] {
            insert_live(&db, &id.into(), &did, second(1)).await;
        }
        let mut tx = db.begin().await.unwrap();
        for (id, at) in [("ahead", 500), ("right", 100)] {
            assert!(end(&mut tx, &id.into(), Reason::GrantEnded, second(at)).await.unwrap());
        }
        tx.commit().await.unwrap();
        let from = EndedLink { id: "".into(), at: second(0) };
        let page = ended_after(&db, &from, second(200)).await.unwrap();
        assert_eq!(page, [EndedLink { id: "right".into(), at: second(100) }]);
    }
}
