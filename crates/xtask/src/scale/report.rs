//! What was measured on one database.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::process::Sweep;

/// Calls by kind.
pub(super) type Calls = BTreeMap<String, Kind>;

/// The calls of one kind. Times are in milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kind {
    #[serde(rename = "calls")]
    count: usize,
    failures: usize,
    examples: Vec<String>,
    p50: f64,
    p99: f64,
}

/// One database.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) database: &'static str,
    pub(super) rows: usize,
    pub(super) bytes: u64,
    pub(super) filled_seconds: f64,
    /// From the start of the process until `/readyz` is 200.
    pub(super) ready_seconds: f64,
    /// Seconds of CPU time in a minute.
    pub(super) idle_cpu_seconds: f64,
    pub(super) idle_transactions: u64,
    pub(super) idle_rows_scanned: u64,
    pub(super) idle_resident: f64,
    pub(super) most_resident: f64,
    /// Right after the start, beside the first sweeps.
    pub(super) busy: Calls,
    pub(super) quiet: Calls,
    pub(super) listing_seconds: f64,
    pub(super) sweeps: BTreeMap<String, Sweep>,
    /// Rows that each sweep should have removed and did not.
    pub(super) left: BTreeMap<String, u64>,
    pub(super) failed_jobs: BTreeMap<String, u64>,
    pub(super) scanned_tables: String,
}

impl Report {
    /// Whether calls were made and no call and no job failed.
    pub(super) fn is_passed(&self) -> bool {
        let is_fine = |calls: &&Calls| !calls.is_empty() && calls.values().all(|kind| kind.failures == 0);
        self.failed_jobs.is_empty() && [&self.busy, &self.quiet].iter().all(is_fine)
    }

    pub(super) fn print(&self) {
        const MIB: f64 = 1024.0 * 1024.0;
        let Self { database, rows, bytes, filled_seconds, .. } = self;
        println!("\n{database}: {rows} rows, {} MiB, filled in {filled_seconds:.0} s", bytes >> 20);
        println!("  ready after                     {:>9.2} s", self.ready_seconds);
        println!("  idle: CPU time per minute       {:>9.2} s", self.idle_cpu_seconds);
        println!("  idle: transactions              {:>9}", self.idle_transactions);
        println!("  idle: rows scanned              {:>9}", self.idle_rows_scanned);
        println!(
            "  resident: idle, at most         {:>9.0} MiB, {:.0} MiB",
            self.idle_resident / MIB,
            self.most_resident / MIB
        );
        println!("  account list of 1000            {:>9.2} s", self.listing_seconds);
        println!(
            "  {:<30} {:>8} {:>8} {:>8}   {:>8} {:>8} {:>8}",
            "milliseconds", "calls", "p50", "p99", "calls", "p50", "p99"
        );
        println!("  {:<30} {:>26}   {:>26}", "", "beside the first sweeps", "afterwards");
        for (name, quiet) in &self.quiet {
            let busy = self.busy.get(name).map(Kind::columns).unwrap_or_default();
            println!("  {name:<30} {busy:>26}   {}", quiet.columns());
        }
        for (name, kind) in self.busy.iter().chain(&self.quiet).filter(|(_, kind)| kind.failures > 0) {
            println!("  FAILED {name}: {} of {}: {:?}", kind.failures, kind.count, kind.examples);
        }
        for (name, Sweep { rows, seconds, .. }) in &self.sweeps {
            println!("  sweep {name:<35} {rows:>9} rows in {seconds:>6.0} s");
        }
        for (name, rows) in &self.left {
            println!("  left by sweep {name:<27} {rows:>9} rows");
        }
        for (job, failures) in &self.failed_jobs {
            println!("  FAILED job {job}: {failures} times");
        }
        if self.sweeps.is_empty() {
            println!("  this Genkan does not count the rows of its sweeps");
        }
        println!("  rows read by sequential scans since the start: {}", self.scanned_tables);
    }
}

impl Kind {
    fn columns(&self) -> String {
        format!("{:>8} {:>8.1} {:>8.1}", self.count, self.p50, self.p99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_or_no_call_at_all_fails_the_run() {
        let calls = |failures| {
            let kind = Kind { count: 9, failures, examples: Vec::new(), p50: 1.0, p99: 2.0 };
            Calls::from([("createSession".to_owned(), kind)])
        };
        let passes = |busy, quiet| Report { busy, quiet, ..Report::default() }.is_passed();
        assert!(passes(calls(0), calls(0)));
        assert!(!passes(calls(1), calls(0)));
        assert!(!passes(Calls::new(), calls(0)));
        let failed_jobs = BTreeMap::from([("sweep codes".to_owned(), 1)]);
        let report = Report { busy: calls(0), quiet: calls(0), failed_jobs, ..Report::default() };
        assert!(!report.is_passed(), "a sweep that fails");
    }
}
