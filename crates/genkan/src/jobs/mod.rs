//! Recurring jobs: finishing interrupted work, sweeping expired rows, counting.
//!
//! [`JOBS`] is the list. Every replica runs every job: leases and idempotent statements keep them
//! from doing work twice.

mod links;
mod sweeps;

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::app::{self, App};
use crate::db::replicas::Replica;
use crate::fleet::{self, HostId, ProbeSettings};
use crate::keys::{self, WebPurpose};
use crate::telemetry::metrics::{CLOCK_OFFSET, JOB_FAILURES, Metrics};
use crate::{accounts, mail, standing};

/// A recurring job.
struct Job {
    /// The name for the log.
    name: &'static str,
    /// The pause after one run before the next.
    every: Duration,
    /// The job itself. It returns how much it did.
    run: fn(App) -> BoxFuture<'static, anyhow::Result<u64>>,
}

/// A row of [`JOBS`].
macro_rules! job {
    ($name:literal, $every:expr, |$app:ident| $work:expr) => {
        Job { name: $name, every: $every, run: |$app| Box::pin(async move { $work }) }
    };
}

const JOBS: [Job; 15] = [
    job!("compare the clock with the database's", COMPARE_CLOCK_EVERY, |app| compare_clock(&app).await),
    job!("settle sign-ups", SETTLE_EVERY, |app| Ok(app.sign_ups.settle_all().await? as u64)),
    job!("finish handle changes", SETTLE_EVERY, |app| Ok(app.renames.finish_interrupted().await? as u64)),
    job!("delete accounts that are due", standing::DELETE_DUE_EVERY, |app| {
        Ok(app.standings.delete_due().await? as u64)
    }),
    job!("tell hosts of takedowns", standing::TELL_HOSTS_EVERY, |app| {
        Ok(app.standings.tell_hosts().await? as u64)
    }),
    job!("read the keys again", READ_KEYS_EVERY, |app| {
        // Another replica or the command line may have rotated a key.
        app.ring.reload().await?;
        Ok(app.ring.retire_outdated(WebPurpose::Tokens, app.config.oauth.access_lifetime).await?)
    }),
    job!("post the outbox", mail::POST_EVERY, |app| {
        if app.mail.is_on() { Ok(app.mail.post_due().await?) } else { Ok(0) }
    }),
    job!("tell servers of ended sessions", TELL_EVERY, |app| Ok(app.links.tell_servers().await?)),
    job!("end undecided sign-ins", UNDECIDED_EVERY, |app| {
        app.links.count().await?;
        Ok(app.links.end_undecided().await?)
    }),
    job!("end grants that ran out", RUN_OUT_EVERY, |app| Ok(app.oauth.end_run_out().await?)),
    job!("end grants of blocked clients", BLOCKED_EVERY, |app| Ok(app
        .oauth
        .end_of_blocked_clients()
        .await?)),
    job!("retire client keys that no session needs", links::RETIRE_EVERY, |app| {
        links::retire_client_keys(&app).await
    }),
    job!("keep idle sessions alive", KEEP_ALIVE_EVERY, |app| Ok(app.links.keep_alive().await?)),
    job!("sweep", SWEEP_EVERY, |app| sweeps::run(&app).await),
    job!("count accounts by host", COUNT_EVERY, |app| {
        app.fleet.set_counts(accounts::count_by_host(&app.db).await?);
        Ok(0)
    }),
];

/// Starts every job. They end with the runtime.
pub(crate) fn start(app: &App, replica: Replica) {
    tokio::spawn(app.feed.clone().follow());
    tokio::spawn(app.fleet.clone().follow(replica));
    // A key in the settings is fixed for the life of the process. A key in a file may be rotated
    // while Genkan runs, so only the file is followed.
    if app.config.keys.sealing_key.is_none() {
        let file = app::sealing_key_path(&app.config);
        match keys::sealing_key_file(&file) {
            Ok(known) => drop(tokio::spawn(keys::follow(file, app.ring.sealer().clone(), known))),
            // Genkan works with the key it has read. Only a rotation would go unnoticed.
            Err(cause) => tracing::warn!(cause = %cause, "the sealing key's file is not followed"),
        }
    }
    let settings = &app.config.fleet;
    let probes = ProbeSettings {
        interval: settings.probe_interval,
        timeout: settings.probe_timeout,
        down_after: settings.down_after,
        up_after: settings.up_after,
    };
    tokio::spawn(fleet::watch(app.fleet.clone(), app.hosts.clone(), probes));
    tokio::spawn(app.links.follow_ends());
    if !app.mail.is_on() {
        tracing::warn!("no mail is sent: neither GENKAN_MAIL_SMTP_URL nor GENKAN_MAIL_FOLDER is set");
    }
    for job in JOBS {
        tokio::spawn(repeat(job, app.clone()));
    }
    tokio::spawn(compare_links(app.clone()));
    tokio::spawn(check_counts(app.clone()));
}

/// Measures how far this machine's clock is from the database's, by which Genkan goes. One of both
/// is wrong. If it is the database's, hosts and other servers refuse tokens and proofs.
async fn compare_clock(app: &App) -> anyhow::Result<u64> {
    report_offset(&app.metrics, app.db.clock_offset().await?);
    Ok(0)
}

/// Shows an offset in milliseconds among the metrics, in whole seconds, and warns of a large one.
fn report_offset(metrics: &Metrics, offset: i64) {
    metrics.gauge(&CLOCK_OFFSET, &[]).set((offset + 500).div_euclid(1000));
    if offset.unsigned_abs() > MOST_OFFSET_MILLIS {
        tracing::warn!(
            clock.offset_ms = offset,
            "this machine's clock and the database's differ by more than 2 s: set both by NTP"
        );
    }
}

/// Counts accounts again, some parts of the hosts each time, until the process ends.
async fn check_counts(app: App) {
    let mut prepared = HashSet::new();
    loop {
        report("check the counts of accounts", &app, check_some_counts(&app, &mut prepared).await);
        tokio::time::sleep(CHECK_COUNTS_EVERY).await;
    }
}

async fn check_some_counts(app: &App, prepared: &mut HashSet<HostId>) -> anyhow::Result<u64> {
    for host in app.fleet.all().iter() {
        if !prepared.contains(&host.id) {
            accounts::prepare_counts(&app.db, &host.id).await?;
            prepared.insert(host.id.clone());
        }
    }
    Ok(accounts::check_counts(&app.db, app.clock.now(), COUNTS_AT_ONCE).await?)
}

/// Compares linked sessions with their grants, a few at a time, until the process ends.
async fn compare_links(app: App) {
    let mut comparison = links::Comparison::default();
    loop {
        report("compare linked sessions with their grants", &app, comparison.go_on(&app).await);
        tokio::time::sleep(COMPARE_EVERY).await;
    }
}

/// Runs a job until the process ends. A failure is logged, and the next run follows all the same.
async fn repeat(job: Job, app: App) {
    let name = job.name;
    loop {
        report(name, &app, (job.run)(app.clone()).await);
        // The pause begins after the run, so a slow run never overlaps with the next one.
        tokio::time::sleep(job.every).await;
    }
}

fn report(name: &'static str, app: &App, outcome: anyhow::Result<u64>) {
    match outcome {
        Ok(0) => {}
        Ok(count) => tracing::debug!(job = name, count, "job done"),
        // A failed run ends nothing: the next one tries again.
        Err(cause) => {
            app.metrics.counter(&JOB_FAILURES, &[name]).increment();
            tracing::warn!(job = name, cause = format!("{cause:#}"), "job failed");
        }
    }
}

const COMPARE_CLOCK_EVERY: Duration = Duration::from_mins(1);
const MOST_OFFSET_MILLIS: u64 = 2_000;
/// Other replicas publish a new key before it signs, so they have a quarter of an hour.
const READ_KEYS_EVERY: Duration = Duration::from_mins(1);
const SETTLE_EVERY: Duration = Duration::from_secs(3);
const SWEEP_EVERY: Duration = Duration::from_mins(10);
const TELL_EVERY: Duration = Duration::from_secs(20);
const UNDECIDED_EVERY: Duration = Duration::from_mins(1);
const RUN_OUT_EVERY: Duration = Duration::from_mins(5);
const BLOCKED_EVERY: Duration = Duration::from_mins(1);
const COMPARE_EVERY: Duration = Duration::from_mins(5);
const KEEP_ALIVE_EVERY: Duration = Duration::from_mins(30);
const COUNT_EVERY: Duration = Duration::from_secs(30);
const CHECK_COUNTS_EVERY: Duration = Duration::from_mins(1);
/// Parts of hosts that are counted again in one run; a host has 32.
const COUNTS_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is logged, in memory.
    #[derive(Clone, Default)]
    struct Logged(Arc<Mutex<Vec<u8>>>);

    impl Write for Logged {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_offset_of_more_than_two_seconds_is_warned_of() {
        for (offset, is_warned, shown) in
            [(0, false, 0), (2_000, false, 2), (2_001, true, 2), (-2_000, false, -2), (-2_001, true, -2)]
        {
            let (metrics, logged) = (Metrics::default(), Logged::default());
            let writer = logged.clone();
            let subscriber =
                tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
            tracing::subscriber::with_default(subscriber, || report_offset(&metrics, offset));
            let text = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
            let warning = text.contains("WARN") && text.contains(&format!("clock.offset_ms={offset}"));
            assert_eq!(warning, is_warned, "{offset}: {text}");
            let metric = format!("genkan_clock_offset_seconds {shown}\n");
            assert!(metrics.text().contains(&metric), "{offset}: {}", metrics.text());
        }
    }
}
