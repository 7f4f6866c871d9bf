//! nginx, which the benches compare with.

use std::path::PathBuf;

use anyhow::Result;

use super::debian::Program;

/// Returns the `nginx` program.
pub fn nginx() -> Result<PathBuf> {
    Program { name: "nginx", path: "usr/sbin/nginx", version: "-v" }.get()
}
