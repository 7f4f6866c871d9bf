//! The cores of the trial, and what an attack costs the process of Genkan.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::network::Network;
use crate::provision::postgres::Postgres;
use crate::scale::cpu_seconds;
use crate::{command, http};

/// The core of Genkan. Everything else runs on the others.
const GENKAN_CORE: &str = "0";
/// How much more memory Genkan may take under an attack.
const MORE_MEMORY: u64 = 256 * MIB;
/// How many metrics may appear under an attack. Error names that are labels make thousands.
const MORE_METRICS: usize = 300;
const MIB: u64 = 1024 * 1024;

/// What one half of a row cost Genkan.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cost {
    /// Of one core.
    pub(super) cpu_percent: f64,
    /// Bytes of resident memory.
    pub(super) resident_before: u64,
    pub(super) most_resident: u64,
    pub(super) metrics_before: usize,
    pub(super) metrics_after: usize,
}

impl Cost {
    /// Returns why it is too much, in a few words each.
    pub(super) fn complaints(&self) -> Vec<String> {
        let more = self.most_resident.saturating_sub(self.resident_before);
        let memory = (more > MORE_MEMORY).then(|| format!("{} MiB more memory", more / MIB));
        let more = self.metrics_after.saturating_sub(self.metrics_before);
        let metrics = (more > MORE_METRICS).then(|| format!("{more} more metrics"));
        memory.into_iter().chain(metrics).collect()
    }

    pub(super) fn summary(&self) -> String {
        let Self { cpu_percent, resident_before, most_resident, metrics_before, metrics_after } = self;
        let (before, most) = (resident_before / MIB, most_resident / MIB);
        format!(
            "CPU {cpu_percent:.0} %, memory {before} → {most} MiB, metrics {metrics_before} → {metrics_after}"
        )
    }
}

/// The process of Genkan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watched {
    pid: u32,
    operations_port: u16,
}

impl Watched {
    pub(super) fn new(network: &Network) -> Result<Self> {
        let operations_port = network.genkan().context("the network has a Genkan")?.operations_port;
        let pid = network.members().get("genkan")?.pid().context("Genkan runs")?;
        Ok(Self { pid, operations_port })
    }

    /// Waits, and returns what the time cost.
    pub(super) fn wait(self, length: Duration) -> Result<Cost> {
        let (began, cpu) = (Instant::now(), cpu_seconds(self.pid)?);
        let resident_before = self.resident()?;
        let metrics_before = self.metrics();
        let mut most_resident = resident_before;
        while began.elapsed() < length {
            sleep(Duration::from_millis(500).min(length.saturating_sub(began.elapsed())));
            most_resident = most_resident.max(self.resident()?);
        }
        let cpu_percent = 100.0 * (cpu_seconds(self.pid)? - cpu) / began.elapsed().as_secs_f64();
        let metrics_after = self.metrics();
        Ok(Cost { cpu_percent, resident_before, most_resident, metrics_before, metrics_after })
    }

    fn resident(self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).context("Genkan has ended")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        // A process that has ended and was not waited for has no memory.
        let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")).context("Genkan has ended")?;
        Ok(kilobytes.parse::<u64>()? * 1024)
    }

    /// Returns how many metrics there are, or 0 without an answer.
    fn metrics(self) -> usize {
        let text = http::get(self.operations_port, "/metrics").map(|(_, text)| text).unwrap_or_default();
        text.lines().filter(|line| !line.starts_with('#')).count()
    }
}

/// Gives Genkan a core of its own, and everything else of the network the other cores.
pub(super) fn pin(network: &Network, postgres: Option<&Postgres>) -> Result<()> {
    for name in network.members().names() {
        let Some(pid) = network.members().get(name)?.pid() else { continue };
        let cores = if name == "genkan" { GENKAN_CORE.to_owned() } else { other_cores()? };
        pin_to(pid, &cores)?;
    }
    let Some(server) = postgres.map(Postgres::pid) else { return Ok(()) };
    // Later sessions keep the cores of the process that starts them.
    pin_to(server, &other_cores()?)?;
    let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"))?;
    for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        // A session may end in between.
        let _ = pin_to(pid, &other_cores()?);
    }
    Ok(())
}

fn pin_to(pid: u32, cores: &str) -> Result<()> {
    let mut pin = Command::new("taskset");
    // All threads: a thread that runs already keeps the cores of its own.
    command::run(pin.args(["--all-tasks", "--cpu-list", "--pid", cores, &pid.to_string()])).map(drop)
}

/// Returns the cores that Genkan does not have.
///
/// # Errors
///
/// There is one core only.
pub(super) fn other_cores() -> Result<String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    ensure!(cores > 1, "a trial needs two cores: one of them is for Genkan alone");
    Ok(format!("1-{}", cores - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_memory_and_many_metrics_are_complaints() {
        let cost = Cost { resident_before: 100 * MIB, most_resident: 350 * MIB, ..Cost::default() };
        assert!(cost.complaints().is_empty());
        let cost = Cost { most_resident: 357 * MIB, metrics_after: 301, ..cost };
        assert_eq!(cost.complaints(), ["257 MiB more memory", "301 more metrics"]);
    }
}
