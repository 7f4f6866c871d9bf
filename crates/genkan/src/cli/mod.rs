//! What operators type.
//!
//! A command opens what it needs (the configuration, the database), makes one call into a room below and
//! prints. Problems go to standard error and say what to do. Exit status: 0 done, 1 failed, 2 the
//! configuration or the command line is wrong, 3 done, but not every running server has read it.

mod account;
mod client;
mod config;
mod context;
mod docs;
mod grant;
mod host;
mod invite;
mod key;
mod link;
mod mail;
mod output;
mod sealing;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub(crate) use context::Context;
pub(crate) use output::Output;

/// The front door for AT Protocol accounts: an entryway before PDS hosts.
#[derive(Debug, Parser)]
#[command(name = "genkan", version, max_term_width = 100, arg_required_else_help = true)]
struct Root {
    /// A TOML file of settings, below the environment's. See `genkan docs configuration`.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON, for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve,
    /// The PDS hosts behind this Genkan.
    #[command(subcommand)]
    Host(host::Command),
    /// Look at accounts, and change how they stand.
    #[command(subcommand)]
    Account(account::Command),
    /// Make, list and disable invite codes.
    #[command(subcommand)]
    Invite(invite::Command),
    /// Look at apps, vouch for them, or block them.
    #[command(subcommand)]
    Client(client::Command),
    /// Look at what accounts have allowed apps, and end it.
    #[command(subcommand)]
    Grant(grant::Command),
    /// Look at the sessions of accounts that live elsewhere, and end them.
    #[command(subcommand)]
    Link(link::Command),
    /// Look at mail that reached nobody.
    #[command(subcommand)]
    Mail(mail::Command),
    /// Show the public halves of the keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Check or show the configuration.
    #[command(subcommand)]
    Config(config::Command),
    /// Print a page of documentation.
    #[command(subcommand)]
    Docs(docs::Command),
}

/// The whole of the `genkan` program.
pub fn run() -> ExitCode {
    let root = match Root::try_parse() {
        Ok(root) => root,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let context = Context::new(root.config, Output::new(root.json));
    let done = match root.command {
        Command::Serve => serve::run(&context),
        Command::Host(command) => host::run(command, &context),
        Command::Account(command) => account::run(command, &context),
        Command::Invite(command) => invite::run(command, &context),
        Command::Client(command) => client::run(command, &context),
        Command::Grant(command) => grant::run(command, &context),
        Command::Link(command) => link::run(command, &context),
        Command::Mail(command) => mail::run(&command, &context),
        Command::Key(command) => key::run(&command, &context),
        Command::Config(command) => config::run(&command, &context),
        Command::Docs(command) => docs::run(command, &context),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The operator can mend it: exit status 2.
    #[error(transparent)]
    Config(#[from] crate::config::Problems),
    /// The same, with the words of whoever found it.
    #[error("{0}")]
    Setting(String),
    /// The change is recorded, and some running servers still work without it: exit status 3.
    #[error("{0}")]
    Unread(String),
    /// Anything else: exit status 1.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Failure {
    fn report(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Setting(_) => {
                eprintln!("{self}");
                ExitCode::from(2)
            }
            Self::Unread(_) => {
                eprintln!("genkan: {self}");
                ExitCode::from(3)
            }
            Self::Other(cause) => {
                eprintln!("genkan: {cause:#}");
                ExitCode::FAILURE
            }
        }
    }
}

impl From<crate::app::BuildError> for Failure {
    fn from(error: crate::app::BuildError) -> Self {
        use crate::app::BuildError as E;
        match error {
            E::Folder(problem) => Self::Setting(problem.to_string()),
            E::Database(cause) => cause.into(),
            E::RecoveryKey | E::Keys(_) | E::Tls(_) | E::Dns(_) | E::Mail(_) => {
                Self::Setting(error.to_string())
            }
            E::Fleet(_) => Self::Other(error.into()),
        }
    }
}

impl From<crate::db::Error> for Failure {
    fn from(error: crate::db::Error) -> Self {
        use crate::db::Error as E;
        match error {
            E::Newer { .. } => Self::Setting(format!("GENKAN_DATABASE_URL: {error}; run the newer Genkan")),
            E::NotADatabase(_) | E::Unreadable(..) => {
                Self::Setting(format!("GENKAN_DATABASE_URL: {:#}", anyhow::Error::from(error)))
            }
            E::Away(_) | E::Statement(_) | E::Corrupt { .. } | E::Migrate(_) => Self::Other(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_made() {
        Root::command().debug_assert();
    }
}
