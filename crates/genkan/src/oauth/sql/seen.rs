//! Table `oauth_seen`.

use crate::base::Timestamp;
use crate::db::{Result, Tx};

/// `true`: nobody was here before. The unique key decides, on any number of replicas.
pub(in crate::oauth) async fn insert(
    tx: &mut Tx,
    hash: &str,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    // What has expired is as good as forgotten, swept or not.
    let done = sqlx::query(
        "INSERT INTO oauth_seen (hash, expires_at) VALUES ($1, $2)
         ON CONFLICT (hash) DO UPDATE SET expires_at = excluded.expires_at WHERE oauth_seen.expires_at <= $3",
    )
    .bind(hash)
    .bind(expires_at.as_millis())
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(in crate::oauth) async fn sweep(tx: &mut Tx, now: Timestamp) -> Result<u64> {
    let done = sqlx::query("DELETE FROM oauth_seen WHERE expires_at <= $1")
        .bind(now.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Db, on_each_database};

    on_each_database!(a_thing_is_new_once_until_it_expires);

    async fn a_thing_is_new_once_until_it_expires(db: Db) {
        let at = Timestamp::from_millis;
        let mut tx = db.begin().await.unwrap();
        assert!(insert(&mut tx, "a", at(100), at(1)).await.unwrap());
        assert!(!insert(&mut tx, "a", at(100), at(99)).await.unwrap());
        assert!(insert(&mut tx, "b", at(100), at(1)).await.unwrap());
        assert!(insert(&mut tx, "a", at(200), at(100)).await.unwrap());
        assert!(!insert(&mut tx, "a", at(300), at(101)).await.unwrap());
        assert_eq!(sweep(&mut tx, at(100)).await.unwrap(), 1);
        assert!(!insert(&mut tx, "a", at(300), at(101)).await.unwrap());
    }
}
