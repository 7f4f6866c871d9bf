//! nginx, to be measured against: the machine's own, else Debian's package unpacked into the cache, where no service
//! of that name is started.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::say::Step;
use crate::{command, workspace};

/// The `nginx` program.
pub fn nginx() -> Result<PathBuf> {
    if let Some(installed) = workspace::find_program("nginx") {
        return Ok(installed);
    }
    let folder = workspace::cache()?.join("nginx");
    let program = folder.join("usr/sbin/nginx");
    if works(&program) {
        return Ok(program);
    }
    let step = Step::start("nginx");
    if download(&folder).is_ok() && works(&program) {
        step.done("Debian's package, unpacked into the cache");
        return Ok(program);
    }
    super::apt::install(&["nginx"])?;
    workspace::find_program("nginx").context("apt-get installed nginx, but it is not on the PATH")
}

fn download(folder: &PathBuf) -> Result<()> {
    let _lock = workspace::lock_cache("nginx")?;
    fs::create_dir_all(folder)?;
    let mut fetch = Command::new("apt-get");
    fetch.args(["download", "nginx"]).current_dir(folder);
    if workspace::is_root() {
        // The unprivileged user that apt downloads as cannot write below root's home.
        fetch.args(["--option", "APT::Sandbox::User=root"]);
        if !command::succeeds(&mut fetch) {
            command::run(Command::new("apt-get").args(["update", "--quiet"]))?;
        }
    }
    command::run(&mut fetch)?;
    let package = fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let Some(package) = package else { bail!("apt-get download left no package") };
    command::run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder))?;
    Ok(())
}

fn works(program: &PathBuf) -> bool {
    program.is_file() && command::succeeds(Command::new(program).arg("-v"))
}
