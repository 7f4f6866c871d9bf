//! stress-ng, which loads processors and disks.

use std::path::PathBuf;

use anyhow::Result;

use super::debian::Program;

/// Returns the `stress-ng` program.
pub fn stress_ng() -> Result<PathBuf> {
    Program { name: "stress-ng", path: "usr/bin/stress-ng", version: "--version" }.get()
}
