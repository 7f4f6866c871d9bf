//! How stages ended, and the table at the end.

use std::process::ExitCode;
use std::time::Duration;

use crate::say::{paint, seconds};

#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) name: &'static str,
    pub(super) took: Duration,
    pub(super) ended: Ended,
}

#[derive(Debug)]
pub(super) enum Ended {
    Ran(Counts),
    /// Something it needs cannot be had here; says what.
    Skipped(String),
}

/// How many checks of a stage ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
}

impl Counts {
    pub(super) fn one(succeeded: bool) -> Self {
        Self { passed: usize::from(succeeded), failed: usize::from(!succeeded), skipped: 0 }
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
        self.counts().failed > 0
    }

    fn counts(&self) -> Counts {
        match self.ended {
            Ended::Ran(counts) => counts,
            Ended::Skipped(_) => Counts { skipped: 1, ..Counts::default() },
        }
    }
}

/// Prints the table and the closing line.
pub(super) fn summarize(outcomes: &[Outcome]) -> ExitCode {
    println!();
    for outcome in outcomes {
        let (sign, detail) = match &outcome.ended {
            Ended::Ran(Counts { passed, failed: 0, skipped: 0 }) => {
                (paint("32", "✓"), format!("{passed} passed"))
            }
            Ended::Ran(Counts { passed, failed: 0, skipped }) => {
                (paint("32", "✓"), format!("{passed} passed, {skipped} skipped"))
            }
            Ended::Ran(Counts { passed, failed, skipped }) => {
                (paint("31", "✗"), format!("{passed} passed, {failed} failed, {skipped} skipped"))
            }
            Ended::Skipped(why) => (paint("33", "–"), format!("skipped: {why}")),
        };
        println!("{sign} {:<38}{:>14}   {detail}", outcome.name, seconds(outcome.took));
    }
    let all = outcomes.iter().map(Outcome::counts).fold(Counts::default(), Counts::and);
    let took = outcomes.iter().map(|outcome| outcome.took).sum();
    println!("\nall stages took {}", seconds(took));
    println!("{} passed, {} failed, {} skipped", all.passed, all.failed, all.skipped);
    if all.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
