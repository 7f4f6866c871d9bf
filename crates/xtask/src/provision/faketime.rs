//! libfaketime, a library that gives a process another clock.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::debian;
use crate::say::Step;
use crate::workspace;

/// Returns the library to preload: the machine's own, else that of Debian's package.
pub fn library() -> Result<PathBuf> {
    if let Some(installed) = find_below(Path::new("/usr/lib")) {
        return Ok(installed);
    }
    let folder = workspace::cache()?.join(PACKAGE);
    let libraries = folder.join("usr/lib");
    if let Some(unpacked) = find_below(&libraries) {
        return Ok(unpacked);
    }
    let step = Step::start(PACKAGE);
    let _lock = workspace::lock_cache(PACKAGE)?;
    debian::unpack(&[PACKAGE], &folder).with_context(|| format!("install {PACKAGE}"))?;
    step.done("Debian's package, unpacked into the cache");
    find_below(&libraries).with_context(|| format!("{PACKAGE} brought no library"))
}

/// Debian keeps it in a folder of the architecture, other systems do not.
fn find_below(libraries: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(libraries).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let mut candidates =
        folders.chain([libraries.to_owned()]).map(|folder| folder.join("faketime/libfaketime.so.1"));
    candidates.find(|library| library.is_file())
}

const PACKAGE: &str = "libfaketime";
