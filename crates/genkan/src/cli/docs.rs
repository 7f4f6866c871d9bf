//! `genkan docs …`: the pages of `docs/` that are generated from declarations in the code.

use clap::Subcommand;

use super::{Context, Failure};
use crate::config::configuration_page;
use crate::routing::page;

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum Command {
    /// Print docs/configuration.md: every setting.
    Configuration,
    /// Print docs/routing.md: who answers each XRPC method.
    Routing,
}

pub(super) fn run(command: Command, context: &Context) -> Result<(), Failure> {
    let page = match command {
        Command::Configuration => configuration_page(),
        Command::Routing => page::markdown(),
    };
    context.output.line(page.trim_end_matches('\n'))?;
    Ok(())
}
