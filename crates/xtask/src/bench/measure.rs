//! One run of clients against a proxy, and what the proxy used for it.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use super::subject::{CLIENT_CORE, Subject};

/// The figures of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) per_second: f64,
    /// Microseconds of the proxy's CPU time per request.
    pub(super) cpu_per_request: f64,
    /// Milliseconds of the proxy's CPU time per MiB of bodies.
    pub(super) cpu_per_mib: f64,
    /// Microseconds from a request's first byte to its answer's last.
    pub(super) p50: f64,
    /// Like `p50`, for the slowest percent.
    pub(super) p99: f64,
}

impl Sample {
    /// Reads the line `answers failures seconds bytes p50 p99` that the clients print.
    ///
    /// `used` is the CPU time in seconds. A run with a failure, or without an answer, is an error.
    pub(super) fn read(line: &str, used: f64) -> Result<Self> {
        let figures: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [answers, failures, elapsed, bytes, p50, p99] = figures[..] else {
            bail!("the clients printed {line:?}, not their figures");
        };
        // Failures can be faster than answers, so a run with one would look too good.
        if answers < 1.0 || failures > 0.0 {
            bail!("{answers} answers and {failures} failures");
        }
        Ok(Self {
            per_second: answers / elapsed,
            cpu_per_request: used * 1e6 / answers,
            cpu_per_mib: used * 1e3 / (bytes / f64::from(1 << 20)),
            p50,
            p99,
        })
    }
}

/// Runs clients that ask for a target as fast as they are answered.
pub(super) fn load(
    tool: &str,
    subject: &Subject,
    connections: usize,
    seconds: f64,
    target: &str,
) -> Result<Sample> {
    let before = cpu_seconds(subject)?;
    let output = client(tool, "load")
        .args([&subject.address, &connections.to_string(), &seconds.to_string(), target])
        .args(&subject.fields)
        .output()
        .context("starting the clients")?;
    let used = cpu_seconds(subject)? - before;
    Sample::read(&String::from_utf8_lossy(&output.stdout), used).with_context(|| {
        format!("{} for {target}: {}", subject.name, String::from_utf8_lossy(&output.stderr))
    })
}

/// Returns the bytes of resident memory that one idle connection costs.
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
    // The clients print a line when all connections are open.
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    // Memory that is freed a moment after the last answer counts as freed.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let after = resident(subject)?;
    // The end of standard input tells the clients to close their connections.
    drop(clients.stdin.take());
    clients.wait()?;
    if line.trim() != "held" {
        bail!("{}: the connections could not be held", subject.name);
    }
    Ok((after - before).max(0.0) / f64::from(connections))
}

/// Returns the bytes by which resident memory rises, at most, while `streams` answers run at once.
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

/// Returns the bytes that a process and its children have in memory.
pub(super) fn resident(subject: &Subject) -> Result<f64> {
    let mut pages = 0.0;
    for pid in family(subject.pid())? {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
        pages += statm.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(pages * PAGE)
}

/// Returns the seconds of CPU time that a process and its children have used, user and system.
///
/// Read from the processes' CPU clocks, in nanoseconds. `/proc/<pid>/stat` has hundredths of a
/// second, which is some 3 % of a short run.
pub(super) fn cpu_seconds(subject: &Subject) -> Result<f64> {
    let mut seconds = 0.0;
    for pid in family(subject.pid())? {
        let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))?;
        seconds += std::time::Duration::from(clock.now()?).as_secs_f64();
    }
    Ok(seconds)
}

fn family(pid: u32) -> Result<Vec<u32>> {
    // nginx works in a child process, and its main process only waits.
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .with_context(|| format!("process {pid} has ended"))?;
    Ok(std::iter::once(pid).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect())
}

fn client(tool: &str, what: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", CLIENT_CORE, tool, what]);
    command
}

/// Returns the middle one of several figures, or NaN for an empty list.
pub(super) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    // `total_cmp`, since a figure can be NaN, which has no place in the usual order.
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

const PAGE: f64 = 4096.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_with_failures_gives_no_sample() {
        let sample = Sample::read("1000 0 2.000 1048576 120 900", 0.5).unwrap();
        let is = |figure: f64, wanted: f64| (figure - wanted).abs() < 1e-9;
        assert!(is(sample.per_second, 500.0) && is(sample.cpu_per_request, 500.0));
        assert!(is(sample.cpu_per_mib, 500.0) && is(sample.p99, 900.0));
        for line in ["1000 1 2.000 1048576 120 900", "0 0 2.000 0 0 0", "", "panicked"] {
            assert!(Sample::read(line, 0.5).is_err(), "{line}");
        }
    }
}
