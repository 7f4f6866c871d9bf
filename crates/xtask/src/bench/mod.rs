//! `cargo xtask bench forward` and `oauth`: what Genkan adds to a request, measured beside nginx in one run.
//!
//! The proxy that is measured has a core to itself; the host behind it and the clients before it share another. Each
//! row is run in turn for every proxy, several times over, and medians are compared: figures move with the machine,
//! ratios within one run do not.

mod forward;
mod machine;
mod measure;
mod oauth;
mod report;
mod subject;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::arguments::Arguments;

pub const USAGE: &str = "\
cargo xtask bench forward    Genkan against nginx, forwarding
cargo xtask bench oauth      requests with DPoP proofs against nginx, and tokens given out

    --check         exits with 1 when a \"must\" of docs/speed.md is missed
    --rounds N      runs of each row for each proxy (7)
    --seconds N     length of one run (3)
    --genkan FILE   a Genkan binary to measure, instead of building one";

/// Runs a bench by its name.
pub fn command(mut arguments: Arguments) -> Result<ExitCode> {
    match arguments.word().as_deref() {
        Some("forward") => forward::run(arguments),
        Some("oauth") => oauth::run(arguments),
        Some(other) => bail!("there is no bench named {other}\n\n{USAGE}"),
        None => bail!("which bench?\n\n{USAGE}"),
    }
}
