//! Resident memory of the replicas over time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crate::http;
use crate::network::genkan::Genkan;

const EVERY: Duration = Duration::from_secs(2);
/// A process that lived shorter says nothing about growth.
const LONG_ENOUGH: Duration = Duration::from_secs(100);
/// Growth below this many bytes is noise of the allocator.
const NOISE: f64 = 8.0 * 1024.0 * 1024.0;

/// A measurement of one process.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    replica: String,
    /// When the process started, by its own word: a new process has another time.
    started: String,
    at: Duration,
    bytes: f64,
}

/// How the memory of one process changed after it had warmed up.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Growth {
    pub(super) replica: String,
    pub(super) seconds: u64,
    /// Median of the middle third of its life, in bytes.
    pub(super) before: f64,
    /// Median of the last third.
    pub(super) after: f64,
}

/// The thread that measures.
pub(super) struct Memory {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Memory {
    pub(super) fn watch(replicas: &[Genkan]) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let replicas: Vec<(String, u16)> =
            replicas.iter().map(|replica| (replica.name().to_owned(), replica.operations_port)).collect();
        let thread = spawn({
            let ended = Arc::clone(&ended);
            move || measure(&replicas, &ended)
        });
        Self { ended, thread }
    }

    pub(super) fn end(self) -> Vec<Sample> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn measure(replicas: &[(String, u16)], ended: &AtomicBool) -> Vec<Sample> {
    let began = Instant::now();
    let mut samples = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        for (replica, port) in replicas {
            // A replica that is down at the moment is measured later.
            let Ok((200, text)) = http::get(*port, "/metrics") else { continue };
            let figure =
                |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let bytes = figure("process_resident_memory_bytes").and_then(|text| text.parse().ok());
            let (Some(started), Some(bytes)) = (figure("process_start_time_seconds"), bytes) else {
                continue;
            };
            let started = started.to_owned();
            samples.push(Sample { replica: replica.clone(), started, at: began.elapsed(), bytes });
        }
        sleep(EVERY);
    }
    samples
}

/// Returns the growth of each process that lived long enough.
pub(super) fn growth(samples: &[Sample]) -> Vec<Growth> {
    let mut processes: Vec<(&str, &str)> =
        samples.iter().map(|sample| (&*sample.replica, &*sample.started)).collect();
    processes.sort_unstable();
    processes.dedup();
    processes.into_iter().filter_map(|process| growth_of(samples, process)).collect()
}

fn growth_of(samples: &[Sample], (replica, started): (&str, &str)) -> Option<Growth> {
    let of_process: Vec<&Sample> =
        samples.iter().filter(|sample| sample.replica == replica && sample.started == started).collect();
    let (first, last) = (of_process.first()?.at, of_process.last()?.at);
    let life = last.saturating_sub(first);
    if life < LONG_ENOUGH {
        return None;
    }
    let median_from = |from: Duration, to: Duration| {
        let within = of_process.iter().filter(|sample| sample.at >= from && sample.at <= to);
        let mut bytes: Vec<f64> = within.map(|sample| sample.bytes).collect();
        bytes.sort_by(f64::total_cmp);
        bytes.get(bytes.len() / 2).copied()
    };
    let third = life / 3;
    let before = median_from(first + third, first + 2 * third)?;
    let after = median_from(first + 2 * third, last)?;
    Some(Growth { replica: replica.to_owned(), seconds: life.as_secs(), before, after })
}

impl Growth {
    /// Whether the process has grown by less than a tenth, or by less than the noise.
    pub(super) fn is_flat(&self) -> bool {
        self.after - self.before < (self.before / 10.0).max(NOISE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process measured every two seconds for ten minutes, whose memory is `bytes` of the second.
    fn samples(started: &str, bytes: impl Fn(u64) -> f64) -> Vec<Sample> {
        let seconds = (0..600).step_by(2);
        seconds
            .map(|second| Sample {
                replica: "genkan-1".to_owned(),
                started: started.to_owned(),
                at: Duration::from_secs(second),
                bytes: bytes(second),
            })
            .collect()
    }

    #[test]
    fn growth_counts_after_the_warm_up_only() {
        const MIB: f64 = 1024.0 * 1024.0;
        let warms_up = samples("1", |second| if second < 100 { 60.0 * MIB } else { 200.0 * MIB });
        assert!(growth(&warms_up).iter().all(Growth::is_flat));
        #[expect(clippy::cast_precision_loss, reason = "seconds of a test are few")]
        let leaks = samples("1", |second| 200.0 * MIB + second as f64 * MIB);
        assert_eq!(growth(&leaks).len(), 1);
        assert!(!growth(&leaks).iter().any(Growth::is_flat));
    }

    #[test]
    fn a_process_that_was_killed_soon_does_not_count() {
        let killed: Vec<Sample> = samples("1", |_| 1.0).into_iter().take(20).collect();
        let lived = samples("2", |_| 1.0);
        let found = growth(&[killed, lived].concat());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].seconds, 598);
    }
}
