//! Chromium, for stories in a real browser.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::workspace;

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Returns the machine's own browser, else the one of Debian's package.
pub fn chromium() -> Result<PathBuf> {
    if let Some(installed) = installed() {
        return Ok(installed);
    }
    let _lock = workspace::lock_cache("chromium")?;
    if installed().is_none() {
        super::apt::install(&["chromium"]).context("Chromium is not installed")?;
    }
    installed().context("apt-get installed chromium, but it is not on the PATH")
}

fn installed() -> Option<PathBuf> {
    NAMES.iter().find_map(|name| workspace::find_program(name))
}
