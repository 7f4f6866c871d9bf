//! The result of a run: what was found, against what must hold.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::check::Checked;
use super::faults::{Timeline, Window};
use super::memory::{self, Growth, Sample};

/// The most examples that are printed of one kind.
const EXAMPLES: usize = 8;

/// One line of the result.
#[derive(Debug)]
struct Line {
    what: String,
    /// What was found. Nothing of it may be there.
    found: Vec<String>,
    detail: String,
}

/// All lines.
#[derive(Debug)]
pub(super) struct Verdict {
    lines: Vec<Line>,
    figures: Value,
}

impl Verdict {
    /// Judges a run from what the check, the failed requests, the faults and the samples say.
    pub(super) fn judge(
        checked: &Checked,
        folder: &Path,
        timeline: &Timeline,
        samples: &[Sample],
        figures: Value,
    ) -> Result<Self> {
        let failures = super::json_lines(&folder.join("failures.jsonl"))?;
        let line =
            |what: &str, found: Vec<String>, detail: String| Line { what: what.to_owned(), found, detail };
        let mut lines = vec![
            line("acknowledged writes lost", checked.lost.clone(), checked.totals.to_string()),
            line("people logged out", checked.logged_out.clone(), String::new()),
            line("operations refused", checked.refused.clone(), String::new()),
            line("fresh DPoP nonces refused", nonces_refused(&failures), String::new()),
            line("answers of 500", internal_errors(&failures), format!("{} failed requests", failures.len())),
        ];
        for window in &timeline.windows {
            let what = format!("requests failed by the {}", window.name);
            let detail = format!("{} s", (window.to - window.from) / 1000);
            lines.push(Line { what, found: failed_in(&failures, window), detail });
        }
        let growth = memory::growth(samples);
        let grown = growth.iter().filter(|growth| !growth.is_flat()).map(describe).collect();
        let all: Vec<String> = growth.iter().map(describe).collect();
        let judged = if all.is_empty() { "no process lived long enough".to_owned() } else { all.join("; ") };
        lines.push(line("replicas whose memory grew", grown, judged));
        let faults = format!("{} kills, {} failovers", timeline.kills, timeline.failovers);
        lines.push(line("faults that did not heal", timeline.troubles.clone(), faults));
        // A load that did nothing proves nothing.
        let done = figures.get("operations").and_then(Value::as_u64).unwrap_or(0);
        let idle = if done == 0 { vec!["the load completed no operation".to_owned()] } else { Vec::new() };
        lines.push(line("reasons to distrust the run", idle, format!("{done} operations")));
        Ok(Self { lines, figures })
    }

    pub(super) fn is_passed(&self) -> bool {
        self.lines.iter().all(|line| line.found.is_empty())
    }

    pub(super) fn print(&self, json: bool) {
        println!();
        for Line { what, found, detail } in &self.lines {
            let word = if found.is_empty() { "ok" } else { "FAILED" };
            println!("{what:<42} {:>5}  {word:<7} {detail}", found.len());
            for example in found.iter().take(EXAMPLES) {
                println!("    {}", example.chars().take(400).collect::<String>());
            }
            if found.len() > EXAMPLES {
                println!("    … and {} more", found.len() - EXAMPLES);
            }
        }
        println!("\nanswers by operation and status: {}", self.figures.get("counts").unwrap_or(&Value::Null));
        if json {
            let lines: Vec<Value> = self
                .lines
                .iter()
                .map(|line| json!({ "what": line.what, "found": line.found, "detail": line.detail }))
                .collect();
            println!("{}", json!({ "passed": self.is_passed(), "lines": lines, "figures": self.figures }));
        }
    }
}

fn describe(growth: &Growth) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    format!(
        "{} for {} s: {:.0} → {:.0} MiB",
        growth.replica,
        growth.seconds,
        growth.before / MIB,
        growth.after / MIB
    )
}

fn number(row: &Value, name: &str) -> u64 {
    row.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn internal_errors(failures: &[Value]) -> Vec<String> {
    failures.iter().filter(|row| number(row, "status") == 500).map(Value::to_string).collect()
}

/// Operations for which a server refused the nonce that it had just given out.
fn nonces_refused(failures: &[Value]) -> Vec<String> {
    failures.iter().filter(|row| [400, 401].contains(&number(row, "status"))).map(Value::to_string).collect()
}

/// The failed requests that ran in a window, if only for a moment.
fn failed_in(failures: &[Value], window: &Window) -> Vec<String> {
    failures
        .iter()
        // A nonce that was refused has a line of its own.
        .filter(|row| number(row, "status") == 0 || number(row, "status") >= 500)
        .filter(|row| number(row, "began") <= window.to && number(row, "ended") >= window.from)
        .map(Value::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(began: u64, ended: u64, status: u16) -> Value {
        json!({ "began": began, "ended": ended, "status": status, "op": "post" })
    }

    fn judge(checked: &Checked, failures: &[Value]) -> Verdict {
        let folder =
            std::env::temp_dir().join(format!("genkan-soak-{}", crate::workspace::random_hex(6).unwrap()));
        std::fs::create_dir(&folder).unwrap();
        let text: Vec<String> = failures.iter().map(Value::to_string).collect();
        std::fs::write(folder.join("failures.jsonl"), text.join("\n")).unwrap();
        let windows = vec![Window { name: "rolling restart", from: 1000, to: 2000 }];
        let timeline = Timeline { windows, ..Timeline::default() };
        let verdict = Verdict::judge(checked, &folder, &timeline, &[], json!({ "operations": 5 }));
        std::fs::remove_dir_all(&folder).unwrap();
        verdict.unwrap()
    }

    #[test]
    fn each_kind_of_loss_fails_the_run() {
        assert!(judge(&Checked::default(), &[]).is_passed());
        let found = || vec!["something".to_owned()];
        for checked in [
            Checked { lost: found(), ..Checked::default() },
            Checked { logged_out: found(), ..Checked::default() },
            Checked { refused: found(), ..Checked::default() },
        ] {
            assert!(!judge(&checked, &[]).is_passed(), "{checked:?}");
        }
    }

    #[test]
    fn a_failed_request_counts_within_a_rolling_restart_only() {
        let passes = |failures: &[Value]| judge(&Checked::default(), failures).is_passed();
        assert!(passes(&[failure(100, 999, 503), failure(2001, 2100, 0)]));
        assert!(!passes(&[failure(100, 1000, 503)]));
        assert!(!passes(&[failure(2000, 5000, 0)]));
        assert!(!passes(&[failure(1200, 1300, 502)]));
        assert!(!passes(&[failure(5000, 5100, 500)]), "500 counts always");
    }
}
