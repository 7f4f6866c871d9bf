//! What the victim saw, and whether it is bad enough.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::arrival::Told;
use super::machine::Cost;

/// How much slower the slowest percent of the victim's calls may get.
const SLOWER_AT_MOST: f64 = 2.0;
/// Fewer calls than this have no 99th percentile that could be judged.
const ENOUGH: usize = 400;
/// Fewer calls than this say nothing about how many there should be.
const SOME: usize = 10;
/// Sign-ins are too rare for a 99th percentile.
const RARE: &str = "signIn";
/// Anybody may make these calls. Genkan does not promise them under attack, so they are only told.
const TOLD: &str = "ownReads";
/// The most failures that are printed of one kind of call.
const EXAMPLES: usize = 2;

/// The victim's calls in one measurement.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Figures {
    create_record: Calls,
    refresh_session: Calls,
    linked: Calls,
    own_reads: Calls,
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

/// Harmless load, or an attack.
#[derive(Debug, Default, Serialize)]
pub(super) struct Half {
    pub(super) victim: Figures,
    /// How the attacker's requests were answered.
    pub(super) told: Told,
    pub(super) cost: Cost,
}

/// One attack, or all of a role, beside harmless load of the same length.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) role: String,
    pub(super) name: String,
    /// Whether there must be enough calls for a 99th percentile.
    pub(super) is_long: bool,
    pub(super) harmless: Half,
    pub(super) harmful: Half,
}

impl Figures {
    fn kinds(&self) -> [(&'static str, &Calls); 5] {
        [
            ("createRecord", &self.create_record),
            ("refreshSession", &self.refresh_session),
            ("linked", &self.linked),
            (TOLD, &self.own_reads),
            ("signIn", &self.sign_in),
        ]
    }
}

impl Row {
    /// The kinds of calls under harmless load and under attack.
    fn kinds(&self) -> impl Iterator<Item = (&'static str, &Calls, &Calls)> {
        let pairs = self.harmless.victim.kinds().into_iter().zip(self.harmful.victim.kinds());
        pairs.map(|((kind, before), (_, under))| (kind, before, under))
    }

    fn failures(&self) -> usize {
        self.kinds().map(|(_, _, under)| under.failures.len()).sum()
    }

    /// Returns some failures of each kind of call, under attack and under harmless load.
    fn examples(&self) -> Vec<String> {
        let of = |(kind, calls): (&str, &Calls)| {
            let some = calls.failures.iter().take(EXAMPLES);
            some.map(|failure| format!("{kind}: {failure}")).collect::<Vec<_>>()
        };
        let harmless = self.harmless.victim.kinds().into_iter().flat_map(of);
        let harmful = self.harmful.victim.kinds().into_iter().flat_map(of);
        harmful.chain(harmless.map(|text| format!("harmless load: {text}"))).collect()
    }

    /// Returns why the row fails, in a few words each.
    fn complaints(&self) -> Vec<String> {
        let judged = self.kinds().filter(|(kind, ..)| *kind != TOLD);
        let of_calls = judged.flat_map(|(kind, before, under)| self.judge(kind, before, under));
        let harmless =
            self.harmless.told.complaints().into_iter().map(|text| format!("harmless load: {text}"));
        let harmful = self.harmful.told.complaints().into_iter().chain(self.harmful.cost.complaints());
        of_calls.chain(harmful).chain(harmless).collect()
    }

    /// Returns why calls of one kind fail the row.
    fn judge(&self, kind: &str, before: &Calls, under: &Calls) -> Vec<String> {
        let mut complaints = Vec::new();
        if !under.failures.is_empty() {
            complaints.push(format!("{} of {} {kind} failed", under.failures.len(), under.count));
        }
        // Harmless load must not fail either, or there is nothing to compare with.
        if !before.failures.is_empty() {
            complaints.push(format!("{} {kind} failed under harmless load", before.failures.len()));
        }
        // A victim that waits has no failures. In a short measurement it may not sign in at all.
        let is_rare = kind == RARE && before.count < SOME;
        if !is_rare && (under.count == 0 || under.count * 2 < before.count) {
            complaints.push(format!("{} {kind} instead of {}", under.count, before.count));
        }
        if before.count < ENOUGH {
            if self.is_long && kind != RARE {
                complaints.push(format!("p99 of {kind} cannot be judged by {} calls", before.count));
            }
        } else if ratio(before, under).is_none_or(|ratio| ratio > SLOWER_AT_MOST) {
            complaints.push(format!("p99 of {kind} is {}", show(ratio(before, under))));
        }
        complaints
    }

    fn is_passed(&self) -> bool {
        self.complaints().is_empty()
    }

    /// One line with the figures of all kinds.
    pub(super) fn summary(&self) -> String {
        let mut text = format!("{:<9} {:<40}", self.role, self.name);
        for (_, before, under) in self.kinds() {
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
    let kinds = ["createRecord", "refreshSession", "linked call", "own reads", "createSession"];
    println!("{:<50}{}", "", kinds.map(|kind| format!("  {kind:<29}")).concat());
    for row in rows {
        println!("{}  {}", row.summary(), if row.is_passed() { "ok" } else { "FAILED" });
        for complaint in row.complaints() {
            println!("            {complaint}");
        }
        for failure in row.examples() {
            println!("            {failure}");
        }
        for (what, half) in [("harmless load", &row.harmless), ("attack", &row.harmful)] {
            println!("            {what}: Genkan's {}", half.cost.summary());
            for told in half.told.lines() {
                println!("              {told}");
            }
        }
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

    fn half(create_record: Calls) -> Half {
        let other = calls(500, 0, 10.0);
        let (refresh_session, linked, own_reads) = (other.clone(), other.clone(), other);
        let victim =
            Figures { create_record, refresh_session, linked, own_reads, sign_in: calls(2, 0, 90.0) };
        Half { victim, ..Half::default() }
    }

    fn row(harmless: Half, harmful: Half) -> Row {
        Row { role: String::new(), name: String::new(), is_long: false, harmless, harmful }
    }

    fn passes(before: Calls, under: Calls) -> bool {
        row(half(before), half(under)).is_passed()
    }

    #[test]
    fn a_failed_sign_in_fails_the_trial_and_a_missing_one_does_not() {
        let passes = |sign_in: Calls| {
            let mut harmful = half(calls(500, 0, 10.0));
            harmful.victim.sign_in = sign_in;
            row(half(calls(500, 0, 10.0)), harmful).is_passed()
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
    }

    #[test]
    fn a_victim_that_gets_through_less_than_half_of_its_calls_fails_the_trial() {
        assert!(passes(calls(500, 0, 10.0), calls(250, 0, 20.0)));
        assert!(!passes(calls(500, 0, 10.0), calls(249, 0, 20.0)));
        assert!(!passes(calls(500, 0, 10.0), calls(300, 0, 20.1)), "also slower, by fewer calls");
        assert!(passes(calls(20, 0, 10.0), calls(20, 0, 100.0)), "too few calls for a p99");
        assert!(!passes(calls(20, 0, 10.0), calls(9, 0, 10.0)));
    }

    #[test]
    fn a_long_row_needs_enough_calls() {
        let of =
            |count| Row { is_long: true, ..row(half(calls(count, 0, 10.0)), half(calls(count, 0, 10.0))) };
        assert!(of(400).is_passed());
        assert_eq!(of(399).complaints(), ["p99 of createRecord cannot be judged by 399 calls"]);
    }

    #[test]
    fn an_attack_that_did_not_arrive_and_one_that_costs_memory_fail_the_trial() {
        let told = |count: usize| {
            let rules = json!([{ "any": ["502"], "perMinute": 10 }]);
            let attacks = json!({ "x": { "answers": { "502": count }, "rules": rules } });
            serde_json::from_value(json!({ "seconds": 60, "unfinished": 0, "attacks": attacks })).unwrap()
        };
        let fine = || half(calls(500, 0, 10.0));
        assert!(row(Half { told: told(10), ..fine() }, fine()).is_passed());
        assert!(!row(Half { told: told(9), ..fine() }, fine()).is_passed(), "the harmless load");
        assert!(!row(fine(), Half { told: told(9), ..fine() }).is_passed(), "the attack");
        let cost = Cost { most_resident: 1 << 30, ..Cost::default() };
        assert!(!row(fine(), Half { cost, ..fine() }).is_passed());
    }
}
