//! The job that removes rows which nothing can use any more.

use std::time::Duration;

use crate::app::App;
use crate::base::{Timestamp, monotonic_now};
use crate::db::sweep::{Batch, Sweep};
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
    db::sweep::sweep!("notes of the changes feed", |db, _now| feed::sweep(db)),
    db::sweep::sweep!("known addresses", |db, now| signin::sweep_addresses(db, now)),
    db::sweep::sweep!("replicas", |db, _now| replicas::sweep(db)),
];

/// Runs each sweep by itself: the failure of one is logged and counted, and stops no other one.
/// Returns the number of removed rows.
pub(super) async fn run(app: &App) -> anyhow::Result<u64> {
    let mut removed = 0;
    for sweep in all() {
        removed += repeat(app, sweep.name, |now| (sweep.batch)(&app.db, now)).await;
    }
    Ok(removed + repeat(app, "rate counters", |now| app.limits.sweep(&app.db, now)).await)
}

/// Repeats a batch until nothing is left, or the sweep has had its time. The next run goes on.
async fn repeat<F>(app: &App, name: &'static str, batch: impl Fn(Timestamp) -> F) -> u64
where
    F: Future<Output = db::Result<Batch>>,
{
    let (began, now) = (monotonic_now(), app.clock.now());
    let mut removed = 0;
    loop {
        let started = monotonic_now();
        match batch(now).await {
            Ok(done) => {
                removed += done.removed;
                app.metrics.counter(&SWEPT, &[name]).add(done.removed);
                if !done.has_more || began.elapsed() >= LONGEST {
                    return removed;
                }
            }
            Err(cause) => {
                app.metrics.counter(&JOB_FAILURES, &[&format!("sweep {name}")]).increment();
                let cause = &cause as &dyn std::error::Error;
                tracing::warn!(sweep = name, cause, "old rows could not be removed");
                return removed;
            }
        }
        // It rests as long as it works, so that requests get the database half of the time at least.
        tokio::time::sleep(started.elapsed()).await;
    }
}

/// The longest time that a sweep takes in one run.
const LONGEST: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::testing::app_with_ann;
    use crate::db::{Db, on_each_database};

    on_each_database!(a_sweep_that_fails_stops_no_other_one, a_sweep_goes_on_until_nothing_is_left);

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
        let before = app.clock.now().minus(Duration::from_hours(1)).as_millis();
        let mut tx = app.db.begin().await.unwrap();
        for number in 0..450 {
            sqlx::query("INSERT INTO oauth_seen (hash, expires_at) VALUES ($1, $2)")
                .bind(number.to_string())
                .bind(before)
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        assert_eq!(run(&app).await.unwrap(), 450);
        assert_eq!(run(&app).await.unwrap(), 0);
    }
}
