//! Commands that change the fleet: prepare, add, change, remove.

use std::path::Path;

use anyhow::{Context as _, anyhow};

use super::{counts, failed, find, print, secrets, servers, show};
use crate::app::App;
use crate::base::Origin;
use crate::cli::{Context, Failure};
use crate::fleet::{Admission, HostChanges, HostCheck, HostId, Subject};

/// Records a host and its key pair. Does nothing if the same host is prepared already.
pub(super) async fn prepare(
    app: &App,
    name: &HostId,
    url: &Origin,
    key_file: Option<&Path>,
) -> Result<(), Failure> {
    // Tokens and the admin password go to this URL. Only loopback is safe without TLS.
    if !url.is_https() && !url.is_loopback() {
        return Err(anyhow!(
            "{url} is not https. Use https://; plain http is allowed for loopback addresses only"
        )
        .into());
    }
    let given = key_file.map(secrets::read_key).transpose()?;
    let prepared = app.fleet.prepared().await.map_err(failed(name))?;
    if prepared.iter().any(|host| host.id == *name && host.origin == *url) {
        let known = app.ring.host_key(name.as_str()).context("a prepared host has a key")?;
        // Repeating the command with the same key is allowed. Another key would be ignored
        // silently, so it is an error.
        return match given {
            Some(key) if key.public().to_did_key() != known.public.to_did_key() => Err(anyhow!(
                "{name} was prepared with another key. To use this one, run `genkan host remove {name}` first"
            )
            .into()),
            _ => Ok(()),
        };
    }
    Ok(app.fleet.prepare(name, url, given).await.map_err(failed(name))?)
}

pub(super) async fn add(
    app: &App,
    context: &Context,
    subject: Subject,
    changes: HostChanges,
) -> Result<(), Failure> {
    let name = subject.name.clone();
    let check = show::checker(app).check(&subject).await;
    let admission = match &check {
        HostCheck { description: Some(description), version, .. } if check.passed() => Admission {
            did: description.did.clone(),
            admin_password: subject.admin_password,
            version: version.clone(),
            blob_limit: description.blob_upload_limit,
            changes,
        },
        _ => {
            let shown = print::CheckReport::of(&name, &check);
            context.output.print(&shown, |shown| shown.text(context.output))?;
            let hint = format!(
                "change what the failed checks name, then run this command again. `genkan host env {name}` prints every setting that the host needs"
            );
            return Err(anyhow!("{name} was not added: {hint}").into());
        }
    };
    let did = admission.did.clone();
    let change = app.fleet.admit(&name, admission).await.map_err(failed(&name))?;
    let shown = print::CheckReport::of(&name, &check);
    context
        .output
        .print(&shown, |shown| format!("{}\n{name} ({did}) is in the fleet.", shown.text(context.output)))?;
    // The command returns only when the running servers know the host, so that a script can go on.
    servers::have_read(app, &name, &change).await
}

pub(super) async fn change(
    app: &App,
    context: &Context,
    name: &HostId,
    changes: HostChanges,
    done: &str,
) -> Result<(), Failure> {
    let change = app.fleet.change(name, changes).await.map_err(failed(name))?;
    let host = find(app, name)?;
    let shown = print::HostView::of(&host, &counts(app).await?, None);
    context.output.print(&shown, |_| format!("{name} {done}."))?;
    servers::have_read(app, name, &change).await
}

pub(super) async fn remove(app: &App, context: &Context, name: &HostId) -> Result<(), Failure> {
    // The number of accounts is passed on, because a host that still has accounts is not removed.
    let living = crate::accounts::count_on_host(&app.db, name).await.map_err(anyhow::Error::from)?;
    let change = app.fleet.remove(name, living).await.map_err(failed(name))?;
    let done = serde_json::json!({ "name": name.as_str(), "removed": true });
    context
        .output
        .print(&done, |_| format!("{name} is removed from the fleet, and its keys are retired."))?;
    servers::have_read(app, name, &change).await
}
