//! Debian packages, which only root can install.

use std::process::Command;

use anyhow::{Result, bail};

use crate::say::Step;
use crate::{command, workspace};

/// Installs packages. Without root or apt-get the error names the packages to install.
pub fn install(packages: &[&str]) -> Result<()> {
    if !workspace::is_root() || workspace::find_program("apt-get").is_none() {
        bail!("install {} (this machine has no apt-get, or you are not root)", packages.join(" "));
    }
    let step = Step::start(format!("apt-get install {}", packages.join(" ")));
    if command::run(apt_get("install").args(packages)).is_err() {
        command::run(&mut apt_get("update"))?;
        command::run(apt_get("install").args(packages))?;
    }
    step.done("");
    Ok(())
}

fn apt_get(verb: &str) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        verb,
        "--yes",
        "--no-install-recommends",
        "--quiet",
    ]);
    command
}
