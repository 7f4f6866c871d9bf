//! Table `links`: turns of the job that keeps idle sessions alive.

use std::time::Duration;

use sqlx::Row as _;

use super::links::issuer_of;
use crate::base::Timestamp;
use crate::db::turns::{Turns, heal_turns};
use crate::db::{Db, Result};
use crate::links::id::LinkId;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;
    use crate::links::error::Reason;
    use crate::links::sql::links::end;
    use crate::links::sql::revocations::to_revoke;
    use crate::links::testing::insert_live;

    on_each_database!(
        links_that_cannot_be_refreshed_keep_no_others_waiting,
        turns_of_a_clock_that_was_ahead_come_all_the_same,
        a_row_that_cannot_be_read_stops_no_others
    );

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

    const HALF_A_DAY: Duration = Duration::from_hours(12);
}
