//! The table `signups`.

use genkan_protocol::syntax::Did;
use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::leases::{LEASE, leases_on};
use crate::db::{Db, Error, Result, Tx};

leases_on!("signups");

/// The step of a recorded sign-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The sign-up is to become an account. The host may have been asked.
    Recorded,
    /// The sign-up is being undone. Its handle and address are free again.
    Undoing,
}

#[derive(Clone, Debug)]
pub(super) struct SignUp {
    pub(super) did: Did,
    pub(super) host: String,
    pub(super) host_key: String,
    pub(super) operation: String,
    pub(super) invite_code: Option<String>,
    pub(super) step: Step,
    pub(super) attempts: i64,
    pub(super) created_at: Timestamp,
}

/// Records a sign-up with its first lease.
pub(super) async fn insert(tx: &mut Tx, sign_up: &SignUp, lease: &str) -> Result<()> {
    sqlx::query(
        "INSERT INTO signups (did, host_id, host_key, operation, invite_code, step, attempts, lease, lease_until, created_at)
         VALUES ($1, $2, $3, $4, $5, 'recorded', 0, $6, $7, $8)",
    )
    .bind(sign_up.did.as_str())
    .bind(&sign_up.host)
    .bind(&sign_up.host_key)
    .bind(&sign_up.operation)
    .bind(sign_up.invite_code.as_deref())
    .bind(lease)
    // The first lease is part of the insert: the job must not take over a sign-up that has just
    // begun.
    .bind(sign_up.created_at.plus(LEASE).as_millis())
    .bind(sign_up.created_at.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(super) async fn find(db: &Db, did: &Did) -> Result<Option<SignUp>> {
    let row = sqlx::query(
        "SELECT host_id, host_key, operation, invite_code, step, attempts, created_at
         FROM signups WHERE did = $1",
    )
    .bind(did.as_str())
    .fetch_optional(db.reader())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let step = match row.try_get::<String, _>("step")?.as_str() {
        "recorded" => Step::Recorded,
        "undoing" => Step::Undoing,
        _ => return Err(Error::corrupt("signups", "step", did.as_str())),
    };
    Ok(Some(SignUp {
        did: did.clone(),
        host: row.try_get("host_id")?,
        host_key: row.try_get("host_key")?,
        operation: row.try_get("operation")?,
        invite_code: row.try_get("invite_code")?,
        step,
        attempts: row.try_get("attempts")?,
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
    }))
}

pub(super) async fn unfinished(db: &Db, limit: i64) -> Result<Vec<(String, Timestamp, Option<String>)>> {
    let rows = sqlx::query("SELECT did, created_at, last_error FROM signups ORDER BY created_at LIMIT $1")
        .bind(limit)
        .fetch_all(db.reader())
        .await?;
    rows.iter()
        .map(|row| {
            let at = Timestamp::from_millis(row.try_get("created_at")?);
            Ok((row.try_get("did")?, at, row.try_get("last_error")?))
        })
        .collect()
}

pub(super) async fn set_undoing(tx: &mut Tx, did: &Did, lease: &str, error: &str) -> Result<bool> {
    let done =
        // Every update names the lease. A process that lost it changes no row, and the count shows
        // that.
        sqlx::query("UPDATE signups SET step = 'undoing', last_error = $3 WHERE did = $1 AND lease = $2")
            .bind(did.as_str())
            .bind(lease)
            .bind(error)
            .execute(&mut **tx)
            .await?;
    Ok(done.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(one_worker_at_a_time, a_lost_lease_can_do_nothing, a_new_start_ends_all_leases);

    const NOW: Timestamp = Timestamp::from_millis(10_000);
    const LATER: Timestamp = Timestamp::from_millis(20_000);

    async fn recorded(db: &Db) -> SignUp {
        let sign_up = SignUp {
            did: "did:plc:ann".parse().unwrap(),
            host: "oak".to_owned(),
            host_key: "did:key:z".to_owned(),
            operation: "{}".to_owned(),
            invite_code: Some("code".to_owned()),
            step: Step::Recorded,
            attempts: 0,
            created_at: NOW,
        };
        let mut tx = db.begin().await.unwrap();
        insert(&mut tx, &sign_up, "first").await.unwrap();
        tx.commit().await.unwrap();
        sign_up
    }

    async fn one_worker_at_a_time(db: Db) {
        let did = recorded(&db).await.did;
        assert!(abandoned(&db, NOW, 9).await.unwrap().is_empty());
        // The lease of the first worker has ended by now without being renewed.
        assert_eq!(abandoned(&db, LATER, 9).await.unwrap(), [did.to_string()]);
        assert!(!take_lease(&db, &did, "second", NOW).await.unwrap());
        assert!(take_lease(&db, &did, "second", LATER).await.unwrap());
        assert!(!take_lease(&db, &did, "third", LATER).await.unwrap());
        let end = LATER.plus(LEASE);
        assert!(keep_lease(&db, &did, "second", end).await.unwrap());
        // At this time the lease would have ended without the renewal above.
        assert!(!take_lease(&db, &did, "third", end).await.unwrap(), "it was renewed");
        let mut tx = db.begin().await.unwrap();
        put_off(&mut tx, &did, "second", LATER, "host away").await.unwrap();
        tx.commit().await.unwrap();
        let found = find(&db, &did).await.unwrap().unwrap();
        assert_eq!((found.attempts, found.step), (1, Step::Recorded));
        assert_eq!(unfinished(&db, 9).await.unwrap()[0].2.as_deref(), Some("host away"));
    }

    async fn a_new_start_ends_all_leases(db: Db) {
        let did = recorded(&db).await.did;
        assert!(abandoned(&db, NOW, 9).await.unwrap().is_empty());
        end_leases(&db).await.unwrap();
        assert_eq!(abandoned(&db, NOW, 9).await.unwrap(), [did.to_string()]);
    }

    async fn a_lost_lease_can_do_nothing(db: Db) {
        let did = recorded(&db).await.did;
        assert!(take_lease(&db, &did, "second", LATER).await.unwrap());
        assert!(!keep_lease(&db, &did, "first", LATER).await.unwrap());
        let mut tx = db.begin().await.unwrap();
        assert!(!set_undoing(&mut tx, &did, "first", "").await.unwrap());
        assert!(!remove(&mut tx, &did, "first").await.unwrap());
        assert!(set_undoing(&mut tx, &did, "second", "why").await.unwrap());
        assert!(remove(&mut tx, &did, "second").await.unwrap());
        tx.commit().await.unwrap();
        assert!(find(&db, &did).await.unwrap().is_none());
    }
}
