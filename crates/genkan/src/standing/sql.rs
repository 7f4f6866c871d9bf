//! The table `takedowns`.

use std::time::Duration;

use genkan_protocol::syntax::Did;
use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::leases::{LEASE, leases_on};
use crate::db::{Db, Error, Result, Tx};

leases_on!("takedowns");

/// What the host is to be told of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    TakenDown,
    Restored,
}

impl Wish {
    const fn text(self) -> &'static str {
        match self {
            Self::TakenDown => "taken down",
            Self::Restored => "restored",
        }
    }
}

/// Records a wish with its lease. It replaces an older wish, unless a task works on that one; then
/// it returns `false`.
pub(super) async fn insert_or_replace(
    tx: &mut Tx,
    did: &Did,
    wish: Wish,
    lease: &str,
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO takedowns (did, wish, attempts, lease, lease_until, created_at) VALUES ($1, $2, 1, $3, $4, $5) \
         ON CONFLICT (did) DO UPDATE SET wish = excluded.wish, attempts = 1, last_error = NULL, \
         lease = excluded.lease, lease_until = excluded.lease_until, created_at = excluded.created_at \
         WHERE takedowns.lease IS NULL OR takedowns.lease_until <= excluded.created_at",
    )
    .bind(did.as_str())
    .bind(wish.text())
    .bind(lease)
    .bind(now.plus(LEASE).as_millis())
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Replaces the wish of a task at work, which loses its lease. The row is free when the call of
/// that task to the host has ended: two calls at once could take effect in either order.
pub(super) async fn overrule(tx: &mut Tx, did: &Did, wish: Wish, now: Timestamp) -> Result<()> {
    sqlx::query("UPDATE takedowns SET wish = $2, lease = $3, lease_until = $4 WHERE did = $1")
        .bind(did.as_str())
        .bind(wish.text())
        // A holder that no task is, so that nobody takes the row before its time.
        .bind("overruled")
        .bind(now.plus(LONGEST_CALL).as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Changes the wish of a row whose lease the caller holds. Returns `false` if the lease was lost.
pub(super) async fn set_wish(tx: &mut Tx, did: &Did, wish: Wish, lease: &str) -> Result<bool> {
    let done = sqlx::query("UPDATE takedowns SET wish = $2 WHERE did = $1 AND lease = $3")
        .bind(did.as_str())
        .bind(wish.text())
        .bind(lease)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn find(db: &Db, did: &Did) -> Result<Option<Wish>> {
    let row = sqlx::query("SELECT wish FROM takedowns WHERE did = $1")
        .bind(did.as_str())
        .fetch_optional(db.reader())
        .await?;
    let Some(row) = row else { return Ok(None) };
    match row.try_get::<String, _>("wish")?.as_str() {
        "taken down" => Ok(Some(Wish::TakenDown)),
        "restored" => Ok(Some(Wish::Restored)),
        _ => Err(Error::corrupt("takedowns", "wish", did.as_str())),
    }
}

/// More than the longest time that a call to a host may take.
const LONGEST_CALL: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(one_worker_at_a_time, a_new_start_ends_all_leases);

    const NOW: Timestamp = Timestamp::from_millis(10_000);

    async fn recorded(db: &Db) -> Did {
        let did: Did = "did:plc:ann".parse().unwrap();
        let mut tx = db.begin().await.unwrap();
        assert!(insert_or_replace(&mut tx, &did, Wish::TakenDown, "first", NOW).await.unwrap());
        tx.commit().await.unwrap();
        did
    }

    async fn one_worker_at_a_time(db: Db) {
        let (did, end) = (recorded(&db).await, NOW.plus(LEASE));
        assert!(!take_lease(&db, &did, "second", NOW).await.unwrap());
        assert!(take_lease(&db, &did, "second", end).await.unwrap());
        assert!(!keep_lease(&db, &did, "first", end).await.unwrap());
        assert!(keep_lease(&db, &did, "second", end).await.unwrap());
        let mut tx = db.begin().await.unwrap();
        assert!(!set_wish(&mut tx, &did, Wish::Restored, "first").await.unwrap());
        assert!(set_wish(&mut tx, &did, Wish::Restored, "second").await.unwrap());
        put_off(&mut tx, &did, "second", end, "host away").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(find(&db, &did).await.unwrap(), Some(Wish::Restored));
        assert_eq!(abandoned(&db, end, 9).await.unwrap(), [did.to_string()]);
    }

    async fn a_new_start_ends_all_leases(db: Db) {
        let did = recorded(&db).await;
        assert!(abandoned(&db, NOW, 9).await.unwrap().is_empty());
        end_leases(&db).await.unwrap();
        assert_eq!(abandoned(&db, NOW, 9).await.unwrap(), [did.to_string()]);
    }
}
