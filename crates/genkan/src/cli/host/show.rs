//! Commands that show hosts, check one, or tell where the next account would go.

use anyhow::anyhow;

use super::{counts, failed, find, no_such_host, print};
use crate::app::App;
use crate::cli::{Context, Failure};
use crate::fleet::{Expected, HostChecker, HostId, Subject};

pub(super) async fn list(app: &App, context: &Context) -> Result<(), Failure> {
    let counts = counts(app).await?;
    let probes = app.fleet.last_probes().await.map_err(anyhow::Error::from)?;
    let shown = print::HostList {
        hosts: app
            .fleet
            .all()
            .iter()
            .map(|host| print::HostView::of(host, &counts, probes.get(&host.id)))
            .collect(),
        prepared: app
            .fleet
            .prepared()
            .await
            .map_err(anyhow::Error::from)?
            .iter()
            .map(print::PreparedView::of)
            .collect(),
    };
    Ok(context.output.print(&shown, |shown| shown.text(context.output))?)
}

pub(super) async fn show(app: &App, context: &Context, name: &HostId, probe: bool) -> Result<(), Failure> {
    let host = find(app, name)?;
    let (counts, probes) = (counts(app).await?, app.fleet.last_probes().await.map_err(failed(name))?);
    let recorded = print::HostView::of(&host, &counts, probes.get(&host.id));
    if !probe {
        return Ok(context.output.print(&recorded, print::HostView::text)?);
    }
    let subject = Subject {
        name: name.clone(),
        origin: host.origin.clone(),
        admin_password: host.admin_password.clone(),
    };
    let check = checker(app).check(&subject).await;
    // A host may have been updated since it was added.
    if let Some(description) = &check.description {
        let learned = app.fleet.learn(&host.id, check.version.clone(), description.blob_upload_limit).await;
        learned.map_err(failed(name))?;
    }
    let mut shown = print::CheckReport::of(name, &check);
    if check.description.as_ref().is_some_and(|description| description.did != host.did) {
        shown.note_other_did(host.did.as_str());
    }
    let failures = shown.failures();
    let shown = print::HostReport { recorded, check: shown };
    context.output.print(&shown, |shown| shown.text(context.output))?;
    if failures == 0 { Ok(()) } else { Err(anyhow!("{failures} checks of {name} failed").into()) }
}

pub(super) fn env(app: &App, context: &Context, name: &HostId) -> Result<(), Failure> {
    let settings = checker(app).settings(name).ok_or_else(|| no_such_host(name))?;
    let shown = print::Settings::of(name, settings);
    Ok(context.output.print(&shown, print::Settings::text)?)
}

pub(super) async fn place(app: &App, context: &Context, explain: bool) -> Result<(), Failure> {
    // This process just started, so its counts are empty. Capacities would seem free.
    app.fleet.set_counts(counts(app).await?);
    let now = app.clock.now();
    if explain {
        let shown = print::PlacementTable::of(&app.fleet.explain(now));
        return Ok(context.output.print(&shown, |shown| shown.text(context.output))?);
    }
    let hint = "no host takes new accounts now; `genkan host place --explain` says why";
    let host = app.fleet.place(now).map_err(|_| anyhow!(hint))?;
    let shown = serde_json::json!({ "name": host.id.as_str(), "url": host.origin.as_str() });
    Ok(context.output.print(&shown, |_| host.id.to_string())?)
}

pub(super) fn checker(app: &App) -> HostChecker {
    let expected = Expected {
        public_url: app.config.service.public_url.clone(),
        service_did: app.config.service.did.clone(),
        handle_domains: app.config.service.handle_domains.clone(),
        front_url: app.config.directory.front_url.clone(),
        directory_url: app.config.directory.url.clone(),
        dpop_secret: app.oauth.nonce_secret().clone(),
    };
    HostChecker::new(app.hosts.clone(), app.ring.clone(), expected, app.clock.clone())
}
