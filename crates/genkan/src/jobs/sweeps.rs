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
    use crate::base::Timestamp;
    use crate::db::{Db, on_each_database};

    on_each_database!(
        a_sweep_that_fails_stops_no_other_one,
        a_sweep_goes_on_until_nothing_is_left,
        a_sweep_that_ran_out_of_time_goes_on_at_once,
        two_replicas_sweep_together,
        each_sweep_removes_a_bounded_batch,
        rows_stay_for_their_time
    );

    async fn insert_expired(app: &App, rows: u64) {
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
        let number = 25 * app.db.rows_at_once();
        insert_expired(&app, number).await;
        let first = run_once(&app, Duration::ZERO).await;
        assert!(first.has_more && first.removed < number, "{}", first.removed);
        assert_eq!(run_within(&app, Duration::ZERO).await, number - first.removed);
        assert_eq!(left(&app.db).await, 0);
    }

    /// Each goes on until nothing is left, also when the other one was faster.
    async fn two_replicas_sweep_together(db: Db) {
        let app = app_with_ann(db.clone()).await.0;
        let number = 100 * db.rows_at_once();
        insert_expired(&app, number).await;
        let sweep = async |db: Db| {
            let proofs = all().find(|sweep| sweep.name == "used proofs").unwrap();
            let outcome = repeat(&app, LONGEST, proofs.name, |range| (proofs.batch)(&db, range)).await;
            (outcome.removed, left(&db).await)
        };
        let (one, two) = tokio::join!(sweep(db.apart()), sweep(db.apart()));
        assert_eq!((one.0 + two.0, one.1, two.1), (number, 0, 0));
    }

    /// Rows that a sweep removes: its name, how long after their time they stay, and how to insert
    /// them, for the numbers `n`. Their time is [`TIME`].
    const ROWS: &[(&str, Option<Duration>, &str)] = &[
        (
            "refresh tokens",
            Some(Duration::ZERO),
            "refresh_tokens (session_id, generation, expires_at) SELECT 's' || n, 0, 1000",
        ),
        (
            "ended sessions",
            Some(Duration::from_hours(48)),
            "sessions (id, did, scope, opened_at, touched_at, expires_at, ended_at)
             SELECT 'e' || n, 'did:plc:x', 'com.atproto.access', 0, 0, 9000000000000000, 1000",
        ),
        (
            "expired sessions",
            Some(Duration::from_hours(48)),
            "sessions (id, did, scope, opened_at, touched_at, expires_at)
             SELECT 's' || n, 'did:plc:x', 'com.atproto.access', 0, 0, 1000",
        ),
        // By the database's clock, as the notes themselves.
        (
            "notes of the changes feed",
            None,
            "changes (id, at, kind, subject) SELECT 'c' || n, 1000, 'account', 'x'",
        ),
        (
            "known addresses",
            Some(Duration::from_hours(30 * 24)),
            "known_addresses (did, address, seen_at) SELECT 'did:plc:x', 'a' || n, 1000",
        ),
        (
            "linked sign-ins",
            Some(Duration::ZERO),
            "link_logins (state, sealed, server, client_id, back, device, browser, expires_at)
             SELECT 's' || n, '', '{}', 'x', '/', 'd', 'b', 1000",
        ),
        (
            "visits",
            Some(Duration::ZERO),
            "link_visits (device, did, expires_at) SELECT 'd' || n, 'did:plc:x', 1000",
        ),
        (
            "links",
            Some(Duration::from_hours(30 * 24)),
            "links (id, did, pds, server, client_id, scope, state, version, issued_at, lease_until,
                unanswered, device, created_at, used_at, ended_at, revoke_attempts)
             SELECT 'l' || n, 'did:plc:x', 'https://pds.example.com', '{}', 'x', 'atproto', 'dead', 1, 0, 0,
                0, 'd', 0, 0, 1000, 0",
        ),
        (
            "link clients",
            Some(Duration::from_hours(800 * 24)),
            "link_clients (hash, scope, used_at) SELECT 'h' || n, 'atproto', 1000",
        ),
        (
            "sign-ins for a request",
            Some(Duration::from_hours(1)),
            "device_accounts (device, did, request, entered_at) SELECT 'd' || n, 'did:plc:x', 'req', 1000",
        ),
        (
            "browsers",
            Some(Duration::from_hours(24)),
            "devices (id, session, rotated_at, address, user_agent, seen_at, created_at)
             SELECT 'd' || n, 's' || n, 0, '', '', 1000, 0",
        ),
        ("used proofs", Some(Duration::ZERO), "oauth_seen (hash, expires_at) SELECT 'h' || n, 1000"),
        (
            "authorization requests",
            Some(Duration::ZERO),
            "oauth_requests (id, client_id, pushed, expires_at) SELECT 'r' || n, 'x', '{}', 1000",
        ),
        (
            "ended grants",
            Some(Duration::from_hours(24)),
            "oauth_grants (id, did, client_id, scope, dpop_key, client_auth, device, refreshable, generation,
                rotated_at, rotated_before_at, idle_until, expires_at, created_at, ended_at)
             SELECT 'e' || n, 'did:plc:x', 'x', 'atproto', '', '{}', 'd', 'no', 0,
                0, 0, 9000000000000000, 9000000000000000, 0, 1000",
        ),
        (
            "idle grants",
            Some(Duration::from_hours(24)),
            "oauth_grants (id, did, client_id, scope, dpop_key, client_auth, device, refreshable, generation,
                rotated_at, rotated_before_at, idle_until, expires_at, created_at)
             SELECT 'i' || n, 'did:plc:x', 'x', 'atproto', '', '{}', 'd', 'no', 0, 0, 0, 1000, 1000, 0",
        ),
        (
            "codes",
            Some(Duration::from_hours(24)),
            "oauth_codes (hash, client_id, pushed, scope, did, device, expires_at)
             SELECT 'h' || n, 'x', '{}', 'atproto', 'did:plc:x', 'd', 1000",
        ),
        (
            "scopes",
            Some(Duration::from_hours(90 * 24)),
            "oauth_scopes (id, scope, used_at) SELECT 'i' || n, 'atproto', 1000",
        ),
        (
            "clients",
            Some(Duration::from_hours(24)),
            "oauth_clients (client_id, standing, created_at) SELECT 'c' || n, 'known', 1000",
        ),
        (
            "permission sets without a document",
            Some(Duration::from_hours(24)),
            "permission_sets (nsid, checked_at) SELECT 'm' || n, 1000",
        ),
        (
            "unused permission sets",
            Some(Duration::from_hours(24)),
            "permission_sets (nsid, document, verified_at, checked_at) SELECT 'u' || n, '{}', 1000, 1000",
        ),
        (
            "permission sets of long ago",
            Some(Duration::from_hours(400 * 24)),
            "permission_sets (nsid, document, verified_at, checked_at, used_at)
             SELECT 'l' || n, '{}', 1000, 1000, 1000",
        ),
        (
            "undelivered emails",
            Some(Duration::from_hours(14 * 24)),
            "outbox (id, did, kind, sealed, state, attempts, due_at, expires_at, created_at)
             SELECT 'o' || n, 'did:plc:x', 'reset_password', '', 'given_up', 9, 0, 0, 1000",
        ),
        (
            "codes in emails",
            Some(Duration::from_hours(24)),
            "email_tokens (did, purpose, hash, tries, expires_at)
             SELECT 'did:plc:x' || n, 'reset_password', 'h' || n, 0, 1000",
        ),
        (
            "DID documents",
            Some(Duration::from_hours(30 * 24)),
            "home_documents (did, checked_at) SELECT 'did:plc:x' || n, 1000",
        ),
    ];
    const TIME: Timestamp = Timestamp::from_millis(1000);

    /// Inserts rows with the numbers from 1.
    async fn fill(db: &Db, number: u64, rows: &str) {
        let text = format!(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {number})
             INSERT INTO {rows} FROM numbers"
        );
        sqlx::query(sqlx::AssertSqlSafe(text)).execute(db.writer()).await.unwrap();
    }

    /// The sweeps with their rows. All replicas that serve have few rows, which go together.
    fn with_rows() -> impl Iterator<Item = (&'static Sweep, Option<Duration>, &'static str)> {
        all().filter(|sweep| sweep.name != "replicas").map(|sweep| {
            let rows = ROWS.iter().find(|(name, ..)| *name == sweep.name);
            let (_, keep, rows) = rows.unwrap_or_else(|| panic!("no rows for the sweep {}", sweep.name));
            (sweep, *keep, *rows)
        })
    }

    async fn each_sweep_removes_a_bounded_batch(db: Db) {
        // Everything else that writes to SQLite waits for a batch.
        let most = if db.is_embedded() { 20 } else { 200 };
        for (sweep, _, rows) in with_rows() {
            fill(&db, most * 2 + 7, rows).await;
            let mut range = SweepRange::until(Timestamp::from_seconds(1_700_000_000));
            let mut removed = Vec::new();
            loop {
                let batch = (sweep.batch)(&db, range).await.unwrap();
                removed.push(batch.removed);
                if !batch.has_more {
                    break;
                }
                range.from = batch.reached;
            }
            assert_eq!(removed, [most, most, 7], "{}", sweep.name);
        }
    }

    async fn rows_stay_for_their_time(db: Db) {
        let moment = Duration::from_millis(1);
        for (sweep, keep, rows) in with_rows() {
            let Some(keep) = keep else { continue };
            let end = TIME.plus(keep);
            for (now, expected) in [(end.minus(moment), 0), (end.plus(moment), 3)] {
                fill(&db, 3, rows).await;
                let removed = (sweep.batch)(&db, SweepRange::until(now)).await.unwrap().removed;
                assert_eq!(removed, expected, "{} at {now}", sweep.name);
                let table = rows.split(' ').next().unwrap();
                let empty = sqlx::AssertSqlSafe(format!("DELETE FROM {table}"));
                sqlx::query(empty).execute(db.writer()).await.unwrap();
            }
        }
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
