//! Replays the corpus of all fuzz targets: `cargo run -p genkan-fuzz-targets [SECONDS [TARGET]]`.
//!
//! The seconds are for all targets together.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use genkan_fuzz_targets::replay::{self, EscapedInput};
use genkan_fuzz_targets::{TARGETS, Target};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(30), |text| text.parse()).context("SECONDS is not a number")?;
    let name = arguments.next();
    let chosen: Vec<&Target> =
        TARGETS.iter().filter(|target| name.as_ref().is_none_or(|name| name == target.name)).collect();
    ensure!(!chosen.is_empty(), "there is no such target");
    let count = u32::try_from(chosen.len())?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut failed = 0;
    for target in chosen {
        let corpus = replay::corpus(&folder, target)?;
        let replay = replay::replay(target, &corpus, Duration::from_secs(seconds) / count);
        println!("{}: {} inputs", target.name, replay.inputs);
        if let Some(input) = replay.failure {
            failed += 1;
            println!("{} fails on {}", target.name, EscapedInput(&input));
        }
    }
    println!("{} passed, {failed} failed", count - failed);
    ensure!(failed == 0, "a fuzz target fails; its input is above");
    Ok(())
}
