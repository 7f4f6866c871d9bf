//! Counters, gauges and histograms, in the text format of Prometheus.
//!
//! A *metric* is declared once, as a constant. A *series* is a metric with one set of label values.
//! Look a series up once and keep its handle: counting is then one relaxed addition in the shard of
//! the thread. Label values come from closed sets: statuses, host names of the operator, error
//! names. If a metric gets too many series anyway, the rest are counted as `other`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The declaration of a metric.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) labels: &'static [&'static str],
    pub(crate) kind: MetricKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    Counter,
    Gauge,
    /// A histogram of durations, in seconds.
    Histogram,
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $NAME:ident = $kind:ident $name:literal [$($label:literal),*];)+) => {
        $($(#[doc = $help])+ pub(crate) const $NAME: Metric = Metric {
            name: $name, help: concat!($($help),+), labels: &[$($label),*], kind: MetricKind::$kind,
        };)+
        /// Every metric, for the comparison with `docs/operating.md`.
        #[cfg(test)]
        const ALL: &[Metric] = &[$($NAME),+];
    };
}

metrics! {
    /// Answered requests, by `door` and class of status. A `local` request is answered by Genkan
    /// itself, a `forwarded` one by a host, and an `edge` one by the edge before either.
    REQUESTS = Counter "genkan_requests_total" ["door", "status"];
    /// Time from the head of a request to the head of its answer.
    REQUEST_DURATION = Histogram "genkan_request_duration_seconds" ["door"];
    /// Requests that Genkan itself refused, by XRPC error name.
    REFUSALS = Counter "genkan_refusals_total" ["error"];
    /// Requests that a rate limit refused, by name of the limit.
    RATE_LIMITED = Counter "genkan_rate_limited_total" ["limit"];
    /// Panics that were caught. Each is a bug: please report it.
    PANICS = Counter "genkan_panics_total" [];
    /// Log lines dropped because their reader did not keep up.
    LOG_LINES_DROPPED = Counter "genkan_log_lines_dropped_total" [];
    /// Open client connections.
    CONNECTIONS = Gauge "genkan_connections" [];
    /// Refused client connections, by reason.
    CONNECTIONS_REFUSED = Counter "genkan_connections_refused_total" ["reason"];
    /// Forwarded requests that a host did not answer, by host and reason.
    HOST_FAILURES = Counter "genkan_host_failures_total" ["host", "reason"];
    /// Whether a host is considered healthy (1) or not (0).
    HOST_HEALTHY = Gauge "genkan_host_healthy" ["host"];
    /// Calls to external PDSes, by class (`linked`: of a linked account at its own PDS; `read`: of
    /// anybody else) and by how they were admitted (`at_once`, `waited` in the queue, or `refused`).
    UPSTREAM_CALLS = Counter "genkan_upstream_calls_total" ["class", "outcome"];
    /// External PDSes that were called recently.
    UPSTREAM_HOSTS = Gauge "genkan_upstream_hosts" [];
    /// External PDSes that allow no further calls at the moment.
    UPSTREAM_HOSTS_EXHAUSTED = Gauge "genkan_upstream_hosts_exhausted" [];
    /// Failed calls to external PDSes, by reason.
    UPSTREAM_FAILURES = Counter "genkan_upstream_failures_total" ["reason"];
    /// Sign-ups, by outcome.
    SIGN_UPS = Counter "genkan_sign_ups_total" ["outcome"];
    /// Password sign-ins, by outcome.
    SIGN_INS = Counter "genkan_sign_ins_total" ["outcome"];
    /// Sign-ins of linked accounts at their own servers, by outcome: `begun`, `done`, or the reason
    /// of the failure.
    LINK_LOGINS = Counter "genkan_link_logins_total" ["outcome"];
    /// Refreshes of linked sessions, by outcome. `misconfigured`: a server does not accept this
    /// service as a client.
    LINK_REFRESHES = Counter "genkan_link_refreshes_total" ["outcome"];
    /// Linked sessions, by state.
    LINKS = Gauge "genkan_links" ["state"];
    /// Emails, by outcome: `queued`, `sent`, `failed` (Genkan tries again), `expired`, `given_up`.
    MAILS = Counter "genkan_mails_total" ["outcome"];
    /// Emails that wait to be sent.
    MAILS_WAITING = Gauge "genkan_mails_waiting" [];
    /// Age in seconds of the oldest email that waits.
    OLDEST_MAIL = Gauge "genkan_oldest_mail_age_seconds" [];
    /// Whether the check of SQLite's file after the start found damage (1) or not (0). Its report is in
    /// the log.
    DATABASE_DAMAGED = Gauge "genkan_database_damaged" [];
    /// Seconds by which this machine's clock is ahead of the database's. Negative: behind.
    CLOCK_OFFSET = Gauge "genkan_clock_offset_seconds" [];
    /// Failed runs of recurring jobs, by job. The next run tries again. A sweep that failed is
    /// counted as the job `sweep` with its name.
    JOB_FAILURES = Counter "genkan_job_failures_total" ["job"];
    /// Rows that sweeps removed, by sweep.
    SWEPT = Counter "genkan_swept_rows_total" ["sweep"];
    /// Bytes that each cache takes. Several caches may share a name.
    CACHE_BYTES = Gauge "genkan_cache_bytes" ["cache"];
    /// Start of this process, in seconds since the Unix epoch.
    START_TIME = Gauge "process_start_time_seconds" [];
    /// Resident memory of this process, in bytes.
    RESIDENT_MEMORY = Gauge "process_resident_memory_bytes" [];
    /// Always 1. The label is the version.
    BUILD = Gauge "genkan_build_info" ["version"];
}

/// All series of this process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    families: Arc<Mutex<BTreeMap<&'static str, Family>>>,
}

#[derive(Debug)]
struct Family {
    metric: &'static Metric,
    series: BTreeMap<Vec<Box<str>>, Series>,
}

#[derive(Clone, Debug)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// Maximum number of series of one metric.
const MOST_SERIES: usize = 1000;

impl Metrics {
    pub(crate) fn counter(&self, metric: &'static Metric, labels: &[&str]) -> Counter {
        match self.series(metric, labels) {
            Series::Counter(counter) => counter,
            _ => unreachable!("{} is declared as a counter", metric.name),
        }
    }

    pub(crate) fn gauge(&self, metric: &'static Metric, labels: &[&str]) -> Gauge {
        match self.series(metric, labels) {
            Series::Gauge(gauge) => gauge,
            _ => unreachable!("{} is declared as a gauge", metric.name),
        }
    }

    pub(crate) fn histogram(&self, metric: &'static Metric, labels: &[&str]) -> Histogram {
        match self.series(metric, labels) {
            Series::Histogram(histogram) => histogram,
            _ => unreachable!("{} is declared as a histogram", metric.name),
        }
    }

    /// Returns all series in the text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for family in self.families.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let Metric { name, help, labels, kind } = family.metric;
            let kind = match kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram => "histogram",
            };
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", help.trim());
            for (values, series) in &family.series {
                let pairs: Vec<String> = labels
                    .iter()
                    .zip(values)
                    .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                    .collect();
                series.write(&mut text, name, &pairs);
            }
        }
        text
    }

    fn series(&self, metric: &'static Metric, labels: &[&str]) -> Series {
        debug_assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        // Hot paths keep the handle that this returns. They never come here again.
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let family =
            families.entry(metric.name).or_insert_with(|| Family { metric, series: BTreeMap::new() });
        let mut key: Vec<Box<str>> = labels.iter().map(|label| (*label).into()).collect();
        // A bound on memory, in case a label takes values that someone outside can choose.
        if family.series.len() >= MOST_SERIES && !family.series.contains_key(&key) {
            key = labels.iter().map(|_| "other".into()).collect();
        }
        let new = || match metric.kind {
            MetricKind::Counter => Series::Counter(Counter::default()),
            MetricKind::Gauge => Series::Gauge(Gauge::default()),
            MetricKind::Histogram => Series::Histogram(Histogram::default()),
        };
        family.series.entry(key).or_insert_with(new).clone()
    }
}

fn escaped(value: &str) -> String {
    // The backslash first, or it would escape the escapes of the other two.
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Series {
    fn write(&self, text: &mut String, name: &str, pairs: &[String]) {
        let labels = |more: Option<String>| {
            let all: Vec<&str> = pairs.iter().map(String::as_str).chain(more.as_deref()).collect();
            if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
        };
        let _ = match self {
            Self::Counter(counter) => writeln!(text, "{name}{} {}", labels(None), counter.value()),
            Self::Gauge(gauge) => {
                writeln!(text, "{name}{} {}", labels(None), gauge.0.load(Ordering::Relaxed))
            }
            Self::Histogram(histogram) => {
                // Prometheus buckets are cumulative: each contains all shorter durations.
                let mut below = 0;
                for (bound, count) in BOUNDS.iter().zip(&histogram.0.bounded) {
                    below += count.value();
                    let _ =
                        writeln!(text, "{name}_bucket{} {below}", labels(Some(format!("le=\"{bound}\""))));
                }
                let count = below + histogram.0.beyond.value();
                let _ = writeln!(text, "{name}_bucket{} {count}", labels(Some("le=\"+Inf\"".to_owned())));
                // Summed as whole microseconds, since there is no atomic addition of floating-point
                // numbers.
                let micros = Duration::from_micros(histogram.0.micros.value());
                let _ = writeln!(text, "{name}_sum{} {}", labels(None), micros.as_secs_f64());
                writeln!(text, "{name}_count{} {count}", labels(None))
            }
        };
    }
}

/// Number of shards of a counter. Each thread counts in its own shard, since a cache line that
/// several threads write is slow.
const SHARDS: usize = 8;

/// A part of a counter, alone in its cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(AtomicU64);

/// Returns the shard of this thread. Threads are spread over the shards in turn.
fn own_shard() -> usize {
    // Threads are spread over the shards in the order in which they first count.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS));
    OWN.get()
}

/// A number that only increases.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter(Arc<[Shard; SHARDS]>);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, number: u64) {
        if let Some(shard) = self.0.get(own_shard()) {
            // Relaxed: a counter orders nothing else, and a scrape may be a moment late.
            shard.0.fetch_add(number, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum()
    }

    /// Raises the counter to a number that another component counts. Only one thread may do so.
    pub(crate) fn set(&self, number: u64) {
        // Two threads here could both add the same difference.
        let now = self.value();
        self.add(number.saturating_sub(now));
    }
}

/// A number that increases and decreases.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge(Arc<AtomicI64>);

impl Gauge {
    pub(crate) fn set(&self, number: i64) {
        self.0.store(number, Ordering::Relaxed);
    }
}

/// Upper bounds of the buckets, in seconds.
const BOUNDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// A distribution of durations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    bounded: [Counter; BOUNDS.len()],
    beyond: Counter,
    micros: Counter,
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound);
        bucket.and_then(|index| self.0.bounded.get(index)).unwrap_or(&self.0.beyond).increment();
        self.0.micros.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.counter(&REQUESTS, &["a\"b", "timeout"]).add(2);
        metrics.counter(&REQUESTS, &["a\"b", "timeout"]).increment();
        metrics.gauge(&CONNECTIONS, &[]).set(-4);
        let took = metrics.histogram(&REQUEST_DURATION, &["local"]);
        took.observe(Duration::from_micros(700));
        took.observe(Duration::from_mins(1));
        let text = metrics.text();
        for line in [
            "# TYPE genkan_requests_total counter",
            "genkan_requests_total{door=\"a\\\"b\",status=\"timeout\"} 3",
            "genkan_connections -4",
            "genkan_request_duration_seconds_bucket{door=\"local\",le=\"0.0005\"} 0",
            "genkan_request_duration_seconds_bucket{door=\"local\",le=\"0.001\"} 1",
            "genkan_request_duration_seconds_bucket{door=\"local\",le=\"30\"} 1",
            "genkan_request_duration_seconds_bucket{door=\"local\",le=\"+Inf\"} 2",
            "genkan_request_duration_seconds_sum{door=\"local\"} 60.0007",
            "genkan_request_duration_seconds_count{door=\"local\"} 2",
        ] {
            assert!(text.lines().any(|printed| printed == line), "no line {line:?} in\n{text}");
        }
    }

    #[test]
    fn no_count_is_lost_between_threads() {
        let counter = Metrics::default().counter(&PANICS, &[]);
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| (0..1000).for_each(|_| counter.increment()));
            }
        });
        assert_eq!(counter.value(), 12_000);
    }

    #[test]
    fn a_flood_of_label_values_is_counted_as_other() {
        let metrics = Metrics::default();
        for number in 0..MOST_SERIES + 5 {
            metrics.counter(&REFUSALS, &[&number.to_string()]).increment();
        }
        assert!(metrics.text().contains("genkan_refusals_total{error=\"other\"} 5\n"));
    }

    #[test]
    fn every_metric_is_documented_and_no_label_can_name_a_person() {
        let page = include_str!("../../../../docs/operating.md");
        for metric in ALL {
            let labels =
                metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            let row = format!("| `{}` | {labels} | {} |", metric.name, metric.help.trim());
            assert!(page.contains(&row), "docs/operating.md lacks: {row}");
            for label in metric.labels {
                assert!(!["did", "handle", "email", "address", "ip", "token", "client"].contains(label));
            }
        }
    }
}
