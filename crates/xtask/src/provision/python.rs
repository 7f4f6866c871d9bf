//! Python with packages from `PyPI`: a virtual environment per package, in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::say::Step;
use crate::{command, workspace};

const CLIENT: &str = "atproto==0.0.73";

/// Returns a `python` that has the published `atproto` client.
pub fn python() -> Result<PathBuf> {
    let programs = environment(CLIENT, |programs| {
        command::succeeds(Command::new(programs.join("python")).args(["-c", "import atproto"]))
    })?;
    Ok(programs.join("python"))
}

/// Returns the `bin` folder of a virtual environment that holds one package.
///
/// `works` tells whether the package in that folder can be used. It decides whether an environment
/// that exists is kept, and it must hold for a new one.
pub(super) fn environment(package: &str, works: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    let system = system_python()?;
    let version = command::run(
        Command::new(&system).args(["-c", "import sys; print(*sys.version_info[:3], sep='.')"]),
    )?;
    let _lock = workspace::lock_cache("python")?;
    let folder = workspace::cache()?.join(format!("python-{}-{package}", version.trim()));
    let programs = folder.join("bin");
    if programs.join("python").is_file() && works(&programs) {
        return Ok(programs);
    }
    let step = Step::start(format!("Python package {package}"));
    let mut make = Command::new(&system);
    make.args(["-m", "venv", "--clear"]).arg(&folder);
    if let Err(error) = command::run(&mut make) {
        // Debian keeps what `venv` needs in a package of its own.
        super::apt::install(&["python3-venv"]).with_context(|| format!("{error:#}"))?;
        command::run(&mut make)?;
    }
    let python = programs.join("python");
    command::run(Command::new(python).args(["-m", "pip", "install", "--quiet", package]))?;
    anyhow::ensure!(works(&programs), "{package} was installed from PyPI but does not work");
    step.done("PyPI");
    Ok(programs)
}

fn system_python() -> Result<PathBuf> {
    if let Some(installed) = workspace::find_program("python3") {
        return Ok(installed);
    }
    super::apt::install(&["python3", "python3-venv"]).context("Python 3 is not installed")?;
    workspace::find_program("python3").context("apt-get installed python3, but it is not on the PATH")
}
