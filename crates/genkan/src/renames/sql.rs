//! The table `renames`.

use genkan_protocol::syntax::{Did, Handle};
use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::leases::{LEASE, LONGEST_DELAY, leases_on};
use crate::db::{Db, Error, Result, Tx};

leases_on!("renames");

/// The step of a recorded handle change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Recorded,
    Published,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rename {
    pub(super) did: Did,
    pub(super) handle: Handle,
    pub(super) step: Step,
}

/// Records a change with its lease. It replaces an older change of the account. Returns `false` if a
/// process works on the older one, or if only the host has to learn of it and it is the same change.
pub(super) async fn insert_or_replace(
    tx: &mut Tx,
    rename: &Rename,
    lease: &str,
    now: Timestamp,
) -> Result<bool> {
    // The `WHERE` at the end applies to the update only. If the older change's lease is still held,
    // no row changes. A change without a lease was put off, because the directory or the host is
    // away: a person who tries again does not wait for the job.
    let done = sqlx::query(
        "INSERT INTO renames (did, handle, step, attempts, lease, lease_until, created_at) \
         VALUES ($1, $2, 'recorded', 1, $3, $4, $5) \
         ON CONFLICT (did) DO UPDATE SET handle = excluded.handle, step = 'recorded', attempts = 1, \
         last_error = NULL, lease = excluded.lease, lease_until = excluded.lease_until, \
         created_at = excluded.created_at \
         WHERE renames.lease_until <= excluded.created_at OR renames.lease_until > $6 \
         OR (renames.lease IS NULL AND (renames.step = 'recorded' OR renames.handle <> excluded.handle))",
    )
    .bind(rename.did.as_str())
    .bind(rename.handle.as_str())
    .bind(lease)
    .bind(now.plus(LEASE).as_millis())
    .bind(now.as_millis())
    .bind(now.plus(LONGEST_DELAY).as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn find(db: &Db, did: &Did) -> Result<Option<Rename>> {
    let row = sqlx::query("SELECT handle, step FROM renames WHERE did = $1")
        .bind(did.as_str())
        .fetch_optional(db.reader())
        .await?;
    let Some(row) = row else { return Ok(None) };
    let corrupt = |column| Error::Corrupt { table: "renames", column, row: did.to_string() };
    let handle: String = row.try_get("handle")?;
    let step = match row.try_get::<String, _>("step")?.as_str() {
        "recorded" => Step::Recorded,
        "published" => Step::Published,
        _ => return Err(corrupt("step")),
    };
    Ok(Some(Rename { did: did.clone(), handle: handle.parse().map_err(|_| corrupt("handle"))?, step }))
}

/// Records that the directory has the handle. Returns `false` if the lease was lost.
pub(super) async fn publish(tx: &mut Tx, did: &Did, lease: &str) -> Result<bool> {
    let done = sqlx::query("UPDATE renames SET step = 'published' WHERE did = $1 AND lease = $2")
        .bind(did.as_str())
        .bind(lease)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(
        one_worker_at_a_time,
        a_new_start_ends_all_leases,
        a_new_wish_replaces_one_left_lying,
        a_clock_that_was_ahead_delays_nothing
    );

    fn did() -> Did {
        "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap()
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn rename(handle: &str) -> Rename {
        Rename { did: did(), handle: handle.parse().unwrap(), step: Step::Recorded }
    }

    async fn one_worker_at_a_time(db: Db) {
        let end = at(0).plus(LEASE);
        let mut tx = db.begin().await.unwrap();
        assert!(insert_or_replace(&mut tx, &rename("a.test"), "me", at(0)).await.unwrap());
        tx.commit().await.unwrap();
        assert!(!take_lease(&db, &did(), "you", at(9)).await.unwrap());
        assert!(take_lease(&db, &did(), "you", end).await.unwrap());
        assert!(!keep_lease(&db, &did(), "me", end).await.unwrap());
        assert!(keep_lease(&db, &did(), "you", end).await.unwrap());
        let mut tx = db.begin().await.unwrap();
        // The lease was taken by the other worker, so the first one can neither publish nor remove.
        assert!(
            !publish(&mut tx, &did(), "me").await.unwrap() && !remove(&mut tx, &did(), "me").await.unwrap()
        );
        assert!(publish(&mut tx, &did(), "you").await.unwrap());
        put_off(&mut tx, &did(), "you", at(30_000), "away").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(find(&db, &did()).await.unwrap().unwrap().step, Step::Published);
        assert!(abandoned(&db, at(29_999), 9).await.unwrap().is_empty());
        assert_eq!(abandoned(&db, at(30_000), 9).await.unwrap(), [did().to_string()]);
    }

    /// A replica's clock was an hour ahead when it worked on the change.
    async fn a_clock_that_was_ahead_delays_nothing(db: Db) {
        let (now, ahead) = (at(0), at(3_600_000));
        let mut tx = db.begin().await.unwrap();
        assert!(insert_or_replace(&mut tx, &rename("a.test"), "ahead", ahead).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(abandoned(&db, now, 9).await.unwrap(), [did().to_string()]);
        assert!(take_lease(&db, &did(), "me", now).await.unwrap());
        // The lease of today keeps others out.
        assert!(!take_lease(&db, &did(), "you", now).await.unwrap());
        let mut tx = db.begin().await.unwrap();
        put_off(&mut tx, &did(), "me", ahead, "away").await.unwrap();
        assert!(insert_or_replace(&mut tx, &rename("b.test"), "you", now).await.unwrap());
        tx.commit().await.unwrap();
    }

    async fn a_new_start_ends_all_leases(db: Db) {
        let mut tx = db.begin().await.unwrap();
        assert!(insert_or_replace(&mut tx, &rename("a.test"), "me", at(0)).await.unwrap());
        tx.commit().await.unwrap();
        assert!(abandoned(&db, at(1), 9).await.unwrap().is_empty());
        end_leases(&db).await.unwrap();
        assert_eq!(abandoned(&db, at(1), 9).await.unwrap(), [did().to_string()]);
    }

    async fn a_new_wish_replaces_one_left_lying(db: Db) {
        let end = at(0).plus(LEASE);
        let mut tx = db.begin().await.unwrap();
        assert!(insert_or_replace(&mut tx, &rename("a.test"), "me", at(0)).await.unwrap());
        // The lease of the first change still runs, even though the same worker asks.
        assert!(!insert_or_replace(&mut tx, &rename("b.test"), "me", at(5)).await.unwrap());
        assert!(publish(&mut tx, &did(), "me").await.unwrap());
        assert!(insert_or_replace(&mut tx, &rename("b.test"), "you", end).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(find(&db, &did()).await.unwrap().unwrap(), rename("b.test"));
        let mut tx = db.begin().await.unwrap();
        assert!(remove(&mut tx, &did(), "you").await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(find(&db, &did()).await.unwrap(), None);
    }
}
