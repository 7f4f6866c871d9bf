//! The result of a run: what was found, against what must hold.

use std::time::Duration;

use serde_json::{Value, json};

use super::check::Checked;
use super::faults::{Timeline, Whose, Window};
use super::memory::{self, Growth};
use super::metrics::{self, Logs, Sample};

/// The most examples that are printed of one kind.
const EXAMPLES: usize = 8;
/// From this length on, a run must have done enough of everything and measured memory.
const WHOLE: Duration = Duration::from_mins(10);
/// The operations that a run must have done, by the names of the load.
const OPERATIONS: [&str; 14] = [
    "sign-up",
    "sign-in",
    "sign-out",
    "refresh",
    "authorize",
    "oauth-post",
    "oauth-refresh",
    "revoke",
    "rename",
    "delete",
    "linked-post",
    "linked-refresh",
    "browser-visit",
    "browser-authorize",
];
/// How many good answers a whole run must have of each operation.
const ENOUGH: u64 = 20;
/// What the check must have looked at.
const CHECKED: [&str; 8] =
    ["accounts", "deletions", "posts", "sessions", "sessionsEnded", "grants", "grantsEnded", "browsers"];
/// How many answers a window must have.
const ENOUGH_IN_A_WINDOW: u64 = 50;

/// What is known of a run besides the check.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) timeline: Timeline,
    pub(super) samples: Vec<Sample>,
    pub(super) logs: Logs,
    /// What the load says of itself.
    pub(super) figures: Value,
    pub(super) length: Duration,
}

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
    /// What a reader must know, although it is no failure.
    warnings: Vec<String>,
    figures: Value,
}

impl Verdict {
    /// Judges a run from what the check, the failed requests, the faults, the replicas and the load
    /// say.
    pub(super) fn judge(checked: &Checked, failures: &[Value], run: Run) -> Self {
        let line =
            |what: &str, found: Vec<String>, detail: String| Line { what: what.to_owned(), found, detail };
        let failed = format!("{} failed requests", failures.len());
        let mut lines = vec![
            line("acknowledged writes lost", checked.lost.clone(), checked.totals.to_string()),
            line("people logged out", checked.logged_out.clone(), String::new()),
            line("operations refused", checked.refused.clone(), String::new()),
            line("fresh DPoP nonces refused", nonces_refused(failures), String::new()),
            line("answers of 429, although no limit is low", with_status(failures, 429), String::new()),
            line("answers of 500 to the load", with_status(failures, 500), failed),
            line("answers of 500 in the replicas' logs", run.logs.internal_errors.clone(), String::new()),
            line("panics", panics(&run), String::new()),
        ];
        for window in &run.timeline.windows {
            let what = format!("requests failed by the {}", window.name);
            let detail = format!("{} s, {} answers", (window.to - window.from) / 1000, window.answers);
            lines.push(Line { what, found: failed_in(failures, window), detail });
        }
        lines.push(linked_sessions(&run));
        lines.push(grown(&run));
        let faults = format!("{} kills, {} failovers", run.timeline.kills, run.timeline.failovers);
        lines.push(line("faults that did not heal, and deaths", run.timeline.troubles.clone(), faults));
        let done = format!("{} operations", number(&run.figures, "operations"));
        lines.push(line("reasons to distrust the run", reasons_to_distrust(checked, &run), done));
        Self { lines, warnings: warnings(&run), figures: run.figures }
    }

    pub(super) fn is_passed(&self) -> bool {
        self.lines.iter().all(|line| line.found.is_empty())
    }

    pub(super) fn print(&self, json: bool) {
        println!();
        for Line { what, found, detail } in &self.lines {
            let word = if found.is_empty() { "ok" } else { "FAILED" };
            println!("{what:<58} {:>5}  {word:<7} {detail}", found.len());
            for example in found.iter().take(EXAMPLES) {
                println!("    {}", example.chars().take(400).collect::<String>());
            }
            if found.len() > EXAMPLES {
                println!("    … and {} more", found.len() - EXAMPLES);
            }
        }
        println!("\nanswers by operation and status: {}", self.figures.get("counts").unwrap_or(&Value::Null));
        for warning in &self.warnings {
            println!("\nWARNING: {warning}");
        }
        if json {
            let lines: Vec<Value> = self
                .lines
                .iter()
                .map(|line| json!({ "what": line.what, "found": line.found, "detail": line.detail }))
                .collect();
            println!(
                "{}",
                json!({
                    "passed": self.is_passed(), "lines": lines, "warnings": self.warnings, "figures": self.figures,
                })
            );
        }
    }
}

fn number(row: &Value, name: &str) -> u64 {
    row.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn with_status(failures: &[Value], status: u64) -> Vec<String> {
    failures.iter().filter(|row| number(row, "status") == status).map(Value::to_string).collect()
}

/// Operations for which a server refused the nonce that it had just given out.
fn nonces_refused(failures: &[Value]) -> Vec<String> {
    [with_status(failures, 400), with_status(failures, 401)].concat()
}

/// The panics that the logs tell of, and those that were only counted.
fn panics(run: &Run) -> Vec<String> {
    let mut found = run.logs.panics.clone();
    let counted: f64 = metrics::totals(&run.samples, metrics::PANICS).values().sum();
    if counted > 0.0 && found.is_empty() {
        found.push(format!("{}: {counted}, and none is in the logs", metrics::PANICS));
    }
    found
}

/// The failed requests that ran in a window, if only for a moment.
fn failed_in(failures: &[Value], window: &Window) -> Vec<String> {
    failures
        .iter()
        // A nonce that was refused has a line of its own.
        .filter(|row| number(row, "status") == 0 || number(row, "status") >= 500)
        .filter(|row| number(row, "began") <= window.to && number(row, "ended") >= window.from)
        // A later fault broke it, or an earlier one from which its operation still suffers.
        .filter(|row| number(row, "began") <= window.done || number(row, "ended") <= window.to)
        .filter(|row| number(row, "attempt") <= 1 || number(row, "since") >= window.from)
        .filter(|row| may_not_fail(row, window.whose))
        .map(Value::to_string)
        .collect()
}

fn may_not_fail(row: &Value, whose: Whose) -> bool {
    let text = |name: &str| row.get(name).and_then(Value::as_str);
    match whose {
        Whose::Everyone => true,
        Whose::NotOf(away) => text("host").is_some_and(|host| host != away),
        Whose::PostsAndRefreshes => text("op").is_some_and(|op| {
            ["post", "read", "session", "refresh"]
                .iter()
                .any(|kind| op == *kind || op.ends_with(&format!("-{kind}")))
        }),
    }
}

/// The sessions of linked accounts at their own PDS. Nobody signs out there, so none may end, and
/// they must have been refreshed.
fn linked_sessions(run: &Run) -> Line {
    let outcomes = metrics::totals(&run.samples, metrics::LINK_REFRESHES);
    let of = |outcome: &str| outcomes.get(&format!("{{outcome=\"{outcome}\"}}")).copied().unwrap_or(0.0);
    let mut found: Vec<String> = ["gone", "misconfigured"]
        .into_iter()
        .filter(|outcome| of(outcome) > 0.0)
        .map(|outcome| format!("{} refreshes ended with {outcome}", of(outcome)))
        .collect();
    let least = if run.length >= WHOLE { 20.0 } else { 1.0 };
    if of("rotated") < least {
        found.push(format!("{} sessions were refreshed at their PDS, which proves nothing", of("rotated")));
    }
    let all: Vec<String> = outcomes.iter().map(|(labels, count)| format!("{count} {labels}")).collect();
    Line {
        what: "linked sessions that are not refreshed at their PDS".to_owned(),
        found,
        detail: all.join(", "),
    }
}

fn grown(run: &Run) -> Line {
    let growth = memory::growth(&run.samples);
    let mut found: Vec<String> =
        growth.iter().filter(|growth| !growth.is_flat()).map(Growth::describe).collect();
    let detail = if growth.is_empty() {
        "not judged: no process lived long enough".to_owned()
    } else {
        growth.iter().map(Growth::describe).collect::<Vec<_>>().join("; ")
    };
    if growth.is_empty() && run.length >= WHOLE {
        found.push("no process was measured for long enough".to_owned());
    }
    Line { what: "replicas whose memory grew".to_owned(), found, detail }
}

/// A run that did too little proves nothing.
fn reasons_to_distrust(checked: &Checked, run: &Run) -> Vec<String> {
    let (least, least_in_a_window) = if run.length >= WHOLE { (ENOUGH, ENOUGH_IN_A_WINDOW) } else { (1, 1) };
    let counts = run.figures.get("counts").cloned().unwrap_or_default();
    let good = |op: &str| number(&counts, &format!("{op} 200"));
    let operations = OPERATIONS.into_iter().map(|op| (format!("answers of 200 to {op}"), good(op), least));
    let looked_at = CHECKED
        .into_iter()
        .map(|kind| (format!("{kind} that were checked"), number(&checked.totals, kind), least.min(10)));
    let windows = run
        .timeline
        .windows
        .iter()
        .map(|window| (format!("answers during the {}", window.name), window.answers, least_in_a_window));
    let samples = [("measurements of replicas".to_owned(), run.samples.len() as u64, least_in_a_window)];
    operations
        .chain(looked_at)
        .chain(windows)
        .chain(samples)
        .filter(|(_, count, least)| count < least)
        .map(|(what, count, least)| format!("{what}: {count} instead of {least} or more"))
        .collect()
}

fn warnings(run: &Run) -> Vec<String> {
    let is_equal = run.logs.steps == 0;
    let text = "the newer Genkan added no step to the older one's schema, so this rolling upgrade tried no \
                change of the schema: see --from";
    is_equal.then(|| text.to_owned()).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn failure(began: u64, ended: u64, status: u16) -> Value {
        json!({ "began": began, "ended": ended, "status": status, "op": "post" })
    }

    /// A good run of half an hour.
    fn good() -> Run {
        let counts: BTreeMap<String, u64> = OPERATIONS.iter().map(|op| (format!("{op} 200"), 20)).collect();
        let window = Window {
            name: "rolling restart",
            whose: Whose::Everyone,
            from: 1000,
            done: 1900,
            to: 2000,
            answers: 50,
        };
        Run {
            timeline: Timeline { windows: vec![window], ..Timeline::default() },
            samples: (0..900).map(|index| sample(index, 1e8)).collect(),
            figures: json!({ "operations": 5, "counts": counts }),
            logs: Logs { steps: 1, ..Logs::default() },
            length: Duration::from_mins(30),
        }
    }

    fn sample(index: u32, bytes: f64) -> Sample {
        let figures = [(metrics::MEMORY, bytes), ("genkan_link_refreshes_total{outcome=\"rotated\"}", 20.0)];
        Sample {
            replica: "genkan-1".to_owned(),
            at: Duration::from_secs(2) * index,
            figures: figures.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    fn checked() -> Checked {
        let totals: BTreeMap<&str, u64> = CHECKED.iter().map(|kind| (*kind, 10)).collect();
        Checked { totals: json!(totals), ..Checked::default() }
    }

    fn passes(failures: &[Value], run: Run) -> bool {
        Verdict::judge(&checked(), failures, run).is_passed()
    }

    /// Whether a good run passes after a change.
    fn passes_after(change: impl FnOnce(&mut Run)) -> bool {
        let mut run = good();
        change(&mut run);
        passes(&[], run)
    }

    #[test]
    fn each_kind_of_loss_fails_the_run() {
        assert!(passes(&[], good()));
        let found = || vec!["something".to_owned()];
        for checked in [
            Checked { lost: found(), ..checked() },
            Checked { logged_out: found(), ..checked() },
            Checked { refused: found(), ..checked() },
            Checked { totals: json!({}), ..checked() },
        ] {
            assert!(!Verdict::judge(&checked, &[], good()).is_passed(), "{checked:?}");
        }
    }

    #[test]
    fn a_failed_request_counts_within_a_window_only() {
        let passes = |failures: &[Value]| passes(failures, good());
        assert!(passes(&[failure(100, 999, 503), failure(2001, 2100, 0)]));
        assert!(!passes(&[failure(100, 1000, 503)]));
        assert!(!passes(&[failure(1900, 5000, 0)]), "it hung for long");
        assert!(passes(&[failure(1950, 5000, 0)]), "a later fault broke it");
        assert!(!passes(&[failure(1200, 1300, 502)]));
        assert!(!passes(&[failure(5000, 5100, 500)]), "500 counts always");
        assert!(!passes(&[failure(5000, 5100, 429)]), "429 counts always");
        let again = |since: u64| {
            let mut row = failure(1200, 1300, 503);
            row["attempt"] = 3.into();
            row["since"] = since.into();
            row
        };
        assert!(passes(&[again(999)]), "it failed before the window");
        assert!(!passes(&[again(1000)]));
    }

    #[test]
    fn a_window_may_be_for_some_requests_only() {
        let passes = |whose: Whose, row: Value| {
            let mut run = good();
            run.timeline.windows[0].whose = whose;
            passes(&[row], run)
        };
        let row = |host: Option<&str>, op: &str| json!({ "began": 1200, "ended": 1300, "status": 502, "op": op, "host": host });
        assert!(passes(Whose::NotOf("oak"), row(Some("oak"), "post")));
        assert!(passes(Whose::NotOf("oak"), row(None, "sign-up")));
        assert!(!passes(Whose::NotOf("oak"), row(Some("elm"), "rename")));
        assert!(passes(Whose::PostsAndRefreshes, row(Some("elm"), "rename")));
        assert!(!passes(Whose::PostsAndRefreshes, row(Some("elm"), "oauth-post")));
        assert!(!passes(Whose::PostsAndRefreshes, row(None, "refresh")));
    }

    #[test]
    fn what_replicas_tell_of_themselves_counts() {
        assert!(!passes_after(|run| run.logs.panics.push("a panic".to_owned())));
        assert!(!passes_after(|run| run.logs.internal_errors.push("a 500".to_owned())));
        assert!(!passes_after(|run| run.timeline.troubles.push("genkan-1 died".to_owned())));
        let tell = |run: &mut Run, series: &str, value: f64| {
            run.samples.last_mut().unwrap().figures.insert(series.to_owned(), value);
        };
        assert!(!passes_after(|run| tell(run, "genkan_panics_total", 1.0)));
        assert!(!passes_after(|run| tell(run, "genkan_link_refreshes_total{outcome=\"gone\"}", 1.0)));
        assert!(passes_after(|run| tell(run, "genkan_link_refreshes_total{outcome=\"transient\"}", 1.0)));
    }

    #[test]
    fn a_run_that_did_too_little_proves_nothing() {
        assert!(!passes_after(|run| run.samples.clear()), "nothing was measured");
        assert!(!passes_after(|run| run.samples.truncate(60)), "no process lived long enough");
        assert!(!passes_after(|run| run.timeline.windows[0].answers = 49));
        assert!(!passes_after(|run| run.figures["counts"]["rename 200"] = 19.into()));
        let idle = |run: &mut Run| {
            for sample in &mut run.samples {
                sample.figures.retain(|series, _| !series.contains("refreshes"));
            }
        };
        assert!(!passes_after(idle), "no linked session was refreshed");
        let judged = |steps: usize| {
            let logs = Logs { steps, ..Logs::default() };
            Verdict::judge(&checked(), &[], Run { logs, ..good() }).warnings.len()
        };
        assert_eq!((judged(0), judged(1)), (1, 0));
    }

    #[test]
    fn a_short_run_needs_less() {
        let shorter = |run: &mut Run| {
            run.length = Duration::from_mins(2);
            run.samples.truncate(60);
            run.figures["counts"]["rename 200"] = 1.into();
        };
        assert!(passes_after(shorter));
    }
}
