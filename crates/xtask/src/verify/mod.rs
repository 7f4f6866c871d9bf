//! `cargo verify`: every check, stage by stage, with a summary at the end.
//!
//! * `stages` lists the stages. Each is a function that returns counts of passed and failed
//!   checks.
//! * [`stories`] runs the stories of the real network, for two of the stages and by itself.
//! * `tee` runs a test runner in the open and counts from its output.
//! * `outcome` has the counts and the table.

mod outcome;
mod stages;
pub mod stories;
mod tee;

use std::process::ExitCode;
use std::thread::spawn;
use std::time::Instant;

use anyhow::Result;

use crate::arguments::Arguments;
use crate::provision::node;
use crate::say::{line, paint};
use outcome::{Counts, Outcome, StageEnd};
use stages::{Kind, Stage};

/// The tests that need the statements which all other tests executed.
pub(crate) const CHECKS_OF_STATEMENTS: &str = "db::statements::check::";

const USAGE: &str = "\
cargo verify [--quick] [--rust-only] [--keep-going] [FILTER]

  Run every check, one stage after the other. A stage fetches the programs it needs, and fails if it
  cannot. A test that is skipped counts as failed.

  --quick        Run formatting, lints, and the Rust tests on SQLite only.
  --rust-only    Leave the stages on the real network out.
  --keep-going   Go on after a stage that failed.
  FILTER         Run only the stages whose name contains FILTER.

Stages:";

pub fn usage() -> String {
    let names = stages::all().into_iter().map(|stage| format!("\n  {}", stage.name));
    format!("{USAGE}{}", names.collect::<String>())
}

pub fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let quick = arguments.flag("--quick");
    let rust_only = arguments.flag("--rust-only");
    let keep_going = arguments.flag("--keep-going");
    let filter = arguments.word().unwrap_or_default();
    arguments.end()?;

    let wanted = |stage: &Stage| {
        let by_kind = match stage.kind {
            Kind::Quick => true,
            Kind::QuickOnly => quick,
            Kind::Rust => !quick,
            Kind::Network => !quick && !rust_only,
        };
        by_kind && stage.name.contains(&filter)
    };
    let stages: Vec<Stage> = stages::all().into_iter().filter(wanted).collect();
    anyhow::ensure!(!stages.is_empty(), "no stage's name contains {filter}\n\n{}", usage());

    if stages.iter().any(|stage| stage.kind == Kind::Network) {
        // Beside the first stages, since it waits for downloads more than it computes. The stage
        // that needs Node tries again after a failure, and reports it.
        spawn(|| drop(node::node()));
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    for stage in stages {
        let failed_before = outcomes.iter().any(Outcome::has_failed);
        let started = Instant::now();
        let ended = if failed_before && !keep_going {
            StageEnd::NotReached
        } else {
            line(&paint("1", &format!("\n━━ {}", stage.name)));
            StageEnd::Ran((stage.run)().unwrap_or_else(|error| {
                line(&format!("error: {error:#}"));
                Counts::one(false)
            }))
        };
        outcomes.push(Outcome { name: stage.name, took: started.elapsed(), ended });
    }
    Ok(outcome::summarize(&outcomes))
}
