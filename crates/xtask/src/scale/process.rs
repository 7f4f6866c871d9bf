//! The process of Genkan during a run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use serde::Serialize;

use crate::http;

/// Rows that one sweep removed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sweep {
    pub(super) rows: u64,
    /// From the first look that saw a removed row to the last one.
    pub(super) seconds: f64,
    #[serde(skip)]
    first: Instant,
    #[serde(skip)]
    last: Instant,
}

/// A thread that reads `/metrics` once a second.
pub(super) struct Observer {
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

/// What the metrics said.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) sweeps: BTreeMap<String, Sweep>,
    /// Failures by job. A sweep is the job `sweep` with its name.
    pub(super) failed_jobs: BTreeMap<String, u64>,
    resident: f64,
    /// The most bytes of resident memory.
    pub(super) most_resident: f64,
    is_over: bool,
}

impl Observer {
    pub(super) fn start(operations_port: u16) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let thread = spawn({
            let seen = Arc::clone(&seen);
            move || {
                loop {
                    let text =
                        http::get(operations_port, "/metrics").map(|(_, text)| text).unwrap_or_default();
                    let mut seen = seen.lock().expect("no holder panics");
                    seen.read(&text);
                    if seen.is_over {
                        return;
                    }
                    drop(seen);
                    sleep(Duration::from_secs(1));
                }
            }
        });
        Self { seen, thread: Some(thread) }
    }

    /// Whether a sweep removed rows a moment ago.
    pub(super) fn is_sweeping(&self, moment: Duration) -> bool {
        self.seen.lock().expect("no holder panics").sweeps.values().any(|sweep| sweep.last.elapsed() < moment)
    }

    /// Bytes of resident memory.
    pub(super) fn resident(&self) -> f64 {
        self.seen.lock().expect("no holder panics").resident
    }

    /// Returns everything that was seen.
    pub(super) fn end(mut self) -> Seen {
        self.seen.lock().expect("no holder panics").is_over = true;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread would only mean that less was seen.
            let _ = thread.join();
        }
        self.seen.lock().expect("no holder panics").clone()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Ok(mut seen) = self.seen.lock() {
            seen.is_over = true;
        }
    }
}

impl Seen {
    fn read(&mut self, metrics: &str) {
        for line in metrics.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            if name == "process_resident_memory_bytes" {
                self.resident = value.parse().unwrap_or(0.0);
                self.most_resident = self.most_resident.max(self.resident);
            }
            let sweep = name
                .strip_prefix("genkan_swept_rows_total{sweep=\"")
                .and_then(|rest| rest.strip_suffix("\"}"));
            if let (Some(sweep), Ok(rows)) = (sweep, value.parse()) {
                self.note(sweep, rows);
            }
            let job = name
                .strip_prefix("genkan_job_failures_total{job=\"")
                .and_then(|rest| rest.strip_suffix("\"}"));
            if let (Some(job), Ok(failures @ 1..)) = (job, value.parse::<u64>()) {
                self.failed_jobs.insert(job.to_owned(), failures);
            }
        }
    }

    fn note(&mut self, sweep: &str, rows: u64) {
        let now = Instant::now();
        let before = self.sweeps.get(sweep).map_or(0, |seen| seen.rows);
        if rows > before {
            let first = Sweep { rows, seconds: 0.0, first: now, last: now };
            let seen = self.sweeps.entry(sweep.to_owned()).or_insert(first);
            (seen.rows, seen.last) = (rows, now);
            seen.seconds = seen.last.duration_since(seen.first).as_secs_f64();
        }
    }
}

/// Returns the seconds of CPU time that a process has used, user and system.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))?;
    Ok(Duration::from(clock.now()?).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_sweep_are_read_from_the_metrics() {
        let mut seen = Seen::default();
        seen.read("genkan_swept_rows_total{sweep=\"sessions\"} 500\nprocess_resident_memory_bytes 1000\n");
        seen.read("genkan_swept_rows_total{sweep=\"sessions\"} 900\nprocess_resident_memory_bytes 400\n");
        assert_eq!(seen.sweeps["sessions"].rows, 900);
        seen.read(
            "genkan_job_failures_total{job=\"sweep codes\"} 2\ngenkan_job_failures_total{job=\"x\"} 0\n",
        );
        assert_eq!(seen.failed_jobs, BTreeMap::from([("sweep codes".to_owned(), 2)]));
        assert!((seen.most_resident - 1000.0).abs() < 0.5 && (seen.resident - 400.0).abs() < 0.5);
    }
}
