//! The real network on loopback: a PLC directory, reference PDS hosts behind an entryway, one
//! stand-alone reference PDS, a mail catcher, a name server and an app view's stand-in, with or
//! without Genkan in front of the hosts.
//!
//! Every member is a process of its own, which can be stopped, killed, paused and started again by
//! name, from Rust and over the control port. With a data folder, the next start finds the same
//! ports, DIDs, keys and accounts.
//!
//! * `plan` puts a network together from [`hosts`], [`genkan`] and the Node programs.
//! * [`member`] is one process, [`control`] the port at which other programs switch the members.
//! * [`state`] keeps ports, passwords and keys, and [`ports`] finds free ports.

mod balancer;
pub mod control;
pub mod genkan;
pub mod hosts;
pub mod member;
mod plan;
pub mod ports;
pub mod state;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::provision::node;
use crate::say::Step;
use crate::workspace;
use genkan::{Genkan, GenkanOptions};
use hosts::Host;
use member::Member;
use plan::Plan;

/// The options of a network.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data folder. Without one, a temporary folder that is removed at the end.
    pub data: Option<PathBuf>,
    /// The number of hosts behind the entryway.
    pub hosts: usize,
    /// Whether the hosts check the entryway's answers against the lexicons.
    pub dev_mode: bool,
    /// New ports are the first free ones from here on. Without it they are scattered.
    pub first_port: Option<u16>,
    /// Genkan as the entryway. Without it the hosts wait for the one that `entryway` names.
    pub genkan: Option<GenkanOptions>,
    pub entryway: Entryway,
    /// Whether the example app runs.
    pub example: bool,
    /// Whether a second Genkan runs, without hosts, behind a TLS proxy at a public name.
    pub door: bool,
    /// The life of the tokens that the stand-alone PDS gives to apps. Without it, that of the package.
    pub external_token_age: Option<Duration>,
}

/// An entryway that is not part of this network.
#[derive(Debug, Clone, Default)]
pub struct Entryway {
    pub url: Option<String>,
    pub did: Option<String>,
    /// The PLC directory that the hosts use, if it is not the one of this network.
    pub directory_url: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data: None,
            hosts: 2,
            dev_mode: true,
            first_port: None,
            genkan: None,
            entryway: Entryway::default(),
            example: false,
            door: false,
            external_token_age: None,
        }
    }
}

/// A network that is up. Its processes end when this value is dropped.
#[derive(Debug)]
pub struct Network {
    members: Arc<Members>,
    map: Value,
    genkan: Option<Genkan>,
    /// The processes behind the balancer, if there is one.
    replicas: Vec<Genkan>,
    hosts: Vec<Host>,
    data: PathBuf,
    temporary: bool,
}

/// The processes by name.
#[derive(Debug, Default)]
pub struct Members(BTreeMap<String, Mutex<Member>>);

/// The stand-alone PDS: behind no entryway, with handles of its own.
pub const STAND_ALONE: &str = "alone";
const STAND_ALONE_DOMAIN: &str = ".alone.test";
const GENKAN: &str = "genkan";
/// The processes of one Genkan behind a load balancer.
const REPLICAS: [&str; 3] = ["genkan-1", "genkan-2", "genkan-3"];
/// The load balancer.
const BALANCER: &str = "balancer";
/// The second Genkan.
const DOOR: &str = "door";

impl Network {
    /// Fetches the programs that are missing, boots everything, and returns when all of it is
    /// ready.
    pub fn start(options: &Options) -> Result<Self> {
        let node = node::node()?;
        let step = Step::start(describe(options));
        let temporary = options.data.is_none();
        let data = match &options.data {
            Some(data) => std::path::absolute(data)?,
            None => std::env::temp_dir().join(format!("genkan-network-{}", workspace::random_hex(6)?)),
        };
        fs::create_dir_all(&data).with_context(|| format!("making {}", data.display()))?;
        // The folder holds keys and passwords.
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
        let mut plan = Plan::load(node, data.clone(), options.first_port)?;
        let network = plan.boot(options, temporary);
        if network.is_err() && temporary {
            crate::say::line(&format!("  logs are in {}", data.join("logs").display()));
        }
        step.done("");
        network
    }

    /// Returns everything that another program needs to know, as JSON.
    pub fn map(&self) -> &Value {
        &self.map
    }

    pub fn genkan(&self) -> Option<&Genkan> {
        self.genkan.as_ref()
    }

    /// Returns the processes behind the balancer, or none without a balancer.
    pub fn replicas(&self) -> &[Genkan] {
        &self.replicas
    }

    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Returns a command that runs a Node program of `network/`, with a file as its argument.
    pub fn program(&self, script: &str, argument: &Path) -> Result<Command> {
        let node = self.map.get("node").and_then(Value::as_str).context("the map names Node")?;
        let mut command = Command::new(node);
        command.arg(script).arg(argument).current_dir(workspace::network());
        Ok(command)
    }

    /// The processes: `network.members().get("oak")?.kill()`.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Writes the map into the data folder and returns the file.
    pub fn write_map(&self) -> Result<PathBuf> {
        let file = self.data.join("map.json");
        fs::write(&file, serde_json::to_vec_pretty(&self.map)?)?;
        Ok(file)
    }

    /// Ends everything, Genkan first: it asks the other members until it has ended.
    pub fn stop(&self) {
        let all = || self.members.0.iter();
        let is_genkan = |name: &str| name == GENKAN || REPLICAS.contains(&name);
        let genkan_first =
            all().filter(|(name, _)| is_genkan(name)).chain(all().filter(|(name, _)| !is_genkan(name)));
        let in_order: Vec<_> = genkan_first.map(|(_, member)| member).collect();
        for member in &in_order {
            lock(member).ask_to_stop();
        }
        for member in &in_order {
            if let Err(late) = lock(member).stop() {
                crate::say::line(&format!("  {late}"));
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop();
        if self.temporary && !std::thread::panicking() {
            // Files left in the temporary folder harm nothing.
            let _ = fs::remove_dir_all(&self.data);
        }
    }
}

impl Members {
    /// Returns a member, which stays locked as long as the guard lives.
    pub fn get(&self, name: &str) -> Result<MutexGuard<'_, Member>> {
        self.0.get(name).map(lock).with_context(|| format!("there is no member {name}"))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn lock(member: &Mutex<Member>) -> MutexGuard<'_, Member> {
    member.lock().expect("no holder of a member panics")
}

fn describe(options: &Options) -> String {
    let genkan = if options.genkan.is_some() { ", Genkan" } else { "" };
    format!("network: PLC directory, {} hosts, a stand-alone PDS, mail, names{genkan}", options.hosts)
}
