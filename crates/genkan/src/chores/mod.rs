//! Chores: what time brings round. Finishing what broke off, sweeping what is over, counting.
//!
//! Each chore may be run by every replica: leases and idempotent statements keep them apart.

use std::future::Future;
use std::time::Duration;

use crate::app::{self, App};
use crate::db::feed;
use crate::fleet::{self, ProbeSettings};
use crate::keys::{self, WebPurpose};
use crate::{accounts, mail, oauth, sessions, signin, standing};

/// Starts every chore. They end with the runtime.
pub(crate) fn start(app: &App) {
    tokio::spawn(app.feed.clone().follow());
    tokio::spawn(app.fleet.clone().follow());
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
        async move { app.renames.finish_broken_off().await.map(|count| count as u64).map_err(anyhow::Error::from) }
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
    let with = app.clone();
    every(SWEEP_EVERY, "sweep", move || {
        let app = with.clone();
        async move {
            let now = app.clock.now();
            let mut gone = sessions::sweep(&app.db, now).await? + feed::sweep(&app.db, now).await?;
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

/// Runs `chore` now and again, for ever. A failure is logged, and the next round comes all the same.
fn every<F, C>(pause: Duration, name: &'static str, chore: C)
where
    C: Fn() -> F + Send + 'static,
    F: Future<Output = anyhow::Result<u64>> + Send + 'static,
{
    tokio::spawn(async move {
        loop {
            match chore().await {
                Ok(0) => {}
                Ok(count) => tracing::debug!(chore = name, count, "chore done"),
                Err(cause) => tracing::warn!(chore = name, cause = format!("{cause:#}"), "chore failed"),
            }
            tokio::time::sleep(pause).await;
        }
    });
}

/// Other replicas publish a new key before it signs, so they have a quarter of an hour.
const READ_KEYS_EVERY: Duration = Duration::from_mins(1);
const SETTLE_EVERY: Duration = Duration::from_secs(3);
const SWEEP_EVERY: Duration = Duration::from_mins(10);
const COUNT_EVERY: Duration = Duration::from_secs(30);
