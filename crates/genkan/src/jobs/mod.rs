//! Recurring jobs: finishing interrupted work, sweeping expired rows, counting.
//!
//! Every replica runs every job: leases and idempotent statements keep them from doing work twice.

use std::future::Future;
use std::time::Duration;

use crate::app::{self, App};
use crate::db::replicas::Replica;
use crate::db::{feed, replicas};
use crate::fleet::{self, ProbeSettings};
use crate::keys::{self, WebPurpose};
use crate::{accounts, links, mail, oauth, sessions, signin, standing};

/// Starts every job. They end with the runtime.
pub(crate) fn start(app: &App, replica: Replica) {
    tokio::spawn(app.feed.clone().follow());
    tokio::spawn(app.fleet.clone().follow(replica));
    if app.config.keys.sealing_key.is_none() {
        let file = app::sealing_key_path(&app.config);
        match keys::sealing_key_file(&file) {
            Ok(known) => drop(tokio::spawn(keys::follow(file, app.ring.sealer().clone(), known))),
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

    let with = app.clone();
    every(SETTLE_EVERY, "settle sign-ups", move || {
        let app = with.clone();
        async move { app.sign_ups.settle_all().await.map(|count| count as u64).map_err(anyhow::Error::from) }
    });
    let with = app.clone();
    every(SETTLE_EVERY, "finish handle changes", move || {
        let app = with.clone();
        async move {
            app.renames.finish_interrupted().await.map(|count| count as u64).map_err(anyhow::Error::from)
        }
    });
    let with = app.clone();
    every(standing::DELETE_DUE_EVERY, "delete accounts that are due", move || {
        let app = with.clone();
        async move { app.standings.delete_due().await.map(|count| count as u64).map_err(anyhow::Error::from) }
    });
    let with = app.clone();
    every(READ_KEYS_EVERY, "read the keys again", move || {
        let app = with.clone();
        async move {
            app.ring.reload().await?;
            Ok(app.ring.retire_outdated(WebPurpose::Tokens, app.config.oauth.access_lifetime).await?)
        }
    });
    if app.mail.is_on() {
        let with = app.clone();
        every(mail::POST_EVERY, "post the outbox", move || {
            let app = with.clone();
            async move { app.mail.post_due().await.map_err(anyhow::Error::from) }
        });
    } else {
        tracing::warn!("no mail is sent: neither GENKAN_MAIL_SMTP_URL nor GENKAN_MAIL_FOLDER is set");
    }
    start_links(app);
    let with = app.clone();
    every(SWEEP_EVERY, "sweep", move || {
        let app = with.clone();
        async move {
            let now = app.clock.now();
            let mut gone = sessions::sweep(&app.db, now).await? + feed::sweep(&app.db, now).await?;
            gone += replicas::sweep(&app.db, now).await?;
            gone += links::sweep(&app.db, now).await?;
            gone += signin::sweep(&app.db, now).await? + oauth::sweep(&app.db, now).await?;
            gone += mail::sweep(&app.db, now).await? + accounts::emails::sweep(&app.db, now).await?;
            Ok(gone + app.limits.sweep(&app.db, now).await?)
        }
    });
    let with = app.clone();
    every(COUNT_EVERY, "count accounts by host", move || {
        let app = with.clone();
        async move {
            app.fleet.set_counts(accounts::count_by_host(&app.db).await?);
            Ok(0)
        }
    });
}

/// Jobs for linked accounts. Sessions that exist are looked after even when no new ones are made.
fn start_links(app: &App) {
    tokio::spawn(app.links.clone().follow_grants());
    let with = app.links.clone();
    every(TELL_EVERY, "tell servers of ended sessions", move || {
        let links = with.clone();
        async move { links.tell_servers().await.map_err(anyhow::Error::from) }
    });
    let with = app.links.clone();
    every(UNDECIDED_EVERY, "end undecided sign-ins", move || {
        let links = with.clone();
        async move {
            links.count().await?;
            links.end_undecided().await.map_err(anyhow::Error::from)
        }
    });
    let with = app.clone();
    every(COMPARE_EVERY, "compare linked sessions with their grants", move || {
        let app = with.clone();
        async move { compare_links(&app).await }
    });
    let with = app.clone();
    every(RETIRE_EVERY, "retire client keys that no session needs", move || {
        let app = with.clone();
        async move { retire_client_keys(&app).await }
    });
    let with = app.links.clone();
    every(KEEP_ALIVE_EVERY, "keep idle sessions alive", move || {
        let links = with.clone();
        async move { links.keep_alive().await.map_err(anyhow::Error::from) }
    });
}

/// A crash between the end of a grant and the end of its session, or the other way, is found here: each rests on the other.
async fn compare_links(app: &App) -> anyhow::Result<u64> {
    let (mut after, mut ended) = (String::new(), 0);
    loop {
        let page = app.links.live(&after, 200).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(last);
        for link in app.oauth.over_among(&page).await? {
            ended += u64::from(app.links.end(&link, links::Reason::GrantEnded).await?);
        }
    }
    for link in app.links.ended_lately().await? {
        ended += u64::from(app.oauth.end_dead(&link, "its linked session is over").await?);
    }
    Ok(ended)
}

/// A session at another server ends when our key that it was begun with is not published any more.
async fn retire_client_keys(app: &App) -> anyhow::Result<u64> {
    let current = app.ring.web_key(WebPurpose::Client);
    // Whatever was begun with an older one has come back and is counted.
    if app.clock.now() < current.usable_from.plus(RETIRE_EVERY) {
        return Ok(0);
    }
    let needed = app.links.client_keys_in_use().await?;
    let mut retired = 0;
    for key in app.ring.web_keys(WebPurpose::Client) {
        if key.usable_from < current.usable_from && !needed.contains(&key.id) {
            retired += u64::from(app.ring.retire_web_key(&key.id).await?);
        }
    }
    Ok(retired)
}

/// Runs `job` now and again, for ever. A failure is logged, and the next round comes all the same.
fn every<F, C>(pause: Duration, name: &'static str, job: C)
where
    C: Fn() -> F + Send + 'static,
    F: Future<Output = anyhow::Result<u64>> + Send + 'static,
{
    tokio::spawn(async move {
        loop {
            match job().await {
                Ok(0) => {}
                Ok(count) => tracing::debug!(job = name, count, "job done"),
                Err(cause) => tracing::warn!(job = name, cause = format!("{cause:#}"), "job failed"),
            }
            tokio::time::sleep(pause).await;
        }
    });
}

/// Other replicas publish a new key before it signs, so they have a quarter of an hour.
const READ_KEYS_EVERY: Duration = Duration::from_mins(1);
const SETTLE_EVERY: Duration = Duration::from_secs(3);
const SWEEP_EVERY: Duration = Duration::from_mins(10);
const TELL_EVERY: Duration = Duration::from_secs(20);
const UNDECIDED_EVERY: Duration = Duration::from_mins(1);
const COMPARE_EVERY: Duration = Duration::from_mins(5);
const RETIRE_EVERY: Duration = Duration::from_hours(1);
const KEEP_ALIVE_EVERY: Duration = Duration::from_mins(30);
const COUNT_EVERY: Duration = Duration::from_secs(30);
