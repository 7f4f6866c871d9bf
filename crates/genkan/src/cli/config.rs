//! `genkan config …`: the configuration as this process reads it.

use clap::Subcommand;
use serde::Serialize;

use super::{Context, Failure};
use crate::config::{EffectiveSetting, Source, show};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the configuration without starting. Prints one line per mistake; exit status 2 if
    /// there is one.
    Check,
    /// Show each setting, its value and its source. Secrets are not printed.
    Show,
}

pub(super) fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    let reading = context.reading();
    match command {
        Command::Check => {
            if !reading.problems.is_empty() {
                return Err(reading.problems.into());
            }
            context.output.print(&serde_json::json!({ "problems": [] }), |_| {
                context.output.good("The configuration is valid.")
            })?;
        }
        Command::Show => {
            let entries: Vec<Entry> = reading.shown.iter().map(Entry::of).collect();
            context.output.print(&entries, |_| show(&reading.shown))?;
            if !reading.problems.is_empty() {
                return Err(reading.problems.into());
            }
        }
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    key: String,
    value: Option<&'a str>,
    source: &'a str,
}

impl<'a> Entry<'a> {
    fn of(shown: &'a EffectiveSetting) -> Self {
        let source = match &shown.source {
            Source::Default => "default",
            Source::Set(name) => name,
        };
        Self { key: shown.key.path(), value: shown.value.as_deref(), source }
    }
}
