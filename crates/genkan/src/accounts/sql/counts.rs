//! Table `account_counts`: how many accounts each host has.
//!
//! To count millions of rows every few seconds would take the database's whole time. So the
//! transaction that adds or removes an account changes a counter. A host has one counter for each
//! *slot*, the ninth character of the DID. That is a random one of 32 in a `did:plc`: two sign-ups at
//! the same moment rarely wait for each other's counter, and the accounts of one slot are quickly
//! counted again.
//!
//! They are counted again in turn, because a Genkan from before this table keeps no counters and may
//! work on the same database, and because an operator may repair rows by hand.

use std::collections::HashMap;
use std::time::Duration;

use genkan_protocol::syntax::Did;
use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::{self, Db, Tx};
use crate::fleet::HostId;

/// Adds to the counter of an account's slot, as part of the transaction that adds or removes it.
///
/// The last statement before the commit, as far as possible: the counter's row is held from here on.
pub(super) async fn add(tx: &mut Tx, host: &HostId, did: &Did, number: i64) -> db::Result<()> {
    sqlx::query(
        "INSERT INTO account_counts (host_id, slot, accounts, checked_at) VALUES ($1, SUBSTR($2, 9, 1), $3, 0)
         ON CONFLICT (host_id, slot) DO UPDATE SET accounts = account_counts.accounts + excluded.accounts",
    )
    .bind(host.as_str())
    .bind(did.as_str())
    .bind(number)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Returns the number of accounts on each host.
pub(in crate::accounts) async fn by_host(db: &Db) -> db::Result<HashMap<HostId, u64>> {
    let rows = sqlx::query(
        "SELECT host_id, CAST(SUM(accounts) AS BIGINT) AS accounts FROM account_counts GROUP BY host_id",
    )
    .fetch_all(db.reader())
    .await?;
    rows.iter()
        .map(|row| {
            let accounts: i64 = row.try_get("accounts")?;
            let host: String = row.try_get("host_id")?;
            Ok((host.into(), u64::try_from(accounts).unwrap_or(0)))
        })
        .collect()
}

/// Gives a host a counter for every slot. A Genkan from before this table may have added accounts in
/// slots that have none.
pub(in crate::accounts) async fn prepare(db: &Db, host: &HostId) -> db::Result<()> {
    let mut tx = db.begin().await?;
    for slot in SLOTS.chars() {
        sqlx::query(
            "INSERT INTO account_counts (host_id, slot, accounts, checked_at) VALUES ($1, $2, 0, 0)
             ON CONFLICT (host_id, slot) DO NOTHING",
        )
        .bind(host.as_str())
        .bind(slot.to_string())
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await
}

/// Counts the accounts of the slot again that was not checked for the longest time. Returns `None`
/// if every slot was checked lately, and else whether its counter was wrong.
///
/// Nothing is locked while it counts: no sign-up waits for the counter, and SQLite's only writer is
/// free.
pub(in crate::accounts) async fn check_one(db: &Db, now: Timestamp) -> db::Result<Option<bool>> {
    let Some(slot) = Slot::claim(db, now).await? else { return Ok(None) };
    let missing = slot.missing(db).await?;
    Ok(Some(missing != 0 && slot.correct(db, missing).await?))
}

/// A slot that this process counts.
#[derive(Debug)]
struct Slot {
    host: String,
    /// The first character of its accounts' PLC identifiers.
    initial: String,
    /// What tells this claim from later ones.
    claimed_at: Timestamp,
}

impl Slot {
    /// Claims the slot that was not checked for the longest time, if one is due.
    async fn claim(db: &Db, now: Timestamp) -> db::Result<Option<Self>> {
        let row = sqlx::query(
            // A time that is far ahead was written by a clock that was ahead. The time is compared
            // outside of the subquery as well: of two replicas that chose one slot, the second finds
            // it claimed.
            "UPDATE account_counts SET checked_at = $1 WHERE (checked_at <= $2 OR checked_at > $3)
             AND (host_id, slot) IN (
                SELECT host_id, slot FROM account_counts WHERE checked_at <= $2 OR checked_at > $3
                ORDER BY checked_at LIMIT 1)
             RETURNING host_id, slot",
        )
        .bind(now.as_millis())
        .bind(now.minus(CHECK_EVERY).as_millis())
        .bind(now.plus(CHECK_EVERY).as_millis())
        .fetch_optional(db.writer())
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Self { host: row.try_get("host_id")?, initial: row.try_get("slot")?, claimed_at: now }))
    }

    /// Returns how many accounts the counter lacks; a negative number if it has too many.
    async fn missing(&self, db: &Db) -> db::Result<i64> {
        let row = sqlx::query(
            // One statement sees one state of the database. A transaction that adds an account changes
            // the counter too, and this sees both or neither.
            "SELECT accounts, (
                SELECT COUNT(*) FROM accounts WHERE host_id = $1 AND SUBSTR(did, 9, 1) = $2) AS counted
             FROM account_counts WHERE host_id = $1 AND slot = $2",
        )
        .bind(&self.host)
        .bind(&self.initial)
        .fetch_optional(db.reader())
        .await?;
        let Some(row) = row else { return Ok(0) };
        Ok(row.try_get::<i64, _>("counted")? - row.try_get::<i64, _>("accounts")?)
    }

    /// Adds what the counter lacks. Returns `false` if the slot was claimed again since, by a process
    /// that then corrects it.
    async fn correct(&self, db: &Db, missing: i64) -> db::Result<bool> {
        // Added and not set: transactions after the count have changed the counter by themselves.
        let done = sqlx::query(
            "UPDATE account_counts SET accounts = accounts + $3
             WHERE host_id = $1 AND slot = $2 AND checked_at = $4",
        )
        .bind(&self.host)
        .bind(&self.initial)
        .bind(missing)
        .bind(self.claimed_at.as_millis())
        .execute(db.writer())
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

/// Counts the accounts on a host, for a decision that must not rest on a counter.
pub(in crate::accounts) async fn of_host(db: &Db, host: &HostId) -> db::Result<u64> {
    // The order is that of an index. Without it, PostgreSQL expects to meet an account of the host
    // soon, and reads the whole table if the host has none.
    let row = sqlx::query("SELECT 1 FROM accounts WHERE host_id = $1 ORDER BY SUBSTR(did, 9, 1) LIMIT 1")
        .bind(host.as_str())
        .fetch_optional(db.reader())
        .await?;
    if row.is_none() {
        return Ok(0);
    }
    Ok(by_host(db).await?.get(host).copied().unwrap_or(0).max(1))
}

/// The alphabet of `did:plc`.
const SLOTS: &str = "abcdefghijklmnopqrstuvwxyz234567";
/// A slot is not counted again before this time.
const CHECK_EVERY: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::NewAccount;
    use crate::accounts::sql::accounts;
    use crate::accounts::testing::{add as add_account, new_account};
    use crate::db::on_each_database;

    on_each_database!(
        accounts_are_counted_as_they_come_and_go,
        accounts_that_an_older_version_added_are_counted,
        a_sign_up_under_way_is_counted_once,
        a_sign_up_beside_a_count_is_kept,
        a_count_that_another_replica_repeated_changes_nothing,
        a_count_waits_for_no_writer,
        a_count_reads_an_index_only,
        a_clock_that_was_ahead_delays_no_check
    );

    async fn a_clock_that_was_ahead_delays_no_check(db: Db) {
        add_account(&db, &new_account("ann")).await.unwrap();
        check_all(&db, NOW.plus(CHECK_EVERY * 24 * 40)).await;
        sqlx::query("UPDATE account_counts SET accounts = 7").execute(db.writer()).await.unwrap();
        assert_eq!(check_all(&db, NOW).await, 1);
        assert_eq!(number(&db, "oak").await, 1);
        assert_eq!(check_one(&db, NOW).await.unwrap(), None);
    }

    async fn number(db: &Db, host: &str) -> u64 {
        by_host(db).await.unwrap().get(&HostId::from(host)).copied().unwrap_or(0)
    }

    async fn check_all(db: &Db, now: Timestamp) -> u64 {
        let mut wrong = 0;
        while let Some(is_wrong) = check_one(db, now).await.unwrap() {
            wrong += u64::from(is_wrong);
        }
        wrong
    }

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    async fn accounts_are_counted_as_they_come_and_go(db: Db) {
        let (ann, bob) = (new_account("ann"), NewAccount { host: "elm".into(), ..new_account("bob") });
        for account in [&ann, &bob, &new_account("carol")] {
            add_account(&db, account).await.unwrap();
        }
        assert_eq!((number(&db, "oak").await, number(&db, "elm").await), (2, 1));
        assert!(add_account(&db, &ann).await.is_err());
        let mut tx = db.begin().await.unwrap();
        assert!(accounts::remove(&mut tx, &ann.did).await.unwrap());
        assert!(!accounts::remove(&mut tx, &ann.did).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!((number(&db, "oak").await, number(&db, "elm").await), (1, 1));
        assert_eq!(check_all(&db, NOW).await, 0);
    }

    async fn accounts_that_an_older_version_added_are_counted(db: Db) {
        add_account(&db, &new_account("ann")).await.unwrap();
        sqlx::query("DELETE FROM account_counts").execute(db.writer()).await.unwrap();
        prepare(&db, &"oak".into()).await.unwrap();
        assert_eq!((number(&db, "oak").await, of_host(&db, &"oak".into()).await.unwrap()), (0, 1));
        assert_eq!(of_host(&db, &"elm".into()).await.unwrap(), 0);
        assert_eq!(check_all(&db, NOW).await, 1);
        assert_eq!(number(&db, "oak").await, 1);
        sqlx::query("UPDATE account_counts SET accounts = 7").execute(db.writer()).await.unwrap();
        assert_eq!(check_all(&db, NOW).await, 0, "each was checked lately");
        assert_eq!(check_all(&db, NOW.plus(CHECK_EVERY)).await, 32);
        assert_eq!(number(&db, "oak").await, 1);
    }

    async fn a_sign_up_under_way_is_counted_once(db: Db) {
        let ann = new_account("ann");
        prepare(&db, &"oak".into()).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        accounts::insert_creating(&mut tx, &ann).await.unwrap();
        let checking = tokio::spawn({
            let db = db.clone();
            async move { check_all(&db, NOW).await }
        });
        // The check counts before the commit or after it.
        tokio::task::yield_now().await;
        tx.commit().await.unwrap();
        assert_eq!(checking.await.unwrap(), 0);
        assert_eq!(number(&db, "oak").await, 1);
    }

    /// Claims the slot of Ann, the only one that an older version counted wrongly.
    async fn claim_wrong_slot(db: &Db, now: Timestamp) -> (Slot, i64) {
        loop {
            let slot = Slot::claim(db, now).await.unwrap().expect("a slot is wrong");
            let missing = slot.missing(db).await.unwrap();
            if missing != 0 {
                return (slot, missing);
            }
        }
    }

    async fn with_a_wrong_counter(db: &Db) {
        add_account(db, &new_account("ann")).await.unwrap();
        sqlx::query("UPDATE account_counts SET accounts = 5").execute(db.writer()).await.unwrap();
        prepare(db, &"oak".into()).await.unwrap();
    }

    async fn a_sign_up_beside_a_count_is_kept(db: Db) {
        with_a_wrong_counter(&db).await;
        let (slot, missing) = claim_wrong_slot(&db, NOW).await;
        assert_eq!(missing, -4);
        // The DIDs of both are in one slot.
        add_account(&db, &new_account("bob")).await.unwrap();
        assert!(slot.correct(&db, missing).await.unwrap());
        assert_eq!(number(&db, "oak").await, 2);
        assert_eq!(check_all(&db, NOW.plus(CHECK_EVERY)).await, 0);
    }

    async fn a_count_that_another_replica_repeated_changes_nothing(db: Db) {
        with_a_wrong_counter(&db).await;
        let (suspended, missing) = claim_wrong_slot(&db, NOW).await;
        assert!(check_all(&db, NOW.plus(CHECK_EVERY)).await > 0);
        assert_eq!(number(&db, "oak").await, 1);
        assert!(!suspended.correct(&db, missing).await.unwrap());
        assert_eq!(number(&db, "oak").await, 1);
    }

    async fn a_count_waits_for_no_writer(db: Db) {
        with_a_wrong_counter(&db).await;
        let (slot, _) = claim_wrong_slot(&db, NOW).await;
        // A sign-up that holds the counter, and on SQLite the only writer.
        let mut tx = db.begin().await.unwrap();
        add(&mut tx, &"oak".into(), &new_account("ann").did, 1).await.unwrap();
        assert_eq!(slot.missing(&db).await.unwrap(), -4);
    }

    async fn a_count_reads_an_index_only(db: Db) {
        let others = ["accounts_by_host", "accounts_by_slot"];
        let count = "SELECT COUNT(*) FROM accounts WHERE host_id = 'oak' AND SUBSTR(did, 9, 1) = 'a'";
        db.assert_reads_index_only(&others, count).await;
    }
}
