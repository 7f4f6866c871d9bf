//! A Python with the published `atproto` client: a virtual environment in the cache.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::say::Step;
use crate::{command, workspace};

const CLIENT: &str = "atproto==0.0.73";

/// The environment's `python`.
pub fn python() -> Result<PathBuf> {
    let system = workspace::find_program("python3").context("Python 3 is not installed")?;
    let version = command::run(
        Command::new(&system).args(["-c", "import sys; print(*sys.version_info[:3], sep='.')"]),
    )?;
    let _lock = workspace::lock_cache("python")?;
    let folder = workspace::cache()?.join(format!("python-{}-{CLIENT}", version.trim()));
    let python = folder.join("bin/python");
    if imports(&python) {
        return Ok(python);
    }
    let step = Step::start(format!("Python packages ({CLIENT})"));
    let mut make = Command::new(&system);
    make.args(["-m", "venv", "--clear"]).arg(&folder);
    if let Err(trouble) = command::run(&mut make) {
        // Debian keeps what `venv` needs in a package of its own.
        super::apt::install(&["python3-venv"]).with_context(|| format!("{trouble:#}"))?;
        command::run(&mut make)?;
    }
    command::run(Command::new(&python).args(["-m", "pip", "install", "--quiet", CLIENT]))?;
    anyhow::ensure!(imports(&python), "atproto was installed but cannot be imported");
    step.done("PyPI");
    Ok(python)
}

fn imports(python: &PathBuf) -> bool {
    python.is_file() && command::succeeds(Command::new(python).args(["-c", "import atproto"]))
}
