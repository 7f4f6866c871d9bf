//! Table `links`: sessions from their beginning to their end. The lease of a refresh is in
//! `leases`.

use genkan_protocol::syntax::Did;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::base::{Origin, Timestamp};
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::turns::{Turns, heal_turns};
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

const COLUMNS: &str = "id, did, handle, pds, server, client_id, client_key, scope, state, sealed, version, \
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

/// A live session whose turn it is in the job that keeps idle ones alive.
#[derive(Clone, Debug)]
pub(in crate::links) struct Turn {
    pub(in crate::links) id: LinkId,
    pub(in crate::links) version: i64,
    /// `None`: the row cannot be read.
    pub(in crate::links) issuer: Option<String>,
    pub(in crate::links) issued_at: Timestamp,
}

/// The times of the job that keeps idle sessions alive.
#[derive(Clone, Copy, Debug)]
pub(in crate::links) struct IdleTimes {
    pub(in crate::links) now: Timestamp,
    /// A session that was refreshed before this is idle.
    pub(in crate::links) idle_before: Timestamp,
    /// When an idle one has its next turn. One that is not idle has it when it would become idle.
    pub(in crate::links) again_at: Timestamp,
}

impl IdleTimes {
    /// Whether a session that was refreshed then is idle. If a clock was ahead at that time, it is
    /// not known when that was.
    pub(in crate::links) fn is_idle(&self, issued_at: Timestamp) -> bool {
        issued_at < self.idle_before || issued_at > self.again_at
    }

    /// No later turn is chosen.
    fn latest_turn(&self) -> Timestamp {
        self.again_at.plus(self.now.since(self.idle_before)).plus(Duration::from_millis(1))
    }
}

/// Takes a batch of live sessions whose turn it is, those that wait the longest first, and gives each
/// its next turn. So a session whose server is gone holds up no other one.
pub(in crate::links) async fn take_turns(db: &Db, times: IdleTimes) -> Result<Vec<Turn>> {
    heal_turns(db.writer(), &TURNS, times.now, times.latest_turn()).await?;
    // Refreshes do not write `keep_alive_due`, so most that come up are not idle. Each session comes
    // up about once a month.
    let most = db.rows_at_once();
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "UPDATE links SET kept_alive_at = $1,
            keep_alive_due = CASE WHEN issued_at < $2 OR issued_at > $3 THEN $3
                ELSE issued_at + ($1 - $2) + 1 END
         WHERE state = 'live' AND keep_alive_due <= $1 AND id IN (
            SELECT id FROM links WHERE state = 'live' AND keep_alive_due <= $1
            ORDER BY keep_alive_due LIMIT {most}
         ) RETURNING id, version, server, issued_at"
    )))
    .bind(times.now.as_millis())
    .bind(times.idle_before.as_millis())
    .bind(times.again_at.as_millis())
    .fetch_all(db.writer())
    .await?;
    let mut turns = Vec::with_capacity(rows.len());
    for row in &rows {
        let id: LinkId = row.try_get::<String, _>("id")?.into();
        let issuer = match issuer_of(row, &id) {
            Ok(issuer) => Some(issuer),
            // The others have their turn all the same.
            Err(cause) => {
                tracing::error!(cause = &cause as &dyn std::error::Error, %id, "a session cannot be read");
                None
            }
        };
        turns.push(Turn {
            issuer,
            version: row.try_get("version")?,
            issued_at: Timestamp::from_millis(row.try_get("issued_at")?),
            id,
        });
    }
    Ok(turns)
}

const TURNS: Turns =
    Turns { table: "links", key: "id", column: "keep_alive_due", only: Some("state = 'live'") };

fn issuer_of(row: &AnyRow, id: &LinkId) -> Result<String> {
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

/// Longer than the pause between two attempts to tell a server.
const LONGEST_PAUSE: Duration = Duration::from_hours(4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;
    use crate::links::sql::leases;
    use crate::links::testing::insert_live;

    on_each_database!(
        links_that_cannot_be_refreshed_keep_no_others_waiting,
        turns_of_a_clock_that_was_ahead_come_all_the_same,
        a_row_that_cannot_be_read_stops_no_others,
        what_ended_by_a_clock_that_was_ahead_is_not_compared_yet,
        a_clock_that_was_ahead_delays_neither_a_refresh_nor_a_revocation
    );

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

    async fn links_that_cannot_be_refreshed_keep_no_others_waiting(db: Db) {
        let did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
        let day = |day: i64| Timestamp::from_seconds(day * 86_400);
        for (id, issued) in [("old", 1), ("older", 0), ("young", 2)] {
            insert_live(&db, &id.into(), &did, day(issued)).await;
        }
        let take = async |now: i64| {
            let times =
                IdleTimes { now: day(now), idle_before: day(now - 30), again_at: day(now).plus(HALF_A_DAY) };
            let turns = take_turns(&db, times).await.unwrap();
            let mut idle: Vec<String> = turns
                .into_iter()
                .filter(|turn| times.is_idle(turn.issued_at))
                .map(|turn| turn.id.to_string())
                .collect();
            idle.sort();
            idle
        };
        assert!(take(30).await.is_empty(), "not idle yet");
        assert_eq!(take(32).await, ["old", "older"]);
        // None of them gets new tokens.
        assert!(take(32).await.is_empty(), "they have had their turn");
        assert_eq!(take(33).await, ["old", "older", "young"]);
        insert_live(&db, &"fresh".into(), &did, day(50)).await;
        assert_eq!(take(100).await, ["fresh", "old", "older", "young"]);
    }

    async fn turns_of_a_clock_that_was_ahead_come_all_the_same(db: Db) {
        let did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
        let day = |day: i64| Timestamp::from_seconds(day * 86_400);
        // Refreshed when the clock was 40 days ahead, and otherwise.
        insert_live(&db, &"ahead".into(), &did, day(140)).await;
        insert_live(&db, &"right".into(), &did, day(100)).await;
        let take = async |now: i64| {
            let times =
                IdleTimes { now: day(now), idle_before: day(now - 30), again_at: day(now).plus(HALF_A_DAY) };
            let turns = take_turns(&db, times).await.unwrap();
            let turns = turns.into_iter().map(|turn| (turn.id.to_string(), times.is_idle(turn.issued_at)));
            let mut turns: Vec<_> = turns.collect();
            turns.sort();
            turns
        };
        assert_eq!(take(140).await.len(), 2, "by the clock that is ahead");
        let (ahead, right) = ("ahead".to_owned(), "right".to_owned());
        sqlx::query("UPDATE links SET keep_alive_due = $1")
            .bind(day(170).as_millis())
            .execute(db.writer())
            .await
            .unwrap();
        assert_eq!(take(101).await, [(ahead.clone(), true), (right, false)]);
        assert_eq!(take(101).await, [], "they have had their turn");
        assert_eq!(take(102).await, [(ahead, true)], "until a refresh tells when it was");
    }

    async fn a_row_that_cannot_be_read_stops_no_others(db: Db) {
        let did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
        let day = |day: i64| Timestamp::from_seconds(day * 86_400);
        for (id, issued) in [("broken", 1), ("whole", 2)] {
            insert_live(&db, &id.into(), &did, day(issued)).await;
        }
        let damage = "UPDATE links SET server = 'not JSON' WHERE id = 'broken'";
        sqlx::query(damage).execute(db.writer()).await.unwrap();
        let now = day(40);
        let times = IdleTimes { now, idle_before: day(10), again_at: now.plus(HALF_A_DAY) };
        let turns = take_turns(&db, times).await.unwrap();
        let whole: Vec<&str> =
            turns.iter().filter(|turn| turn.issuer.is_some()).map(|turn| turn.id.as_str()).collect();
        assert_eq!((turns.len(), whole), (2, vec!["whole"]));
        let mut tx = db.begin().await.unwrap();
        for id in ["broken", "whole"] {
            assert!(end(&mut tx, &id.into(), Reason::GrantEnded, now).await.unwrap());
        }
        tx.commit().await.unwrap();
        let found = to_revoke(&db, now).await.unwrap();
        assert_eq!(found.due, [("https://pds.example.com".to_owned(), "whole".into())]);
        assert_eq!(found.unreadable, ["broken".into()]);
    }

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

    const HALF_A_DAY: Duration = Duration::from_hours(12);
}
