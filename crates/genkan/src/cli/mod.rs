//! The command line of operators.
//!
//! A command opens what it needs (the configuration, the database), makes one call into a room
//! below and prints. Problems go to standard error and say what to do. Exit status: 0 done, 1
//! failed, 2 the configuration or the command line is wrong, 3 done, but not every running server
//! has read it.

mod account;
mod client;
mod config;
mod context;
mod docs;
mod failure;
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
pub(crate) use failure::Failure;
pub(crate) use output::Output;

/// Genkan, an entryway for AT Protocol accounts: one front door for many PDS hosts.
#[derive(Debug, Parser)]
#[command(name = "genkan", version, max_term_width = 100, arg_required_else_help = true)]
struct Root {
    /// A TOML file of settings; environment variables override it.
    ///
    /// `GENKAN_CONFIG` can name the file as well. `genkan docs configuration` lists all settings.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON for programs instead of text for people.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server until SIGTERM or SIGINT.
    Serve,
    /// Add, change, check and remove the PDS hosts of the fleet.
    #[command(subcommand)]
    Host(host::Command),
    /// Show accounts; take down, deactivate or delete one, or reset its password.
    #[command(subcommand)]
    Account(account::Command),
    /// Create, list and disable invite codes.
    #[command(subcommand)]
    Invite(invite::Command),
    /// Show OAuth apps, and trust or block one.
    #[command(subcommand)]
    Client(client::Command),
    /// Show what accounts have allowed apps, and revoke it.
    #[command(subcommand)]
    Grant(grant::Command),
    /// Show the sessions of accounts on external PDSes, and end one.
    #[command(subcommand)]
    Link(link::Command),
    /// Show e-mails that could not be delivered.
    #[command(subcommand)]
    Mail(mail::Command),
    /// Show the public keys, and rotate keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Check the configuration, or show where each setting comes from.
    #[command(subcommand)]
    Config(config::Command),
    /// Print a page of documentation that is generated from the code.
    #[command(subcommand)]
    Docs(docs::Command),
}

/// The whole of the `genkan` program.
pub fn run() -> ExitCode {
    let root = match Root::try_parse() {
        Ok(root) => root,
        Err(error) => {
            let _ = error.print();
            // `--help` and `--version` come here as errors too, with the exit code 0.
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_made() {
        Root::command().debug_assert();
    }

    #[test]
    fn every_command_and_every_argument_has_help() {
        let mut bare = Vec::new();
        collect_without_help(&Root::command(), "genkan", &mut bare);
        assert!(bare.is_empty(), "without help: {bare:#?}");
    }

    fn collect_without_help(command: &clap::Command, path: &str, bare: &mut Vec<String>) {
        if command.get_about().is_none() {
            bare.push(path.to_owned());
        }
        let silent = command.get_arguments().filter(|argument| argument.get_help().is_none());
        bare.extend(silent.map(|argument| format!("{path} {}", argument.get_id())));
        for inner in command.get_subcommands() {
            collect_without_help(inner, &format!("{path} {}", inner.get_name()), bare);
        }
    }
}
