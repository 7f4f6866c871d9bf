//! The table `outbox`.

use std::time::Duration;

use genkan_protocol::syntax::Did;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Error, Result, Tx};

/// A waiting email.
///
/// `due_at` is its lease as well: a process that moves it into the future owns the email until
/// then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) did: Did,
    pub(super) kind: String,
    pub(super) sealed: String,
    pub(super) attempts: u32,
    pub(super) due_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) created_at: Timestamp,
}

pub(super) async fn insert(tx: &mut Tx, row: &Row) -> Result<()> {
    sqlx::query(
        "INSERT INTO outbox (id, did, kind, sealed, state, attempts, due_at, expires_at, created_at)
         VALUES ($1, $2, $3, $4, 'waiting', 0, $5, $6, $7)",
    )
    .bind(&row.id)
    .bind(row.did.as_str())
    .bind(&row.kind)
    .bind(&row.sealed)
    .bind(row.due_at.as_millis())
    .bind(row.expires_at.as_millis())
    .bind(row.created_at.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Removes the waiting emails of one kind for one account, before a newer one is added.
pub(super) async fn drop_waiting(tx: &mut Tx, did: &Did, kind: &str) -> Result<()> {
    sqlx::query("DELETE FROM outbox WHERE did = $1 AND kind = $2 AND state = 'waiting'")
        .bind(did.as_str())
        .bind(kind)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(super) async fn drop_all_of(tx: &mut Tx, did: &Did) -> Result<()> {
    sqlx::query("DELETE FROM outbox WHERE did = $1").bind(did.as_str()).execute(&mut **tx).await?;
    Ok(())
}

/// Returns emails that are due, the longest due first. One that is put off for more than `longest` is
/// due as well.
pub(super) async fn due(db: &Db, now: Timestamp, longest: Duration, limit: i64) -> Result<Vec<Row>> {
    // Two ranges of the index. With an OR, PostgreSQL would read all emails that are put off, which
    // are many while the mail server is away.
    let rows = sqlx::query(
        "SELECT id, did, kind, sealed, attempts, due_at, expires_at, created_at FROM (
            SELECT * FROM outbox WHERE state = 'waiting' AND due_at <= $1 ORDER BY due_at LIMIT $2) AS due
         UNION ALL SELECT id, did, kind, sealed, attempts, due_at, expires_at, created_at FROM (
            SELECT * FROM outbox WHERE state = 'waiting' AND due_at > $3 ORDER BY due_at LIMIT $2) AS delayed
         ORDER BY due_at LIMIT $2",
    )
    .bind(now.as_millis())
    .bind(limit)
    .bind(now.plus(longest).as_millis())
    .fetch_all(db.reader())
    .await?;
    rows.iter().map(read).collect()
}

/// Takes an email until `until` and counts the attempt. `false` if another process was faster or
/// the email is gone.
pub(super) async fn take(tx: &mut Tx, row: &Row, until: Timestamp) -> Result<bool> {
    // `due_at = $2` makes this a compare-and-swap: of two processes that read the same row, only
    // the first finds it unchanged. The attempt is counted before it is made, so that a crash
    // counts too.
    let done = sqlx::query(
        "UPDATE outbox SET due_at = $3, attempts = attempts + 1
         WHERE id = $1 AND due_at = $2 AND state = 'waiting'",
    )
    .bind(&row.id)
    .bind(row.due_at.as_millis())
    .bind(until.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Extends the lease of an email from `lease` until `until`. `false` if another process has it.
pub(super) async fn renew(db: &Db, id: &str, lease: Timestamp, until: Timestamp) -> Result<bool> {
    let done =
        sqlx::query("UPDATE outbox SET due_at = $3 WHERE id = $1 AND due_at = $2 AND state = 'waiting'")
            .bind(id)
            .bind(lease.as_millis())
            .bind(until.as_millis())
            .execute(db.writer())
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Puts an email off until `due_at`.
///
/// `lease` is the `until` with which it was taken. If another process has taken it since, nothing
/// changes.
pub(super) async fn put_off(
    tx: &mut Tx,
    id: &str,
    lease: Timestamp,
    due_at: Timestamp,
    why: &str,
) -> Result<()> {
    // `due_at = $2` holds only for the process that has the lease. A process that slept past its
    // lease must not move the email of its successor.
    sqlx::query("UPDATE outbox SET due_at = $3, last_error = $4 WHERE id = $1 AND due_at = $2")
        .bind(id)
        .bind(lease.as_millis())
        .bind(due_at.as_millis())
        .bind(why)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Records that an email was given up, and deletes its content.
pub(super) async fn give_up(tx: &mut Tx, id: &str, why: &str) -> Result<()> {
    // The sealed content holds an address and maybe a code. The record for the operator needs
    // neither.
    sqlx::query("UPDATE outbox SET state = 'given_up', sealed = '', last_error = $2 WHERE id = $1")
        .bind(id)
        .bind(why)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(super) async fn remove(tx: &mut Tx, id: &str) -> Result<()> {
    sqlx::query("DELETE FROM outbox WHERE id = $1").bind(id).execute(&mut **tx).await?;
    Ok(())
}

/// Returns the number of waiting emails, at most 10,000, and when the oldest of them was created.
pub(super) async fn waiting(db: &Db) -> Result<(i64, Option<Timestamp>)> {
    // Bounded, because it is asked every few seconds, and a mail server may be away for a day.
    let row = sqlx::query(
        "SELECT COUNT(*) AS emails, MIN(created_at) AS oldest FROM (
            SELECT created_at FROM outbox WHERE state = 'waiting' ORDER BY created_at LIMIT 10000) AS waiting",
    )
    .fetch_one(db.reader())
    .await?;
    let oldest: Option<i64> = row.try_get("oldest")?;
    Ok((row.try_get("emails")?, oldest.map(Timestamp::from_millis)))
}

/// The record of an email that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UndeliveredEmail {
    pub(crate) id: String,
    pub(crate) did: Did,
    pub(crate) kind: String,
    pub(crate) attempts: u32,
    pub(crate) why: String,
    pub(crate) created_at: Timestamp,
}

/// Returns emails that were given up, the newest first.
pub(super) async fn given_up(db: &Db, limit: i64) -> Result<Vec<UndeliveredEmail>> {
    let rows = sqlx::query(
        "SELECT id, did, kind, attempts, last_error, created_at FROM outbox
         WHERE state = 'given_up' ORDER BY created_at DESC LIMIT $1",
    )
    .bind(limit)
    .fetch_all(db.reader())
    .await?;
    rows.iter()
        .map(|row| {
            Ok(UndeliveredEmail {
                id: row.try_get("id")?,
                did: did_of(row)?,
                kind: row.try_get("kind")?,
                attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(0),
                why: row.try_get::<Option<String>, _>("last_error")?.unwrap_or_default(),
                created_at: Timestamp::from_millis(row.try_get("created_at")?),
            })
        })
        .collect()
}

fn did_of(row: &AnyRow) -> Result<Did> {
    let did: String = row.try_get("did")?;
    did.parse().map_err(|_| Error::corrupt("outbox", "did", &did))
}

/// Removes a batch of records of emails that were created in `range` and given up.
pub(super) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows { table: "outbox", key: "id", time: "created_at", only: Some("state = 'given_up'") };
    old.sweep(db, range).await
}

fn read(row: &AnyRow) -> Result<Row> {
    let time = |column: &str| -> Result<Timestamp> { Ok(Timestamp::from_millis(row.try_get(column)?)) };
    Ok(Row {
        id: row.try_get("id")?,
        did: did_of(row)?,
        kind: row.try_get("kind")?,
        sealed: row.try_get("sealed")?,
        // A count that does not fit cannot occur. The largest value gives the longest pause.
        attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
        due_at: time("due_at")?,
        expires_at: time("expires_at")?,
        created_at: time("created_at")?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::seal::Sealer;
    use crate::db::on_each_database;

    const HOUR: Duration = Duration::from_hours(1);

    on_each_database!(
        an_email_is_taken_by_one_process,
        a_postponed_email_is_tried_again,
        a_clock_that_was_ahead_delays_no_email,
        a_stale_lease_changes_nothing,
        a_newer_code_replaces_the_older,
        an_email_that_is_given_up_loses_its_content,
        an_email_is_resealed,
    );

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    fn email(id: &str, kind: &str) -> Row {
        Row {
            id: id.to_owned(),
            did: "did:plc:ann".parse().unwrap(),
            kind: kind.to_owned(),
            sealed: "sealed".to_owned(),
            attempts: 0,
            due_at: NOW,
            expires_at: NOW.plus(Duration::from_mins(15)),
            created_at: NOW,
        }
    }

    async fn put(db: &Db, row: &Row) {
        let mut tx = db.begin().await.unwrap();
        insert(&mut tx, row).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn take_now(db: &Db, row: &Row, until: Timestamp) -> bool {
        let mut tx = db.begin().await.unwrap();
        let mine = take(&mut tx, row, until).await.unwrap();
        tx.commit().await.unwrap();
        mine
    }

    async fn an_email_is_resealed(db: Db) {
        let (old, new) = Sealer::before_and_after_rotation();
        let column = &crate::mail::SEALED_COLUMNS[0];
        let sealed = old.seal(column.purpose, "a", b"text");
        put(&db, &Row { sealed, ..email("a", "x") }).await;
        assert_eq!(column.left(&db, &new).await.unwrap(), 1);
        assert_eq!(column.round(&db, &new, "").await.unwrap().0.resealed, 1);
        assert_eq!(column.left(&db, &new).await.unwrap(), 0);
    }

    async fn an_email_is_taken_by_one_process(db: Db) {
        put(&db, &email("a", "x")).await;
        // The row is due exactly at `due_at`, not a millisecond before.
        assert!(due(&db, NOW.minus(Duration::from_millis(1)), HOUR, 9).await.unwrap().is_empty());
        let found = due(&db, NOW, HOUR, 9).await.unwrap();
        assert_eq!(found, [email("a", "x")]);
        let until = NOW.plus(Duration::from_mins(1));
        assert!(take_now(&db, &found[0], until).await);
        assert!(!take_now(&db, &found[0], until).await);
        assert!(due(&db, NOW, HOUR, 9).await.unwrap().is_empty());
        // The lease that ended is the new due time: a crash of the holder needs no cleaning up.
        let again = due(&db, until, HOUR, 9).await.unwrap();
        assert_eq!((again.len(), again[0].attempts), (1, 1));
        let mut tx = db.begin().await.unwrap();
        remove(&mut tx, "a").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(waiting(&db).await.unwrap(), (0, None));
    }

    async fn a_postponed_email_is_tried_again(db: Db) {
        let row = email("a", "x");
        put(&db, &row).await;
        let (lease, later) = (NOW.plus(Duration::from_mins(1)), NOW.plus(Duration::from_secs(5)));
        assert!(take_now(&db, &row, lease).await);
        let mut tx = db.begin().await.unwrap();
        put_off(&mut tx, "a", lease, later, "away").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(due(&db, later, HOUR, 9).await.unwrap().len(), 1);
        assert_eq!(waiting(&db).await.unwrap(), (1, Some(NOW)));
    }

    async fn a_clock_that_was_ahead_delays_no_email(db: Db) {
        let row = email("a", "x");
        put(&db, &row).await;
        // A process whose clock was a day ahead took it, and put it off.
        let ahead = NOW.plus(HOUR * 24);
        assert!(take_now(&db, &row, ahead).await);
        let found = due(&db, NOW, HOUR, 9).await.unwrap();
        assert_eq!(found.len(), 1);
        assert!(take_now(&db, &found[0], NOW.plus(HOUR)).await);
        assert!(due(&db, NOW, HOUR, 9).await.unwrap().is_empty(), "a lease of today counts");
    }

    async fn a_stale_lease_changes_nothing(db: Db) {
        let row = email("a", "x");
        put(&db, &row).await;
        let (first, second) = (NOW.plus(Duration::from_mins(1)), NOW.plus(Duration::from_mins(2)));
        assert!(take_now(&db, &row, first).await);
        let again = due(&db, first, HOUR, 9).await.unwrap();
        assert!(take_now(&db, &again[0], second).await);
        let mut tx = db.begin().await.unwrap();
        // The holder of the first lease wakes up after the second process took the email.
        put_off(&mut tx, "a", first, NOW, "by a process that slept").await.unwrap();
        tx.commit().await.unwrap();
        assert!(due(&db, NOW, HOUR, 9).await.unwrap().is_empty());
    }

    async fn a_newer_code_replaces_the_older(db: Db) {
        for (id, kind) in [("a", "x"), ("b", "y")] {
            put(&db, &email(id, kind)).await;
        }
        let mut tx = db.begin().await.unwrap();
        drop_waiting(&mut tx, &email("a", "x").did, "x").await.unwrap();
        tx.commit().await.unwrap();
        let left: Vec<String> = due(&db, NOW, HOUR, 9).await.unwrap().into_iter().map(|row| row.id).collect();
        assert_eq!(left, ["b"]);
        let mut tx = db.begin().await.unwrap();
        drop_all_of(&mut tx, &email("a", "x").did).await.unwrap();
        tx.commit().await.unwrap();
        assert!(due(&db, NOW, HOUR, 9).await.unwrap().is_empty());
    }

    async fn an_email_that_is_given_up_loses_its_content(db: Db) {
        put(&db, &email("a", "x")).await;
        let mut tx = db.begin().await.unwrap();
        give_up(&mut tx, "a", "the mail server answered 550").await.unwrap();
        tx.commit().await.unwrap();
        assert!(due(&db, NOW, HOUR, 9).await.unwrap().is_empty());
        let found = given_up(&db, 9).await.unwrap();
        assert_eq!((found.len(), found[0].why.as_str()), (1, "the mail server answered 550"));
        let sealed: String =
            sqlx::query_scalar("SELECT sealed FROM outbox").fetch_one(db.reader()).await.unwrap();
        assert_eq!(sealed, "");
        assert_eq!(sweep(&db, NOW.into()).await.unwrap().removed, 0);
        assert_eq!(sweep(&db, NOW.plus(Duration::from_secs(1)).into()).await.unwrap().removed, 1);
    }
}
