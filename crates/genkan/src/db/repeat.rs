//! Transactions that are repeated as a whole.
//!
//! A transaction may have to give way to others (serialization failure, deadlock), or lose its
//! connection when a server fails over. Nothing of it remains then, and another attempt usually
//! succeeds. It is different if the connection is lost after the commit was sent
//! ([`UnconfirmedCommit`]): the transaction may have happened, so it is not repeated here.

use std::error::Error as StdError;
use std::time::Duration;

use crate::base::random;

/// A commit whose confirmation was lost. The transaction may have happened.
#[derive(Debug, thiserror::Error)]
#[error("the connection was lost during a commit: {0}")]
pub struct UnconfirmedCommit(pub(super) sqlx::Error);

/// Runs `transaction`, and again if it had to give way or lost its connection before the commit.
///
/// `transaction` begins and commits one transaction, and changes nothing outside of it.
pub(crate) async fn repeated<T, E, F>(transaction: impl Fn() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: StdError + 'static,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match transaction().await {
            Err(error) if left_nothing(&error) => {
                // Spread, so that two that gave way to each other do not meet again.
                tokio::time::sleep(pause.mul_f64(0.5 + random::fraction())).await;
                pause *= 4;
            }
            done => return done,
        }
    }
    transaction().await
}

/// Whether nothing of a failed transaction remains, and another attempt may succeed.
fn left_nothing(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<sqlx::Error>() {
            return gave_way(found) || lost_connection(found) && !is_late(found);
        }
        cause = error.source();
    }
    false
}

fn gave_way(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["40001", "40P01"].contains(&&*code))
}

/// An answer that did not come in time has already cost the caller's patience.
fn is_late(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(cause) if cause.kind() == std::io::ErrorKind::TimedOut)
}

/// Whether a connection ended, by the server's word (classes 08 and 57P) or without one.
pub(super) fn lost_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(cause) => {
            cause.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P"))
        }
        _ => false,
    }
}

/// Short together: a caller waits, and a database that is away is reported after this.
const ATTEMPTS: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use sqlx::Executor as _;

    use super::*;
    use crate::db::feed::{self, Change};
    use crate::db::testing::Fresh;
    use crate::db::{Db, Error, Result};

    /// Writes a note, and meets the fault in so many attempts before.
    async fn attempt(db: &Db, attempts: &AtomicUsize, faults: usize, fault: &'static str) -> Result<()> {
        let mut tx = db.begin().await?;
        feed::note(&mut tx, Change::Session, "s1").await?;
        if attempts.fetch_add(1, Ordering::SeqCst) < faults {
            tx.execute(sqlx::raw_sql(fault)).await?;
        }
        tx.commit().await
    }

    async fn notes(db: &Db) -> i64 {
        sqlx::query_scalar("SELECT COUNT(*) FROM changes").fetch_one(db.reader()).await.unwrap()
    }

    #[tokio::test]
    #[ignore = "needs GENKAN_TEST_POSTGRES"]
    async fn a_transaction_that_gave_way_or_lost_its_connection_is_repeated() {
        let fresh = Fresh::postgres().await;
        let db = &fresh.db;
        let faults = [
            "DO $$ BEGIN RAISE EXCEPTION 'gave way' USING ERRCODE = '40001'; END $$",
            "DO $$ BEGIN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END $$",
            "SELECT pg_terminate_backend(pg_backend_pid())",
        ];
        for (before, fault) in (0..).zip(faults) {
            let attempts = AtomicUsize::new(0);
            repeated(|| attempt(db, &attempts, 2, fault)).await.unwrap();
            assert_eq!((attempts.into_inner(), notes(db).await), (3, before + 1), "{fault}");
        }
        let attempts = AtomicUsize::new(0);
        let failed = repeated(|| attempt(db, &attempts, 100, faults[0])).await;
        assert!(matches!(failed, Err(Error::Away(_))), "{failed:?}");
        assert_eq!(attempts.into_inner(), ATTEMPTS);
        let attempts = AtomicUsize::new(0);
        let wrong = repeated(|| attempt(db, &attempts, 100, "SELECT no_such_column")).await;
        assert!(matches!(wrong, Err(Error::Statement(_))), "{wrong:?}");
        assert_eq!(attempts.into_inner(), 1);
    }

    /// The transaction may have happened, so a repetition could do it twice.
    #[tokio::test]
    #[ignore = "needs GENKAN_TEST_POSTGRES"]
    async fn a_commit_without_an_answer_is_not_repeated() {
        let fresh = Fresh::postgres().await;
        let db = &fresh.db;
        let attempts = AtomicUsize::new(0);
        let failed = repeated(|| async {
            attempts.fetch_add(1, Ordering::SeqCst);
            let mut tx = db.begin().await?;
            feed::note(&mut tx, Change::Session, "s1").await?;
            let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await?;
            let end = "SELECT pg_terminate_backend($1::int)";
            sqlx::query(end).bind(pid).execute(db.writer()).await?;
            tx.commit().await
        })
        .await;
        assert!(matches!(&failed, Err(error @ Error::Unconfirmed(_)) if error.is_passing()), "{failed:?}");
        assert_eq!(attempts.into_inner(), 1);
    }
}
