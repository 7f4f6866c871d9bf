//! Reading what a process has used, and one run of clients against it.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::subject::{CLIENT_CORE, Subject};

/// What one run came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) per_second: f64,
    /// Microseconds of the proxy's CPU time for one request.
    pub(super) cpu_per_request: f64,
    /// Milliseconds of it for one MiB of bodies.
    pub(super) cpu_per_mib: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// Clients that ask for a target as fast as they are answered.
pub(super) fn load(
    tool: &str,
    subject: &Subject,
    connections: usize,
    seconds: f64,
    target: &str,
) -> Result<Run> {
    let before = cpu_seconds(subject)?;
    let output = client(tool, "load")
        .args([&subject.address, &connections.to_string(), &seconds.to_string(), target])
        .args(&subject.fields)
        .output()
        .context("starting the clients")?;
    let used = cpu_seconds(subject)? - before;
    let said = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [answers, failures, elapsed, bytes, p50, p99] = figures[..] else {
        bail!("the clients failed: {}", String::from_utf8_lossy(&output.stderr));
    };
    if answers < 1.0 || failures > 0.0 {
        bail!("{}: {answers} answers and {failures} failures for {target}", subject.name);
    }
    Ok(Run {
        per_second: answers / elapsed,
        cpu_per_request: used * 1e6 / answers,
        cpu_per_mib: used * 1e3 / (bytes / f64::from(1 << 20)),
        p50,
        p99,
    })
}

/// Bytes of resident memory that one idle connection costs.
pub(super) fn idle_connection(tool: &str, subject: &Subject, connections: u32, target: &str) -> Result<f64> {
    let before = resident(subject)?;
    let mut clients = client(tool, "idle")
        .args([&subject.address, &connections.to_string(), target])
        .args(&subject.fields)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the clients")?;
    let mut line = String::new();
    let stdout = clients.stdout.take().context("the clients have an output")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    // What is freed a moment after the last answer counts as freed.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let after = resident(subject)?;
    drop(clients.stdin.take());
    clients.wait()?;
    if line.trim() != "held" {
        bail!("{}: the connections could not be held", subject.name);
    }
    Ok((after - before).max(0.0) / f64::from(connections))
}

/// Bytes that resident memory grows by, at most, while so many streams run at once.
pub(super) fn growth(tool: &str, subject: &Subject, streams: usize, target: &str) -> Result<f64> {
    let before = resident(subject)?;
    let mut clients = client(tool, "load")
        .args([&subject.address, &streams.to_string(), "3", target])
        .args(&subject.fields)
        .stdout(Stdio::null())
        .spawn()
        .context("starting the clients")?;
    let mut most = before;
    while clients.try_wait()?.is_none() {
        most = most.max(resident(subject)?);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(most - before)
}

/// Bytes that a process and its children have in memory.
pub(super) fn resident(subject: &Subject) -> Result<f64> {
    let mut pages = 0.0;
    for pid in family(subject.pid())? {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
        pages += statm.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(pages * PAGE)
}

/// Seconds of CPU time that a process and its children have used.
pub(super) fn cpu_seconds(subject: &Subject) -> Result<f64> {
    let mut ticks = 0.0;
    for pid in family(subject.pid())? {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field may have blanks; it ends at the last parenthesis.
        let (_, rest) = stat.rsplit_once(')').context("/proc/…/stat is as ever")?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        for at in [11, 12] {
            ticks += words.get(at).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
        }
    }
    Ok(ticks / TICKS)
}

fn family(pid: u32) -> Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .with_context(|| format!("process {pid} has ended"))?;
    Ok(std::iter::once(pid).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect())
}

fn client(tool: &str, what: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", CLIENT_CORE, tool, what]);
    command
}

/// The middle one of several.
pub(super) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Linux counts CPU time in hundredths of a second for its readers, whatever it counts by itself.
const TICKS: f64 = 100.0;
const PAGE: f64 = 4096.0;
