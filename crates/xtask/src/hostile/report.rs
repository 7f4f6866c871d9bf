//! What the victim saw, and whether it is bad enough.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How much slower the slowest percent of the victim's calls may get.
const SLOWER_AT_MOST: f64 = 2.0;
/// Fewer calls than this have no 99th percentile that could be judged.
const ENOUGH: usize = 400;
/// The most failures that are printed of one kind of call.
const EXAMPLES: usize = 2;

/// The victim's calls in one measurement.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Figures {
    create_record: Calls,
    refresh_session: Calls,
    linked: Calls,
    sign_in: Calls,
}

/// The victim's calls of one kind. Times are in milliseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Calls {
    #[serde(rename = "calls")]
    count: usize,
    failures: Vec<String>,
    /// Missing if there was no call.
    p50: Option<f64>,
    p99: Option<f64>,
}

/// The attacker's own accounts, which were to be deleted without a right to it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Survivors {
    pub(super) checked: usize,
    pub(super) deleted: Vec<String>,
}

/// One attack, or all of a role, beside harmless load.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) role: String,
    pub(super) name: String,
    pub(super) harmless: Figures,
    pub(super) harmful: Figures,
    /// How the attacker's requests were answered.
    pub(super) answers: Value,
}

impl Figures {
    fn kinds(&self) -> [(&'static str, &Calls); 4] {
        [
            ("createRecord", &self.create_record),
            ("refreshSession", &self.refresh_session),
            ("linked", &self.linked),
            ("signIn", &self.sign_in),
        ]
    }
}

impl Row {
    fn failures(&self) -> usize {
        self.harmful.kinds().iter().map(|(_, calls)| calls.failures.len()).sum()
    }

    /// Returns some failures of each kind of call, under attack and under harmless load.
    fn examples(&self) -> Vec<String> {
        let of = |(kind, calls): (&str, &Calls)| {
            calls
                .failures
                .iter()
                .take(EXAMPLES)
                .map(|failure| format!("{kind}: {failure}"))
                .collect::<Vec<_>>()
        };
        let harmless =
            self.harmless.kinds().into_iter().flat_map(of).map(|text| format!("harmless load: {text}"));
        self.harmful.kinds().into_iter().flat_map(of).chain(harmless).collect()
    }

    /// Returns why the row fails, in a few words each.
    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for ((kind, before), (_, under)) in self.harmless.kinds().into_iter().zip(self.harmful.kinds()) {
            if !under.failures.is_empty() {
                complaints.push(format!("{} of {} {kind} failed", under.failures.len(), under.count));
            }
            // A victim whose loop stands still has no failures. In a short measurement it may not
            // sign in at all.
            if under.count == 0 && kind != "signIn" {
                complaints.push(format!("no {kind} ended"));
            }
            let is_enough = before.count.min(under.count) >= ENOUGH;
            if is_enough && ratio(before, under).is_none_or(|ratio| ratio > SLOWER_AT_MOST) {
                complaints.push(format!("p99 of {kind} is {}", show(ratio(before, under))));
            }
            // Harmless load must not fail either, or there is nothing to compare with.
            if !before.failures.is_empty() {
                complaints.push(format!("{} {kind} failed under harmless load", before.failures.len()));
            }
        }
        complaints
    }

    fn is_passed(&self) -> bool {
        self.complaints().is_empty()
    }

    /// One line with the figures of all kinds.
    pub(super) fn summary(&self) -> String {
        let mut text = format!("{:<9} {:<40}", self.role, self.name);
        for ((_, before), (_, under)) in self.harmless.kinds().into_iter().zip(self.harmful.kinds()) {
            let time = |time: Option<f64>| time.map_or_else(|| "–".to_owned(), |time| format!("{time:.0}"));
            // Writing to a string never fails.
            let _ = write!(
                text,
                "  {:>4}/{:<4} {:>5}/{:<5} {:<6}",
                time(before.p50),
                time(under.p50),
                time(before.p99),
                time(under.p99),
                show(ratio(before, under))
            );
        }
        format!("{text} {:>4}", self.failures())
    }
}

/// Returns how many times slower the slowest percent became.
fn ratio(before: &Calls, under: &Calls) -> Option<f64> {
    Some(under.p99? / before.p99?)
}

fn show(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("×{ratio:.2}"))
}

/// Prints all rows. Returns whether no attack reached the victim.
pub(super) fn print(rows: &[Row], survivors: &Survivors, json: bool) -> bool {
    println!(
        "\nThe victim's calls: milliseconds under harmless load / under attack, median and p99; failures."
    );
    let kinds = ["createRecord", "refreshSession", "linked call", "createSession"];
    println!("{:<50}{}", "", kinds.map(|kind| format!("  {kind:<29}")).concat());
    for row in rows {
        println!("{}  {}", row.summary(), if row.is_passed() { "ok" } else { "FAILED" });
        for complaint in row.complaints() {
            println!("            {complaint}");
        }
        for failure in row.examples() {
            println!("            {failure}");
        }
        println!("            the attacker's answers: {}", row.answers);
    }
    if survivors.checked > 0 {
        let Survivors { checked, deleted } = survivors;
        println!("accounts deleted by those who may not: {} of {checked}", deleted.len());
        for account in deleted {
            println!("            {account}");
        }
    }
    let is_passed = rows.iter().all(Row::is_passed) && survivors.deleted.is_empty();
    if json {
        println!("{}", json!({ "passed": is_passed, "rows": rows, "survivors": survivors }));
    }
    is_passed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(count: usize, failures: usize, p99: f64) -> Calls {
        Calls { count, failures: vec!["503".to_owned(); failures], p50: Some(p99 / 2.0), p99: Some(p99) }
    }

    fn figures(create_record: Calls) -> Figures {
        let other = calls(500, 0, 10.0);
        Figures { create_record, refresh_session: other.clone(), linked: other, sign_in: calls(2, 0, 90.0) }
    }

    fn passes(before: Calls, under: Calls) -> bool {
        let (harmless, harmful) = (figures(before), figures(under));
        Row { role: String::new(), name: String::new(), harmless, harmful, answers: Value::Null }.is_passed()
    }

    #[test]
    fn a_failed_sign_in_fails_the_trial_and_a_missing_one_does_not() {
        let passes = |sign_in: Calls| {
            let harmful = Figures { sign_in, ..figures(calls(500, 0, 10.0)) };
            let harmless = figures(calls(500, 0, 10.0));
            Row { role: String::new(), name: String::new(), harmless, harmful, answers: Value::Null }
                .is_passed()
        };
        assert!(passes(Calls::default()));
        assert!(passes(calls(2, 0, 900.0)), "too few for a p99");
        assert!(!passes(calls(2, 1, 90.0)));
    }

    #[test]
    fn a_failure_or_a_slower_call_fails_the_trial() {
        assert!(passes(calls(500, 0, 10.0), calls(500, 0, 20.0)));
        assert!(!passes(calls(500, 0, 10.0), calls(500, 0, 20.1)), "more than twice as slow");
        assert!(!passes(calls(500, 0, 10.0), calls(500, 1, 10.0)), "a failure");
        assert!(!passes(calls(500, 1, 10.0), calls(500, 0, 10.0)), "nothing to compare with");
        assert!(!passes(calls(500, 0, 10.0), Calls::default()), "a victim that stands still");
        assert!(passes(calls(20, 0, 10.0), calls(20, 0, 100.0)), "too few calls for a p99");
    }
}
