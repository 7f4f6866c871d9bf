//! The job that removes rows which nothing can use any more.

use std::time::Duration;

use crate::app::App;
use crate::base::monotonic_now;
use crate::db::sweep::{Batch, Sweep, SweepRange};
use crate::db::{feed, replicas};
use crate::telemetry::metrics::{JOB_FAILURES, SWEPT};
use crate::{accounts, db, identity, links, mail, oauth, sessions, signin};

/// The sweeps of every room.
fn all() -> impl Iterator<Item = &'static Sweep> {
    [sessions::SWEEPS, OTHERS, links::SWEEPS, signin::SWEEPS, oauth::SWEEPS, mail::SWEEPS]
        .into_iter()
        .chain([accounts::emails::SWEEPS, identity::SWEEPS])
        .flatten()
}

const OTHERS: &[Sweep] = &[
    db::sweep::sweep!("notes of the changes feed", |db, range| feed::sweep(db, range)),
    db::sweep::sweep!("known addresses", |db, range| signin::sweep_addresses(db, range)),
    db::sweep::sweep!("replicas", |db, _range| replicas::sweep(db)),
];

/// Runs all sweeps, at once again for as long as the time limit stops one of them: rows may come
/// faster than a sweep with pauses removes them. Returns the number of removed rows.
pub(super) async fn run(app: &App) -> anyhow::Result<u64> {
    Ok(run_within(app, LONGEST).await)
}

async fn run_within(app: &App, longest: Duration) -> u64 {
    let mut removed = 0;
    loop {
        let round = run_once(app, longest).await;
        removed += round.removed;
        if !round.has_more {
            return removed;
        }
    }
}

/// The result of a sweep, or of several, within a time limit.
#[derive(Default)]
struct Outcome {
    removed: u64,
    /// Whether the time limit stopped it.
    has_more: bool,
}

/// Runs each sweep by itself: the failure of one is logged and counted, and stops no other one.
async fn run_once(app: &App, longest: Duration) -> Outcome {
    let mut outcome = repeat(app, longest, "rate counters", |range| app.limits.sweep(&app.db, range)).await;
    for sweep in all() {
        let one = repeat(app, longest, sweep.name, |range| (sweep.batch)(&app.db, range)).await;
        outcome.removed += one.removed;
        outcome.has_more |= one.has_more;
    }
    outcome
}

/// Repeats a batch until nothing is left, or the sweep has had its time.
async fn repeat<F>(
    app: &App,
    longest: Duration,
    name: &'static str,
    batch: impl Fn(SweepRange) -> F,
) -> Outcome
where
    F: Future<Output = db::Result<Batch>>,
{
    let (began, mut range) = (monotonic_now(), SweepRange::until(app.clock.now()));
    let mut outcome = Outcome::default();
    let mut was_empty = false;
    loop {
        let started = monotonic_now();
        match batch(range).await {
            Ok(done) => {
                outcome.removed += done.removed;
                app.metrics.counter(&SWEPT, &[name]).add(done.removed);
                if !done.has_more {
                    return outcome;
                }
                if began.elapsed() >= longest {
                    outcome.has_more = true;
                    return outcome;
                }
                range.from = done.reached;
                // Another replica has removed the rows of this batch, and rests now. If this one
                // rested as well, both would choose the same rows again.
                if done.removed == 0 && !was_empty {
                    was_empty = true;
                    continue;
                }
                was_empty = done.removed == 0;
            }
            Err(cause) => {
                app.metrics.counter(&JOB_FAILURES, &[&format!("sweep {name}")]).increment();
                let cause = &cause as &dyn std::error::Error;
                tracing::warn!(sweep = name, cause, "old rows could not be removed");
                return outcome;
            }
        }
        // It rests as long as it works, so that requests get the database half of the time at least.
        tokio::time::sleep(started.elapsed()).await;
    }
}

/// The longest time that a sweep takes before the others have their turn.
const LONGEST: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::testing::app_with_ann;
    use crate::db::{Db, on_each_database};

    on_each_database!(
        a_sweep_that_fails_stops_no_other_one,
        a_sweep_goes_on_until_nothing_is_left,
        a_sweep_that_ran_out_of_time_goes_on_at_once,
        two_replicas_sweep_together
    );

    async fn insert_expired(app: &App, rows: usize) {
        let before = app.clock.now().minus(Duration::from_hours(1)).as_millis();
        let mut tx = app.db.begin().await.unwrap();
        let mut values: Vec<String> = (0..rows).map(|row| format!("('{row}', {before})")).collect();
        while !values.is_empty() {
            let some: Vec<String> = values.drain(..values.len().min(500)).collect();
            let text = format!("INSERT INTO oauth_seen (hash, expires_at) VALUES {}", some.join(", "));
            sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut *tx).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    async fn left(db: &Db) -> i64 {
        sqlx::query_scalar("SELECT COUNT(*) FROM oauth_seen").fetch_one(db.reader()).await.unwrap()
    }

    async fn a_sweep_that_ran_out_of_time_goes_on_at_once(db: Db) {
        let app = app_with_ann(db).await.0;
        insert_expired(&app, 5_000).await;
        let first = run_once(&app, Duration::ZERO).await;
        assert!(first.has_more && first.removed < 5_000, "{}", first.removed);
        assert_eq!(run_within(&app, Duration::ZERO).await, 5_000 - first.removed);
        assert_eq!(left(&app.db).await, 0);
    }

    /// Each goes on until nothing is left, also when the other one was faster.
    async fn two_replicas_sweep_together(db: Db) {
        let app = app_with_ann(db.clone()).await.0;
        insert_expired(&app, 20_000).await;
        let sweep = async |db: Db| {
            let proofs = all().find(|sweep| sweep.name == "used proofs").unwrap();
            let outcome = repeat(&app, LONGEST, proofs.name, |range| (proofs.batch)(&db, range)).await;
            (outcome.removed, left(&db).await)
        };
        let (one, two) = tokio::join!(sweep(db.apart()), sweep(db.apart()));
        assert_eq!((one.0 + two.0, one.1, two.1), (20_000, 0, 0));
    }

    async fn a_sweep_that_fails_stops_no_other_one(db: Db) {
        let app = app_with_ann(db).await.0;
        let before = app.clock.now().minus(Duration::from_hours(1)).as_millis();
        sqlx::query("INSERT INTO oauth_seen (hash, expires_at) VALUES ('a', $1)")
            .bind(before)
            .execute(app.db.writer())
            .await
            .unwrap();
        let rename = async |text: &'static str| {
            sqlx::query(text).execute(app.db.writer()).await.unwrap();
        };
        rename("ALTER TABLE refresh_tokens RENAME TO refresh_tokens_away").await;
        let removed = run(&app).await;
        // The next test may get the same schema.
        rename("ALTER TABLE refresh_tokens_away RENAME TO refresh_tokens").await;
        assert_eq!(removed.unwrap(), 1);
        let text = app.metrics.text();
        assert!(text.contains("genkan_job_failures_total{job=\"sweep refresh tokens\"} 1"), "{text}");
        assert!(text.contains("genkan_swept_rows_total{sweep=\"used proofs\"} 1"), "{text}");
    }

    async fn a_sweep_goes_on_until_nothing_is_left(db: Db) {
        let app = app_with_ann(db).await.0;
        insert_expired(&app, 4_500).await;
        assert_eq!(run(&app).await.unwrap(), 4_500);
        assert_eq!(run(&app).await.unwrap(), 0);
    }
}
