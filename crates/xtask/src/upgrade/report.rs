//! What two versions did for each other.

use anyhow::Error;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// One thing that was done at `from` and looked for at `to`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    #[serde(default)]
    database: String,
    what: String,
    from: String,
    to: String,
    /// Why it was not found. `None` if it was.
    pub(super) failed: Option<String>,
}

/// All rows, in the order in which they happened.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Row>);

impl Report {
    pub(super) fn extend(&mut self, database: &str, rows: Vec<Row>) {
        self.0.extend(rows.into_iter().map(|row| Row { database: database.to_owned(), ..row }));
    }

    /// Adds a row about the processes themselves.
    pub(super) fn note(&mut self, database: &str, what: &str, failed: Option<&Error>) {
        self.0.push(Row {
            database: database.to_owned(),
            what: what.to_owned(),
            from: String::new(),
            to: String::new(),
            failed: failed.map(|error| format!("{error:#}")),
        });
    }

    /// Whether nothing failed. A run without rows proves nothing.
    pub(super) fn is_passed(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|row| row.failed.is_none())
    }

    pub(super) fn print(&self, json: bool) {
        println!();
        for row in &self.0 {
            let word = if row.failed.is_none() { "ok" } else { "FAILED" };
            let way =
                if row.from.is_empty() { String::new() } else { format!("{} → {}", row.from, row.to) };
            println!("{:<11} {:<56} {way:<24} {word}", row.database, row.what);
            if let Some(failed) = &row.failed {
                println!("            {failed}");
            }
        }
        let failed = self.0.iter().filter(|row| row.failed.is_some()).count();
        println!("\n{} checks, {failed} failed", self.0.len());
        if json {
            println!("{}", json!({ "passed": self.is_passed(), "rows": self.0 }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_passes_only_if_something_was_checked_and_nothing_failed() {
        let mut report = Report::default();
        assert!(!report.is_passed());
        report.note("SQLite", "it starts", None);
        assert!(report.is_passed());
        let rows = r#"[{ "what": "a rename", "from": "older", "to": "newer", "failed": "404" }]"#;
        report.extend("SQLite", serde_json::from_str(rows).unwrap());
        assert!(!report.is_passed());
    }
}
