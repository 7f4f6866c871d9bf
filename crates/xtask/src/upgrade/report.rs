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
pub(super) struct Report {
    rows: Vec<Row>,
    /// How many steps the newer one has added to the schema, if that was looked at.
    steps: Option<usize>,
}

impl Report {
    pub(super) fn extend(&mut self, database: &str, rows: Vec<Row>) {
        self.rows.extend(rows.into_iter().map(|row| Row { database: database.to_owned(), ..row }));
    }

    /// Adds a row about the processes themselves.
    pub(super) fn note(&mut self, database: &str, what: &str, failed: Option<&Error>) {
        self.rows.push(Row {
            database: database.to_owned(),
            what: what.to_owned(),
            from: String::new(),
            to: String::new(),
            failed: failed.map(|error| format!("{error:#}")),
        });
    }

    pub(super) fn set_steps(&mut self, steps: usize) {
        self.steps = Some(steps);
    }

    /// Whether nothing failed. A run without rows proves nothing.
    pub(super) fn is_passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.failed.is_none())
    }

    pub(super) fn print(&self, json: bool) {
        println!();
        for row in &self.rows {
            let word = if row.failed.is_none() { "ok" } else { "FAILED" };
            let way =
                if row.from.is_empty() { String::new() } else { format!("{} → {}", row.from, row.to) };
            println!("{:<11} {:<56} {way:<24} {word}", row.database, row.what);
            if let Some(failed) = &row.failed {
                println!("            {failed}");
            }
        }
        let failed = self.rows.iter().filter(|row| row.failed.is_some()).count();
        println!("\n{} checks, {failed} failed", self.rows.len());
        match self.steps {
            Some(0) => println!(
                "\nWARNING: the newer Genkan added no step to the older one's schema, so no change of the \
                 schema was tried: see --from"
            ),
            Some(steps) => println!("the newer Genkan added {steps} steps to the older one's schema"),
            None => {}
        }
        if json {
            println!(
                "{}",
                json!({ "passed": self.is_passed(), "rows": self.rows, "schemaSteps": self.steps })
            );
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
