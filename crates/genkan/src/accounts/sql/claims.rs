//! Table `handle_claims`: one transaction at a time decides about a handle.

use genkan_protocol::syntax::{Did, Handle};

use crate::db::{self, Tx};

/// Holds a handle until `tx` ends. Another transaction that claims it waits for that.
///
/// A handle is taken in either of two columns of `accounts`, and a unique index covers one. The claim
/// makes the look at both and the change one step. Its row is removed at once: until the commit the
/// key is held all the same, and after it nothing is left to clean up.
pub(super) async fn hold(tx: &mut Tx, handle: &Handle, did: &Did) -> db::Result<()> {
    // The version before knows no claims. Beside it, both keep each other out by this lock; remove it
    // in the version after this one.
    tx.lock(&format!("handle {handle}")).await?;
    sqlx::query("INSERT INTO handle_claims (handle, did) VALUES ($1, $2)")
        .bind(handle.as_str())
        .bind(did.as_str())
        .execute(&mut **tx)
        .await?;
    sqlx::query("DELETE FROM handle_claims WHERE handle = $1")
        .bind(handle.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::Fresh;
    use crate::db::{Db, on_each_database};

    on_each_database!(a_claim_is_left_by_no_transaction);

    async fn a_claim_is_left_by_no_transaction(db: Db) {
        let (handle, did) = ("ann.test".parse().unwrap(), "did:plc:ann".parse().unwrap());
        for commits in [false, true] {
            let mut tx = db.begin().await.unwrap();
            hold(&mut tx, &handle, &did).await.unwrap();
            // Again in one transaction: it is its own claim.
            hold(&mut tx, &handle, &did).await.unwrap();
            if commits {
                tx.commit().await.unwrap();
            }
        }
        let left: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM handle_claims").fetch_one(db.reader()).await.unwrap();
        assert_eq!(left, 0);
    }

    /// As the version before holds a handle, which knows no claims.
    #[tokio::test]
    #[ignore = "needs GENKAN_TEST_POSTGRES"]
    async fn a_claim_waits_for_a_transaction_of_the_version_before() {
        let fresh = Fresh::postgres().await;
        let db = fresh.db.clone();
        let (handle, did) = ("ann.test".parse().unwrap(), "did:plc:ann".parse().unwrap());
        let mut older = db.begin().await.unwrap();
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('handle ann.test', 0))")
            .execute(&mut *older)
            .await
            .unwrap();
        let mut newer = db.begin().await.unwrap();
        let waiting =
            tokio::time::timeout(std::time::Duration::from_millis(300), hold(&mut newer, &handle, &did));
        assert!(waiting.await.is_err(), "the version before is not kept out");
        drop(newer);
        older.commit().await.unwrap();
        hold(&mut db.begin().await.unwrap(), &handle, &did).await.unwrap();
    }

    /// Without the older lock, which hides what the claim does.
    #[tokio::test]
    #[ignore = "needs GENKAN_TEST_POSTGRES"]
    async fn a_second_claim_waits_for_the_first_transaction() {
        let fresh = Fresh::postgres().await;
        let db = fresh.db.clone();
        let claim = "INSERT INTO handle_claims (handle, did) VALUES ('ann.test', 'did:plc:ann')";
        let mut first = db.begin().await.unwrap();
        hold(&mut first, &"ann.test".parse().unwrap(), &"did:plc:ann".parse().unwrap()).await.unwrap();
        let mut second = db.begin().await.unwrap();
        let waiting = tokio::time::timeout(
            std::time::Duration::from_millis(300),
            sqlx::query(claim).execute(&mut *second),
        );
        assert!(waiting.await.is_err(), "the key is held although its row is removed");
        drop(second);
        first.commit().await.unwrap();
        let mut third = db.begin().await.unwrap();
        sqlx::query(claim).execute(&mut *third).await.unwrap();
    }
}
