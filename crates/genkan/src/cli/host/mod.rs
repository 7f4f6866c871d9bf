//! `genkan host …`: adding, changing, checking and removing the PDS hosts of the fleet.

mod change;
mod print;
mod secrets;
mod servers;
mod show;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::{Context, Failure};
use crate::accounts;
use crate::app::App;
use crate::base::Origin;
use crate::fleet::{self, HostChanges, HostId, HostState, Subject};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Record a host and create its key pair, and print the settings that the host needs. It gets
    /// no accounts yet.
    ///
    /// Prepare a host before you start it for the first time. The next commands are `genkan host
    /// env` and `genkan host add`.
    Prepare {
        /// A name of your choice: 1 to 32 of a-z, 0-9 and hyphens. It cannot be changed.
        #[arg(long)]
        name: HostId,
        /// The host's public URL, as DID documents will name it. It cannot be changed.
        #[arg(long)]
        url: Origin,
        /// A file with the private key (64 hex characters) that the host already trusts, instead of
        /// a new one.
        #[arg(long, value_name = "FILE")]
        signing_key_file: Option<PathBuf>,
    },
    /// Check a running host, and add it to the fleet. If a check fails, say what to change and add
    /// nothing.
    Add {
        /// The host's public URL, as it was prepared.
        url: Origin,
        /// The name that the host was prepared with. A host that was not prepared is prepared
        /// first.
        #[arg(long)]
        name: HostId,
        /// A file with the host's `PDS_ADMIN_PASSWORD`; `-` reads standard input.
        #[arg(long, value_name = "FILE")]
        admin_password_file: PathBuf,
        /// A file with the private key (64 hex characters) that the host already trusts, if it was
        /// not prepared.
        #[arg(long, value_name = "FILE")]
        signing_key_file: Option<PathBuf>,
        #[command(flatten)]
        options: PlacementOptions,
    },
    /// List every host with its state, health and number of accounts.
    List,
    /// Show one host and check it again. Says what is wrong and what to change. The exit status is
    /// 1 if a check fails.
    Show {
        /// The host's name.
        name: HostId,
        /// Show only what is recorded, without asking the host.
        #[arg(long)]
        no_probe: bool,
    },
    /// Print the settings that a host needs, as an environment file. They contain secrets.
    Env {
        /// The host's name.
        name: HostId,
    },
    /// Change how many new accounts a host gets, or its admin password. Options that are not given
    /// stay as they are.
    Set {
        /// The host's name.
        name: HostId,
        #[command(flatten)]
        options: PlacementOptions,
        /// A file with the host's new `PDS_ADMIN_PASSWORD`; `-` reads standard input. The host
        /// itself is not changed.
        #[arg(long, value_name = "FILE")]
        admin_password_file: Option<PathBuf>,
    },
    /// Stop placing new accounts on a host. Existing accounts keep working.
    Drain {
        /// The host's name.
        name: HostId,
    },
    /// Place new accounts on a host again.
    Enable {
        /// The host's name.
        name: HostId,
    },
    /// Stop placing new accounts on a host and stop probing it. Existing accounts are still
    /// forwarded to it.
    Retire {
        /// The host's name.
        name: HostId,
    },
    /// Remove a host that holds no account from the fleet, and retire its keys. The host itself is
    /// not changed.
    Remove {
        /// The host's name.
        name: HostId,
    },
    /// Show which host a new account would go to now. Creates nothing.
    Place {
        /// List every host with its chance, or why it gets no new account.
        #[arg(long)]
        explain: bool,
    },
}

#[derive(Args, Debug)]
pub(super) struct PlacementOptions {
    /// The host's share of new accounts, relative to the other hosts' weights. 0: no new accounts.
    /// [new hosts: 1]
    #[arg(long, value_name = "N")]
    weight: Option<u32>,
    /// The most accounts that the host may hold, or `none` for no limit. [new hosts: none]
    #[arg(long, value_name = "N|none", value_parser = number_or_none)]
    capacity: Option<Limit>,
    /// A label for your own use. Placement ignores it.
    #[arg(long, value_name = "TEXT")]
    region: Option<String>,
    /// The most new accounts that the host gets in an hour, or `none`. Relays limit hosts that are
    /// new to them. [new hosts: none]
    #[arg(long, value_name = "N|none", value_parser = number_or_none)]
    sign_ups_per_hour: Option<Limit>,
}

#[derive(Clone, Copy, Debug)]
struct Limit(Option<u64>);

fn number_or_none(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        number => number
            .parse()
            .map(|number| Limit(Some(number)))
            .map_err(|_| "give a whole number, or none".to_owned()),
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
                change::prepare(&app, &name, &url, signing_key_file.as_deref()).await?;
                show::env(&app, context, &name)
            }
            Command::Add { url, name, admin_password_file, signing_key_file, options } => {
                let password = secrets::read_secret(&admin_password_file)?;
                change::prepare(&app, &name, &url, signing_key_file.as_deref()).await?;
                change::add(
                    &app,
                    context,
                    Subject { name, origin: url, admin_password: password },
                    options.into(),
                )
                .await
            }
            Command::List => show::list(&app, context).await,
            Command::Show { name, no_probe } => show::show(&app, context, &name, !no_probe).await,
            Command::Env { name } => show::env(&app, context, &name),
            Command::Set { name, options, admin_password_file } => {
                let admin_password = admin_password_file.as_deref().map(secrets::read_secret).transpose()?;
                change::change(
                    &app,
                    context,
                    &name,
                    HostChanges { admin_password, ..options.into() },
                    "is changed",
                )
                .await
            }
            Command::Drain { name } => {
                change::change(
                    &app,
                    context,
                    &name,
                    state(HostState::Draining),
                    "gets no new accounts; existing accounts keep working",
                )
                .await
            }
            Command::Enable { name } => {
                change::change(&app, context, &name, state(HostState::Enabled), "gets new accounts").await
            }
            Command::Retire { name } => {
                change::change(
                    &app,
                    context,
                    &name,
                    state(HostState::Retired),
                    "is retired: it gets no new accounts and is not probed",
                )
                .await
            }
            Command::Remove { name } => change::remove(&app, context, &name).await,
            Command::Place { explain } => show::place(&app, context, explain).await,
        }
    })
}

fn find(app: &App, name: &HostId) -> Result<Arc<fleet::Host>, Failure> {
    match app.fleet.host(name) {
        Some(host) => Ok(host),
        // A prepared host has a key but is not in the fleet yet.
        None if app.ring.host_key(name.as_str()).is_some() => {
            Err(failed(name)(fleet::Error::OnlyPrepared).into())
        }
        None => Err(no_such_host(name).into()),
    }
}

async fn counts(app: &App) -> Result<HashMap<HostId, u64>, Failure> {
    Ok(accounts::count_by_host(&app.db).await.map_err(anyhow::Error::from)?)
}

fn state(state: HostState) -> HostChanges {
    HostChanges { state: Some(state), ..HostChanges::default() }
}

fn failed(name: &HostId) -> impl Fn(fleet::Error) -> anyhow::Error {
    move |error| match error {
        fleet::Error::NotFound => no_such_host(name),
        fleet::Error::NameTaken => {
            anyhow!("{name} was not recorded: {error}; `genkan host list` shows all hosts")
        }
        fleet::Error::BadName => anyhow!("{error}; {name} is not such a name"),
        fleet::Error::HasAccounts(_) => {
            anyhow!(
                "{name} was not removed: {error}. Run `genkan host drain {name}`, then move or delete them"
            )
        }
        _ => anyhow!(error).context(name.to_string()),
    }
}

fn no_such_host(name: &HostId) -> anyhow::Error {
    anyhow!("there is no host {name}; `genkan host list` shows all hosts")
}
