//! The older Genkan that a command runs beside the one of this clone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::say::Step;
use crate::{command, workspace};

/// Returns the binary that a file or a commit names. A commit is compiled once, into the cache.
pub(crate) fn binary(from: &str) -> Result<PathBuf> {
    if Path::new(from).is_file() {
        return Ok(std::path::absolute(from)?);
    }
    let commit = git(&["rev-parse", "--verify", &format!("{from}^{{commit}}")])
        .with_context(|| format!("{from} is neither a file nor a commit"))?;
    let folder = workspace::cache()?.join(format!("genkan-{}", commit.trim()));
    let binary = folder.join("genkan");
    let _lock = workspace::lock_cache("older-genkan")?;
    if !binary.exists() {
        compile(commit.trim(), &folder, &binary)?;
    }
    Ok(binary)
}

/// Compiles a commit in a folder of its own, so that the clone and its build stay as they are.
fn compile(commit: &str, folder: &Path, binary: &Path) -> Result<()> {
    let step = Step::start(format!("compiling Genkan of {commit} (some minutes, once)"));
    let source = workspace::target().join("older-genkan");
    if source.exists() {
        fs::remove_dir_all(&source)?;
    }
    fs::create_dir_all(&source)?;
    fs::create_dir_all(folder)?;
    let archive = source.join("source.tar");
    git(&["archive", "--output", &archive.to_string_lossy(), commit])?;
    command::run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&source))?;
    let target = source.join("target");
    let mut build = workspace::cargo();
    build.current_dir(&source).args(["build", "--quiet", "--locked", "--package", "genkan"]);
    command::run(build.args(["--bin", "genkan", "--target-dir"]).arg(&target))?;
    // Copied under another name first: an interrupted copy must not pass for the binary.
    let partial = folder.join("partial");
    fs::copy(target.join("debug/genkan"), &partial)?;
    fs::rename(partial, binary)?;
    fs::remove_dir_all(&source)?;
    step.done("");
    Ok(())
}

fn git(arguments: &[&str]) -> Result<String> {
    command::run(Command::new("git").args(arguments).current_dir(workspace::root()))
}
