//! Removal of rows that nothing can use any more.

use std::time::Duration;

use crate::base::Timestamp;
use crate::db::Db;
use crate::oauth::sql;

/// Removes rows that nothing can use any more. A grant stays for a day after its end.
pub(crate) async fn sweep(db: &Db, now: Timestamp) -> crate::db::Result<u64> {
    let mut tx = db.begin().await?;
    let mut gone = sql::seen::sweep(&mut tx, now).await?;
    gone += sql::requests::sweep(&mut tx, now).await?;
    gone += sql::grants::sweep(&mut tx, now.minus(DAY)).await?;
    gone += sql::codes::sweep(&mut tx, now.minus(DAY)).await?;
    // `keep` renews a scope at most once an hour, so ninety days are far beyond the last token that
    // refers to it.
    gone += sql::scopes::sweep(&mut tx, now.minus(DAY * 90)).await?;
    gone += sql::clients::sweep(&mut tx, now.minus(DAY)).await?;
    gone += sql::permission_sets::sweep(&mut tx, now.minus(DAY)).await?;
    tx.commit().await?;
    Ok(gone + sweep_permission_sets(db, now).await?)
}

/// Removes documents that no grant uses, in batches, each in a transaction of its own.
async fn sweep_permission_sets(db: &Db, now: Timestamp) -> crate::db::Result<u64> {
    let mut gone = 0;
    loop {
        let mut tx = db.begin().await?;
        let unused = sql::permission_sets::sweep_unused(&mut tx, now.minus(DAY)).await?;
        // A grant that is in use is refreshed every three months at least.
        let used = sql::permission_sets::sweep_used(&mut tx, now.minus(DAY * 400)).await?;
        tx.commit().await?;
        gone += unused + used;
        if unused + used == 0 {
            return Ok(gone);
        }
    }
}

const DAY: Duration = Duration::from_hours(24);
