//! Table `oauth_scopes`.

use std::time::Duration;

use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Result, Tx};
use crate::oauth::scope::{ExpandedScope, TokenScope};

/// Stores a scope under the hash of its content. An existing row has the same content.
pub(in crate::oauth) async fn keep(
    tx: &mut Tx,
    id: &TokenScope,
    scope: &ExpandedScope,
    now: Timestamp,
) -> Result<()> {
    // The id is a hash of the scope, so a row with this id needs no comparison. Its time is written
    // at most once an hour.
    sqlx::query(
        "INSERT INTO oauth_scopes (id, scope, used_at) VALUES ($1, $2, $3)
         ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at WHERE oauth_scopes.used_at < $4",
    )
    .bind(id.as_str())
    .bind(scope.as_str())
    .bind(now.as_millis())
    .bind(now.minus(TOUCH_EVERY).as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(in crate::oauth) async fn find(db: &Db, id: &str) -> Result<Option<ExpandedScope>> {
    let row = sqlx::query("SELECT scope FROM oauth_scopes WHERE id = $1")
        .bind(id)
        .fetch_optional(db.reader())
        .await?;
    Ok(row.map(|row| row.try_get("scope")).transpose()?.map(ExpandedScope::stored))
}

/// Removes a batch of scopes that were last used in `range`.
pub(in crate::oauth) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows { table: "oauth_scopes", key: "id", time: "used_at", only: None };
    old.sweep(db, range).await
}

/// The least time between two writes. Otherwise every token with a reference would write.
const TOUCH_EVERY: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(a_scope_is_kept_while_it_is_used);

    async fn a_scope_is_kept_while_it_is_used(db: Db) {
        let start = Timestamp::from_millis(1_000_000_000);
        let later = start.plus(TOUCH_EVERY * 2);
        let mut tx = db.begin().await.unwrap();
        let (a, b) = (TokenScope::of_claim("a"), TokenScope::of_claim("b"));
        let (long, short) = (ExpandedScope::for_tests("atproto repo:*"), ExpandedScope::for_tests("atproto"));
        keep(&mut tx, &a, &long, start).await.unwrap();
        keep(&mut tx, &b, &short, start).await.unwrap();
        keep(&mut tx, &a, &long, later).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(sweep(&db, later.into()).await.unwrap().removed, 1);
        assert_eq!(find(&db, "a").await.unwrap(), Some(long));
        assert_eq!(find(&db, "b").await.unwrap(), None);
    }
}
