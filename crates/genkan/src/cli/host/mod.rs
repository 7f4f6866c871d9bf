//! `genkan host …`: the PDS hosts behind this Genkan.

mod print;
mod servers;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use genkan_protocol::crypto::K256PrivateKey;
use zeroize::Zeroizing;

use super::{Context, Failure};
use crate::accounts;
use crate::app::App;
use crate::base::{Origin, Secret};
use crate::fleet::{
    self, Admission, Expected, HostChanges, HostCheck, HostChecker, HostId, HostState, Subject,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Name a host and make its key pair before it runs; prints the settings it needs.
    Prepare {
        #[arg(long)]
        name: String,
        /// The host's public URL, as its DID documents will name it.
        #[arg(long)]
        url: Origin,
        /// The key (64 hex characters) that the host knows already, instead of a new one.
        #[arg(long, value_name = "FILE")]
        signing_key_file: Option<PathBuf>,
    },
    /// Prove that a running host works behind this Genkan, and take it into the fleet.
    Add {
        url: Origin,
        #[arg(long)]
        name: String,
        /// The host's `PDS_ADMIN_PASSWORD`; `-` reads standard input.
        #[arg(long, value_name = "FILE")]
        admin_password_file: PathBuf,
        /// The key (64 hex characters) that the host knows already, if it was not prepared.
        #[arg(long, value_name = "FILE")]
        signing_key_file: Option<PathBuf>,
        #[command(flatten)]
        options: PlacementOptions,
    },
    /// Every host with its state, health and accounts.
    List,
    /// One host: prove its settings again, and say what is wrong and how to mend it.
    Show {
        name: String,
        /// Only what is recorded; the host is not asked.
        #[arg(long)]
        no_probe: bool,
    },
    /// Print the settings that the host needs, as an environment file.
    Env { name: String },
    /// Change what placement heeds, or the admin password.
    Set {
        name: String,
        #[command(flatten)]
        options: PlacementOptions,
        /// The host's new `PDS_ADMIN_PASSWORD`; `-` reads standard input.
        #[arg(long, value_name = "FILE")]
        admin_password_file: Option<PathBuf>,
    },
    /// No new accounts; those there are served as before.
    Drain { name: String },
    /// New accounts again.
    Enable { name: String },
    /// As drain; the host is not probed any more.
    Retire { name: String },
    /// Forget a host that holds no account.
    Remove { name: String },
    /// Which host the next account would go to.
    Place {
        /// For every host, why or why not.
        #[arg(long)]
        explain: bool,
    },
}

#[derive(Args, Debug)]
pub(super) struct PlacementOptions {
    /// Its share of new accounts beside the others' weights; 0: none.
    #[arg(long)]
    weight: Option<u32>,
    /// How many accounts it may hold, or `none`.
    #[arg(long, value_name = "N|none", value_parser = number_or_none)]
    capacity: Option<Limit>,
    /// A label of your own.
    #[arg(long)]
    region: Option<String>,
    /// Relays limit new hosts: how many sign-ups it may get in an hour, or `none`.
    #[arg(long, value_name = "N|none", value_parser = number_or_none)]
    sign_ups_per_hour: Option<Limit>,
}

#[derive(Clone, Copy, Debug)]
struct Limit(Option<u64>);

fn number_or_none(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        number => {
            number.parse().map(|number| Limit(Some(number))).map_err(|_| "a number, or none".to_owned())
        }
    }
}

impl From<PlacementOptions> for HostChanges {
    fn from(options: PlacementOptions) -> Self {
        Self {
            weight: options.weight,
            capacity: options.capacity.map(|Limit(limit)| limit),
            region: options.region,
            sign_ups_per_hour: options.sign_ups_per_hour.map(|Limit(limit)| limit),
            ..Self::default()
        }
    }
}

pub(super) fn run(command: Command, context: &Context) -> Result<(), Failure> {
    context.block_on(async {
        let app = context.app().await?;
        match command {
            Command::Prepare { name, url, signing_key_file } => {
                prepare(&app, &name, &url, signing_key_file.as_deref()).await?;
                env(&app, context, &name)
            }
            Command::Add { url, name, admin_password_file, signing_key_file, options } => {
                let password = read_secret(&admin_password_file)?;
                prepare(&app, &name, &url, signing_key_file.as_deref()).await?;
                add(&app, context, Subject { name, origin: url, admin_password: password }, options.into())
                    .await
            }
            Command::List => list(&app, context).await,
            Command::Show { name, no_probe } => show(&app, context, &name, !no_probe).await,
            Command::Env { name } => env(&app, context, &name),
            Command::Set { name, options, admin_password_file } => {
                let admin_password = admin_password_file.as_deref().map(read_secret).transpose()?;
                change(&app, context, &name, HostChanges { admin_password, ..options.into() }, "is changed")
                    .await
            }
            Command::Drain { name } => {
                change(&app, context, &name, state(HostState::Draining), "is draining: no new accounts").await
            }
            Command::Enable { name } => {
                change(&app, context, &name, state(HostState::Enabled), "takes new accounts").await
            }
            Command::Retire { name } => {
                change(&app, context, &name, state(HostState::Retired), "is retired").await
            }
            Command::Remove { name } => remove(&app, context, &name).await,
            Command::Place { explain } => place(&app, context, explain).await,
        }
    })
}

/// Makes the host known with a key of its own. Repeatable, as long as the URL stays the same.
async fn prepare(app: &App, name: &str, url: &Origin, key_file: Option<&Path>) -> Result<(), Failure> {
    let id = HostId::from(name);
    if !url.is_https() && !url.is_loopback() {
        return Err(anyhow!("{url} is not https; plain http is for loopback only").into());
    }
    let given = key_file.map(read_key).transpose()?;
    let prepared = app.fleet.prepared().await.map_err(failed(name))?;
    if prepared.iter().any(|host| host.id == id && host.origin == *url) {
        let known = app.ring.host_key(name).context("a prepared host has a key")?;
        return match given {
            Some(key) if key.public().to_did_key() != known.public.to_did_key() => {
                Err(anyhow!("{name} was prepared with another key; remove it first").into())
            }
            _ => Ok(()),
        };
    }
    Ok(app.fleet.prepare(&id, url, given).await.map_err(failed(name))?)
}

async fn add(app: &App, context: &Context, subject: Subject, changes: HostChanges) -> Result<(), Failure> {
    let name = subject.name.clone();
    let check = checker(app).check(&subject).await;
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
                "mend it, then run this again; genkan host env {name} prints all that the host needs"
            );
            return Err(anyhow!("{name} is not added: {hint}").into());
        }
    };
    let did = admission.did.clone();
    let change = app.fleet.admit(&HostId::from(&*name), admission).await.map_err(failed(&name))?;
    let shown = print::CheckReport::of(&name, &check);
    context
        .output
        .print(&shown, |shown| format!("{}\n{name} ({did}) is in the fleet.", shown.text(context.output)))?;
    servers::have_read(app, &name, &change).await
}

async fn list(app: &App, context: &Context) -> Result<(), Failure> {
    let counts = counts(app).await?;
    let probes = app.fleet.last_probes().await.map_err(failed("fleet"))?;
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
            .map_err(failed("fleet"))?
            .iter()
            .map(print::PreparedView::of)
            .collect(),
    };
    Ok(context.output.print(&shown, |shown| shown.text(context.output))?)
}

async fn show(app: &App, context: &Context, name: &str, probe: bool) -> Result<(), Failure> {
    let host = host(app, name)?;
    let (counts, probes) = (counts(app).await?, app.fleet.last_probes().await.map_err(failed(name))?);
    let recorded = print::HostView::of(&host, &counts, probes.get(&host.id));
    if !probe {
        return Ok(context.output.print(&recorded, print::HostView::text)?);
    }
    let subject = Subject {
        name: name.to_owned(),
        origin: host.origin.clone(),
        admin_password: host.admin_password.clone(),
    };
    let check = checker(app).check(&subject).await;
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
    if failures == 0 { Ok(()) } else { Err(anyhow!("{failures} proofs failed for {name}").into()) }
}

fn env(app: &App, context: &Context, name: &str) -> Result<(), Failure> {
    let settings = checker(app).settings(name).ok_or_else(|| no_such_host(name))?;
    let shown = print::Settings::of(name, settings);
    Ok(context.output.print(&shown, print::Settings::text)?)
}

async fn change(
    app: &App,
    context: &Context,
    name: &str,
    changes: HostChanges,
    done: &str,
) -> Result<(), Failure> {
    let change = app.fleet.change(&HostId::from(name), changes).await.map_err(failed(name))?;
    let host = host(app, name)?;
    let shown = print::HostView::of(&host, &counts(app).await?, None);
    context.output.print(&shown, |_| format!("{name} {done}."))?;
    servers::have_read(app, name, &change).await
}

async fn remove(app: &App, context: &Context, name: &str) -> Result<(), Failure> {
    let living = counts(app).await?.get(name).copied().unwrap_or(0);
    let change = app.fleet.remove(&HostId::from(name), living).await.map_err(failed(name))?;
    let done = serde_json::json!({ "name": name, "removed": true });
    context.output.print(&done, |_| format!("{name} is removed, and its keys are retired."))?;
    servers::have_read(app, name, &change).await
}

async fn place(app: &App, context: &Context, explain: bool) -> Result<(), Failure> {
    app.fleet.set_counts(counts(app).await?);
    let now = app.clock.now();
    if explain {
        let shown = print::PlacementTable::of(&app.fleet.explain(now));
        return Ok(context.output.print(&shown, |shown| shown.text(context.output))?);
    }
    let hint = "no host takes new accounts; genkan host place --explain says why";
    let host = app.fleet.place(now).map_err(|_| anyhow!(hint))?;
    let shown = serde_json::json!({ "name": host.id.as_str(), "url": host.origin.as_str() });
    Ok(context.output.print(&shown, |_| host.id.to_string())?)
}

fn checker(app: &App) -> HostChecker {
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

fn host(app: &App, name: &str) -> Result<std::sync::Arc<fleet::Host>, Failure> {
    match app.fleet.host(&HostId::from(name)) {
        Some(host) => Ok(host),
        None if app.ring.host_key(name).is_some() => Err(failed(name)(fleet::Error::OnlyPrepared).into()),
        None => Err(no_such_host(name).into()),
    }
}

async fn counts(app: &App) -> Result<HashMap<String, u64>, Failure> {
    Ok(accounts::count_by_host(&app.db).await.map_err(anyhow::Error::from)?)
}

fn state(state: HostState) -> HostChanges {
    HostChanges { state: Some(state), ..HostChanges::default() }
}

fn failed(name: &str) -> impl Fn(fleet::Error) -> anyhow::Error {
    move |error| match error {
        fleet::Error::NotFound => no_such_host(name),
        fleet::Error::HasAccounts(_) => {
            anyhow!("{name} stays: {error}; drain it, and move or delete them first")
        }
        _ => anyhow!(error).context(name.to_owned()),
    }
}

fn no_such_host(name: &str) -> anyhow::Error {
    anyhow!("there is no host {name}; genkan host list names them")
}

fn read_secret(file: &Path) -> Result<Secret<String>, Failure> {
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).context("reading standard input")
    } else {
        std::fs::read_to_string(file).with_context(|| file.display().to_string())
    }?;
    let text = text.trim();
    if text.is_empty() {
        Err(anyhow!("{} is empty", file.display()).into())
    } else {
        Ok(Secret::new(text.to_owned()))
    }
}

fn read_key(file: &Path) -> Result<K256PrivateKey, Failure> {
    let text = Zeroizing::new(std::fs::read_to_string(file).with_context(|| file.display().to_string())?);
    let key = K256PrivateKey::from_hex(text.trim());
    Ok(key
        .map_err(|_| anyhow!("{} must hold a secp256k1 private key as 64 hex characters", file.display()))?)
}
