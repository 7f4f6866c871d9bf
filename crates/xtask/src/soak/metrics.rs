//! What the replicas say of themselves at `/metrics` while they run, and in their logs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::http;
use crate::network::genkan::Genkan;

const EVERY: Duration = Duration::from_secs(2);
const STARTED: &str = "process_start_time_seconds";
pub(super) const MEMORY: &str = "process_resident_memory_bytes";
pub(super) const CACHES: &str = "genkan_cache_bytes";
pub(super) const CLOCK_OFFSET: &str = "genkan_clock_offset_seconds";
pub(super) const PANICS: &str = "genkan_panics_total";
pub(super) const LINK_REFRESHES: &str = "genkan_link_refreshes_total";
const WANTED: [&str; 6] = [STARTED, MEMORY, CACHES, CLOCK_OFFSET, PANICS, LINK_REFRESHES];

/// The wanted figures of one process at one time.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) replica: String,
    pub(super) at: Duration,
    /// By series: the name, and the labels as they are written.
    pub(super) figures: BTreeMap<String, f64>,
}

impl Sample {
    /// When the process started, by its own word: a new process has another time.
    pub(super) fn started(&self) -> u64 {
        self.figures.get(STARTED).copied().unwrap_or_default().to_bits()
    }

    /// The bytes of all caches together. Each has a bound, which a short run does not reach.
    pub(super) fn cached(&self) -> f64 {
        let of_caches = self.figures.iter().filter(|(series, _)| series.starts_with(CACHES));
        of_caches.map(|(_, bytes)| bytes).sum()
    }
}

/// The thread that reads the metrics.
pub(super) struct Metrics {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Metrics {
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
            let Ok(figures) = read(*port) else { continue };
            samples.push(Sample { replica: replica.clone(), at: began.elapsed(), figures });
        }
        sleep(EVERY);
    }
    samples
}

/// Reads the wanted figures of a replica.
pub(super) fn read(operations_port: u16) -> Result<BTreeMap<String, f64>> {
    let (status, text) = http::get(operations_port, "/metrics")?;
    anyhow::ensure!(status == 200, "the metrics are answered {status}");
    let figures = figures(&text);
    figures.get(STARTED).with_context(|| format!("the metrics have no {STARTED}"))?;
    Ok(figures)
}

fn figures(text: &str) -> BTreeMap<String, f64> {
    let wanted = |series: &str| WANTED.contains(&series.split('{').next().unwrap_or_default());
    text.lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| wanted(series))
        .filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?)))
        .collect()
}

/// The sums of a counter over all processes, by its labels. A process counts with the highest value
/// that it was seen with.
pub(super) fn totals(samples: &[Sample], counter: &str) -> BTreeMap<String, f64> {
    let mut highest: BTreeMap<(&str, u64, &str), f64> = BTreeMap::new();
    for sample in samples {
        let of_counter = sample.figures.iter().filter_map(|(series, value)| {
            let labels = series.strip_prefix(counter)?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, *value))
        });
        for (labels, value) in of_counter {
            let seen = highest.entry((&sample.replica, sample.started(), labels)).or_default();
            *seen = seen.max(value);
        }
    }
    let mut sums = BTreeMap::new();
    for ((_, _, labels), value) in highest {
        *sums.entry(labels.to_owned()).or_default() += value;
    }
    sums
}

/// What the logs of the replicas say. A process that was killed has told nothing else.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// Requests that were answered 500, also those of hosts.
    pub(super) internal_errors: Vec<String>,
    pub(super) panics: Vec<String>,
    /// How many steps a newer binary has added to the schema.
    pub(super) steps: usize,
}

impl Logs {
    pub(super) fn read(folder: &Path, replicas: &[Genkan]) -> Result<Self> {
        let mut logs = Self::default();
        for replica in replicas {
            let file = folder.join(format!("{}.log", replica.name()));
            let text = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            logs.add(replica.name(), &String::from_utf8_lossy(&text));
        }
        Ok(logs)
    }

    fn add(&mut self, replica: &str, text: &str) {
        for line in text.lines() {
            let found = if line.contains(" answered 500 ") {
                &mut self.internal_errors
            } else if line.contains("panicked") {
                &mut self.panics
            } else {
                self.steps += usize::from(line.contains("the schema has a new step"));
                continue;
            };
            found.push(format!("{replica}: {line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(replica: &str, text: &str) -> Sample {
        Sample { replica: replica.to_owned(), at: Duration::ZERO, figures: figures(text) }
    }

    #[test]
    fn counters_are_summed_over_processes() {
        let counted = |started: u64, rotated: u64| {
            format!(
                "# TYPE genkan_link_refreshes_total counter\n{STARTED} {started}\n\
                 {LINK_REFRESHES}{{outcome=\"rotated\"}} {rotated}\n{LINK_REFRESHES}_other 9\n"
            )
        };
        let samples = [
            sample("genkan-1", &counted(1, 2)),
            sample("genkan-1", &counted(1, 3)),
            sample("genkan-1", &counted(2, 10)),
            sample("genkan-2", &counted(1, 100)),
        ];
        let sums = totals(&samples, LINK_REFRESHES);
        assert_eq!(sums.into_iter().collect::<Vec<_>>(), [("{outcome=\"rotated\"}".to_owned(), 113.0)]);
        assert!(totals(&samples, PANICS).is_empty());
    }

    #[test]
    fn logs_tell_of_500_and_of_panics() {
        let mut logs = Logs::default();
        logs.add(
            "genkan-1",
            "INFO genkan::request: GET /xrpc/a answered 200 in 500 ms\n\
             INFO genkan::request: POST /xrpc/b answered 500 in 3 ms http.status=500\n\
             ERROR genkan::telemetry: panicked: oh panic.place=\"a.rs:1\"\n\
             INFO genkan::db::migrate: the schema has a new step: handle claims (11)\n",
        );
        assert_eq!((logs.internal_errors.len(), logs.panics.len(), logs.steps), (1, 1, 1));
    }
}
