//! `PgBouncer`, a pooler between programs and PostgreSQL.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::debian;
use crate::say::Step;
use crate::{command, workspace};

/// Returns the machine's program, else a script that starts that of Debian's package.
pub fn pgbouncer() -> Result<PathBuf> {
    if let Some(installed) = workspace::find_program(NAME) {
        return Ok(installed);
    }
    let folder = workspace::cache()?.join(NAME);
    let script = folder.join(NAME);
    if works(&script) {
        return Ok(script);
    }
    let step = Step::start(NAME);
    let _lock = workspace::lock_cache(NAME)?;
    debian::unpack(&PACKAGES, &folder).with_context(|| format!("install {NAME}"))?;
    let libraries = fs::read_dir(folder.join("usr/lib"))?
        .filter_map(Result::ok)
        .map(|entry| entry.path().display().to_string())
        .collect::<Vec<_>>()
        .join(":");
    let program = folder.join("usr/sbin").join(NAME);
    let text = format!("#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {} \"$@\"\n", program.display());
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    ensure!(works(&script), "the unpacked {NAME} does not run: install {NAME}");
    step.done("Debian's package, unpacked into the cache");
    Ok(script)
}

fn works(script: &Path) -> bool {
    script.is_file() && command::succeeds(Command::new(script).arg("--version"))
}

const NAME: &str = "pgbouncer";
/// With the libraries that a machine may lack.
const PACKAGES: [&str; 3] = [NAME, "libevent-2.1-7", "libc-ares2"];
