//! Ports, passwords and keys that a network keeps between two starts on the same data.
//!
//! Ports must not change, since DIDs and DID documents name them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::ports;
use crate::provision::node::Node;
use crate::{command, workspace};

/// The file `network.json` of a data folder.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    ports: BTreeMap<String, u16>,
    secrets: BTreeMap<String, String>,
    keys: BTreeMap<String, Key>,
    #[serde(skip)]
    file: PathBuf,
    #[serde(skip)]
    first_port: Option<u16>,
}

/// A secp256k1 key pair, as hexadecimal and as `did:key`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    pub private_key_hex: String,
    pub public_key_hex: String,
    pub did: String,
}

impl State {
    /// Reads the state in `folder`, or starts an empty one.
    ///
    /// New ports are the first free ones from `first_port` on, or scattered ones without it. Fails
    /// if a port of the state is in use: the network already runs.
    pub fn load(folder: &Path, first_port: Option<u16>) -> Result<Self> {
        let file = folder.join("network.json");
        let mut state = match fs::read(&file) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("reading {}", file.display()))?
            }
            Err(_) => Self::default(),
        };
        state.file = file;
        state.first_port = first_port;
        if let Some((name, port)) = state.ports.iter().find(|(_, port)| ports::is_taken(**port)) {
            bail!(
                "port {port} of {name} is taken: is this network already running? (If not, delete {} to start over.)",
                folder.display()
            );
        }
        Ok(state)
    }

    /// Returns the port of a name, and chooses one for a new name.
    pub fn port(&mut self, name: &str) -> Result<u16> {
        if let Some(port) = self.ports.get(name) {
            return Ok(*port);
        }
        let port = self.first_port.map_or_else(ports::free, ports::free_from)?;
        self.ports.insert(name.to_owned(), port);
        self.save()?;
        Ok(port)
    }

    /// Returns the secret of a name: 32 random bytes in hexadecimal, made for a new name.
    pub fn secret(&mut self, name: &str) -> Result<String> {
        if let Some(secret) = self.secrets.get(name) {
            return Ok(secret.clone());
        }
        let secret = workspace::random_hex(32)?;
        self.secrets.insert(name.to_owned(), secret.clone());
        self.save()?;
        Ok(secret)
    }

    /// Returns the key pairs of some names. New ones are made in one call, since each start of Node
    /// takes a moment.
    pub fn keys(&mut self, node: &Node, names: &[String]) -> Result<Vec<Key>> {
        let missing: Vec<&String> = names.iter().filter(|name| !self.keys.contains_key(*name)).collect();
        if !missing.is_empty() {
            let mut generate = Command::new(&node.binary);
            generate.arg("keys.mjs").arg(missing.len().to_string()).current_dir(workspace::network());
            let made: Vec<Key> =
                serde_json::from_str(&command::run(&mut generate)?).context("reading new keys")?;
            self.keys.extend(missing.into_iter().cloned().zip(made));
            self.save()?;
        }
        Ok(names.iter().filter_map(|name| self.keys.get(name).cloned()).collect())
    }

    fn save(&self) -> Result<()> {
        let mut file =
            fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&self.file)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }
}
