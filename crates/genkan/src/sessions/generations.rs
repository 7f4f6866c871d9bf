//! Table `refresh_tokens`: which generations of a session are valid, and their successors.
//!
//! The first use of a generation creates its successor, once. Within the grace period a used
//! generation yields the same successor again, even if that one was used too. Counters decide the
//! order, because the clocks of replicas differ.

use std::time::Duration;

use sqlx::Row as _;

use super::{Lifetimes, SessionId};
use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Result, Tx};

/// The effect of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotation {
    /// The session continues with this generation.
    To(i64),
    /// The generation was used and its grace period is over, or it never was valid.
    Over,
}

pub(super) async fn insert(
    tx: &mut Tx,
    session: &SessionId,
    generation: i64,
    expires_at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO refresh_tokens (session_id, generation, expires_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(session.as_str())
    .bind(generation)
    .bind(expires_at.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Uses a generation. The caller holds the session's row.
pub(super) async fn rotate(
    tx: &mut Tx,
    session: &SessionId,
    generation: i64,
    now: Timestamp,
    lifetimes: Lifetimes,
) -> Result<Rotation> {
    let Some(row) = sqlx::query(
        "SELECT expires_at, used_at FROM refresh_tokens WHERE session_id = $1 AND generation = $2",
    )
    .bind(session.as_str())
    .bind(generation)
    .fetch_optional(&mut **tx)
    .await?
    else {
        return Ok(Rotation::Over);
    };
    if row.try_get::<i64, _>("expires_at")? <= now.as_millis() {
        return Ok(Rotation::Over);
    }
    // A second use within the grace period gets the same answer: a client that lost the response
    // gets a token of the same generation again.
    let successor = generation.saturating_add(1);
    if row.try_get::<Option<i64>, _>("used_at")?.is_none() {
        use_first(tx, session, generation, now, lifetimes.grace).await?;
        insert(tx, session, successor, now.plus(lifetimes.refresh)).await?;
    }
    Ok(Rotation::To(successor))
}

async fn use_first(
    tx: &mut Tx,
    session: &SessionId,
    generation: i64,
    now: Timestamp,
    grace: Duration,
) -> Result<()> {
    // The grace period shortens a token's life and never extends it. CASE, because the two
    // databases have different functions for the smaller of two values.
    let grace_ends = now.plus(grace).as_millis();
    sqlx::query(
        "UPDATE refresh_tokens SET used_at = $3, expires_at = CASE WHEN expires_at > $4 THEN $4 ELSE expires_at END
         WHERE session_id = $1 AND generation = $2 AND used_at IS NULL",
    )
    .bind(session.as_str())
    .bind(generation)
    .bind(now.as_millis())
    .bind(grace_ends)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Removes a batch of generations that expired in `range`.
pub(super) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch> {
    let old =
        OldRows { table: "refresh_tokens", key: "session_id, generation", time: "expires_at", only: None };
    old.sweep(db, range).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(
        a_used_token_gives_the_same_successor_until_its_grace_ends,
        many_at_once_have_one_successor
    );

    const HOUR: Duration = Duration::from_hours(1);
    const LIFETIMES: Lifetimes =
        Lifetimes { access: HOUR, refresh: Duration::from_hours(90 * 24), grace: Duration::from_hours(2) };
    const START: Timestamp = Timestamp::from_millis(1_000_000_000);

    async fn use_at(db: &Db, generation: i64, now: Timestamp) -> Rotation {
        let mut tx = db.begin().await.unwrap();
        let rotation = rotate(&mut tx, &"s".into(), generation, now, LIFETIMES).await.unwrap();
        tx.commit().await.unwrap();
        rotation
    }

    async fn first(db: &Db) {
        let mut tx = db.begin().await.unwrap();
        insert(&mut tx, &"s".into(), 0, START.plus(LIFETIMES.refresh)).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn a_used_token_gives_the_same_successor_until_its_grace_ends(db: Db) {
        first(&db).await;
        assert_eq!(use_at(&db, 0, START).await, Rotation::To(1));
        assert_eq!(use_at(&db, 0, START.plus(HOUR)).await, Rotation::To(1));
        // The successor is used. The first still leads to it, and not beyond.
        assert_eq!(use_at(&db, 1, START.plus(HOUR)).await, Rotation::To(2));
        assert_eq!(use_at(&db, 0, START.plus(HOUR)).await, Rotation::To(1));
        // Reuse did not extend the grace period, and the successors stay valid.
        let after = START.plus(LIFETIMES.grace);
        assert_eq!(use_at(&db, 0, after).await, Rotation::Over);
        assert_eq!(use_at(&db, 1, after).await, Rotation::To(2));
        assert_eq!(use_at(&db, 2, after).await, Rotation::To(3));
        assert_eq!(use_at(&db, 9, after).await, Rotation::Over);

        let until = after.plus(Duration::from_millis(1));
        assert_eq!(sweep(&db, until.into()).await.unwrap().removed, 1);
    }

    async fn many_at_once_have_one_successor(db: Db) {
        first(&db).await;
        let rotations: Vec<_> = (0..10)
            .map(|_| {
                let db = db.clone();
                tokio::spawn(async move { use_at(&db, 0, START).await })
            })
            .collect();
        for rotation in rotations {
            assert_eq!(rotation.await.unwrap(), Rotation::To(1));
        }
    }
}
