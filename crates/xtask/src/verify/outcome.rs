//! Results of the stages, and the table at the end.

use std::process::ExitCode;
use std::time::Duration;

use crate::say::{paint, seconds};

/// The result of one stage.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) name: &'static str,
    pub(super) took: Duration,
    pub(super) ended: StageEnd,
}

/// The end of a stage.
///
/// No variant says that a program is missing: a stage that cannot get what it needs has failed.
#[derive(Debug)]
pub(super) enum StageEnd {
    Ran(Counts),
    /// Never started, since an earlier stage failed.
    NotReached,
}

/// Numbers of checks by their result.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    /// Checks that a test runner left out. They count as failures: a check that does not run
    /// anywhere protects nothing.
    pub(super) skipped: usize,
}

impl Counts {
    pub(super) fn one(succeeded: bool) -> Self {
        Self { passed: usize::from(succeeded), failed: usize::from(!succeeded), skipped: 0 }
    }

    pub(super) fn has_failed(self) -> bool {
        self.failed > 0 || self.skipped > 0
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl Outcome {
    pub(super) fn has_failed(&self) -> bool {
        self.counts().has_failed()
    }

    /// The counts of a stage that ran. A stage that was not reached has none.
    fn counts(&self) -> Counts {
        match self.ended {
            StageEnd::Ran(counts) => counts,
            StageEnd::NotReached => Counts::default(),
        }
    }

    /// The sign and the words that the table has for this stage.
    fn verdict(&self) -> (String, String) {
        match self.ended {
            StageEnd::NotReached => (paint("33", "–"), "not run: an earlier stage failed".to_owned()),
            StageEnd::Ran(counts) if counts.has_failed() => {
                let Counts { passed, failed, skipped } = counts;
                (paint("31", "✗"), format!("{passed} passed, {failed} failed, {skipped} skipped"))
            }
            StageEnd::Ran(Counts { passed, .. }) => (paint("32", "✓"), format!("{passed} passed")),
        }
    }
}

/// Prints the table and the closing line. Fails when a stage failed.
pub(super) fn summarize(outcomes: &[Outcome]) -> ExitCode {
    println!();
    for outcome in outcomes {
        let (sign, detail) = outcome.verdict();
        println!("{sign} {:<38}{:>14}   {detail}", outcome.name, seconds(outcome.took));
    }
    let all = outcomes.iter().map(Outcome::counts).fold(Counts::default(), Counts::and);
    let took = outcomes.iter().map(|outcome| outcome.took).sum();
    println!("\nall stages took {}", seconds(took));
    println!("{} passed, {} failed, {} skipped", all.passed, all.failed, all.skipped);
    if all.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ended: StageEnd) -> Outcome {
        Outcome { name: "stage", took: Duration::ZERO, ended }
    }

    #[test]
    fn a_skipped_check_fails_the_stage_and_the_whole() {
        let skipped = [outcome(StageEnd::Ran(Counts { passed: 9, failed: 0, skipped: 1 }))];
        assert!(skipped[0].has_failed());
        assert!(skipped[0].verdict().1.contains("1 skipped"));
        assert_eq!(summarize(&skipped), ExitCode::FAILURE);
        let passed = [outcome(StageEnd::Ran(Counts { passed: 9, ..Counts::default() }))];
        assert_eq!(summarize(&passed), ExitCode::SUCCESS);
    }
}
