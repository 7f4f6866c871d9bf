//! Table `permission_sets`.

use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Result, Tx};

/// The result of a permission set's last resolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::oauth) struct StoredPermissionSet {
    /// The last good document, and when it was verified.
    pub(in crate::oauth) document: Option<(String, Timestamp)>,
    /// When it was last tried, with or without success.
    pub(in crate::oauth) checked_at: Timestamp,
    /// Why that attempt failed, if it did.
    pub(in crate::oauth) problem: Option<String>,
    /// When a grant last used it, to the day. `None` if it was only requested.
    pub(in crate::oauth) used_at: Option<Timestamp>,
}

pub(in crate::oauth) async fn find(db: &Db, nsid: &str) -> Result<Option<StoredPermissionSet>> {
    let row = sqlx::query(
        "SELECT document, verified_at, checked_at, problem, used_at FROM permission_sets WHERE nsid = $1",
    )
    .bind(nsid)
    .fetch_optional(db.reader())
    .await?;
    let Some(row) = row else { return Ok(None) };
    // A name for which every attempt failed has a row without a document.
    let document: Option<String> = row.try_get("document")?;
    let verified_at: Option<i64> = row.try_get("verified_at")?;
    Ok(Some(StoredPermissionSet {
        document: document.zip(verified_at.map(Timestamp::from_millis)),
        checked_at: Timestamp::from_millis(row.try_get("checked_at")?),
        problem: row.try_get("problem")?,
        used_at: row.try_get::<Option<i64>, _>("used_at")?.map(Timestamp::from_millis),
    }))
}

pub(in crate::oauth) async fn put(tx: &mut Tx, nsid: &str, document: &str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "INSERT INTO permission_sets (nsid, document, verified_at, checked_at) VALUES ($1, $2, $3, $3)
         ON CONFLICT (nsid) DO UPDATE SET document = excluded.document, verified_at = excluded.verified_at,
            checked_at = excluded.checked_at, problem = NULL",
    )
    .bind(nsid)
    .bind(document)
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes that a grant uses a set.
pub(in crate::oauth) async fn note_use(tx: &mut Tx, nsid: &str, now: Timestamp) -> Result<()> {
    sqlx::query("UPDATE permission_sets SET used_at = $2 WHERE nsid = $1")
        .bind(nsid)
        .bind(now.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Removes a batch of documents that were requested in `range` and never used by a grant.
pub(in crate::oauth) async fn sweep_unused(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows {
        table: "permission_sets",
        key: "nsid",
        time: "checked_at",
        only: Some("used_at IS NULL AND document IS NOT NULL"),
    };
    old.sweep(db, range).await
}

/// Removes a batch of documents that a grant last used in `range`.
pub(in crate::oauth) async fn sweep_used(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows { table: "permission_sets", key: "nsid", time: "used_at", only: None };
    old.sweep(db, range).await
}

/// Records a failed attempt. The last good document stays.
pub(in crate::oauth) async fn put_problem(
    tx: &mut Tx,
    nsid: &str,
    problem: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        // The document is left as it is: the last good one is used while its server has trouble.
        "INSERT INTO permission_sets (nsid, checked_at, problem) VALUES ($1, $2, $3)
         ON CONFLICT (nsid) DO UPDATE SET checked_at = excluded.checked_at, problem = excluded.problem",
    )
    .bind(nsid)
    .bind(now.as_millis())
    .bind(problem)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Removes a batch of names that were requested in `range` but never were a permission set.
pub(in crate::oauth) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch> {
    // Anyone can make Genkan look a name up. Only failed lookups are removed, since grants may need
    // a document.
    let old =
        OldRows { table: "permission_sets", key: "nsid", time: "checked_at", only: Some("document IS NULL") };
    old.sweep(db, range).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(the_last_good_document_outlives_failures, a_document_stays_while_grants_use_it);

    async fn a_document_stays_while_grants_use_it(db: Db) {
        let at = Timestamp::from_millis;
        let mut tx = db.begin().await.unwrap();
        for nsid in ["com.example.requested", "com.example.used"] {
            put(&mut tx, nsid, "{}", at(5)).await.unwrap();
        }
        note_use(&mut tx, "com.example.used", at(7)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(sweep_unused(&db, at(5).into()).await.unwrap().removed, 0);
        assert_eq!(sweep_unused(&db, at(6).into()).await.unwrap().removed, 1);
        assert_eq!(sweep_used(&db, at(7).into()).await.unwrap().removed, 0);
        assert_eq!(find(&db, "com.example.requested").await.unwrap(), None);
        let used = find(&db, "com.example.used").await.unwrap().unwrap();
        assert_eq!(used.used_at, Some(at(7)));
        assert_eq!(sweep_used(&db, at(8).into()).await.unwrap().removed, 1);
    }

    async fn the_last_good_document_outlives_failures(db: Db) {
        let at = Timestamp::from_millis;
        let mut tx = db.begin().await.unwrap();
        put_problem(&mut tx, "never.was.one", "no such name", at(5)).await.unwrap();
        put(&mut tx, "com.example.set", "{}", at(5)).await.unwrap();
        put_problem(&mut tx, "com.example.set", "away", at(7)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(sweep(&db, at(5).into()).await.unwrap().removed, 0);
        assert_eq!(sweep(&db, at(8).into()).await.unwrap().removed, 1);
        let found = find(&db, "com.example.set").await.unwrap().unwrap();
        let document = Some(("{}".to_owned(), at(5)));
        assert_eq!(
            found,
            StoredPermissionSet {
                document,
                checked_at: at(7),
                problem: Some("away".to_owned()),
                used_at: None
            }
        );
        assert_eq!(find(&db, "never.was.one").await.unwrap(), None);
        let mut tx = db.begin().await.unwrap();
        put(&mut tx, "com.example.set", "[]", at(9)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(find(&db, "com.example.set").await.unwrap().unwrap().problem, None);
    }
}
