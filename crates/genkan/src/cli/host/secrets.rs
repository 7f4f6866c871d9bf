//! Secrets that commands read from files, so that none is on a command line.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use genkan_protocol::crypto::K256PrivateKey;
use zeroize::Zeroizing;

use crate::base::Secret;
use crate::cli::Failure;

pub(super) fn read_secret(file: &Path) -> Result<Secret<String>, Failure> {
    // Never an argument: other users can see the arguments of a process.
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).context("standard input cannot be read")
    } else {
        std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
    }?;
    // Editors end a file with a line break, which is not part of the secret.
    let text = text.trim();
    if text.is_empty() {
        Err(anyhow!("{} is empty; it must hold the admin password", file.display()).into())
    } else {
        Ok(Secret::new(text.to_owned()))
    }
}

pub(super) fn read_key(file: &Path) -> Result<K256PrivateKey, Failure> {
    let text = Zeroizing::new(
        std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?,
    );
    let key = K256PrivateKey::from_hex(text.trim());
    Ok(key.map_err(|_| {
        anyhow!("{} must hold a secp256k1 private key, written as 64 hex characters", file.display())
    })?)
}
