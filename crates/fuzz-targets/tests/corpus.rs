//! The corpus that is in the repository, and the binaries that `libFuzzer` runs.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use genkan_fuzz_targets::{TARGETS, replay};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(name)
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_input_of_the_corpus_holds() {
    for target in TARGETS {
        let corpus = replay::corpus(&folder("corpus"), target).unwrap();
        let replay = replay::replay(target, &corpus, Duration::ZERO);
        assert_eq!((replay.inputs, replay.failure), (corpus.len(), None), "{}", target.name);
    }
}

#[test]
fn every_target_has_a_binary_and_a_corpus() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names.len(), TARGETS.len(), "a name stands twice");
    assert_eq!(names_in(&folder("fuzz_targets")), names);
    assert_eq!(names_in(&folder("corpus")), names);
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for target in TARGETS {
        let binary = fs::read_to_string(folder("fuzz_targets").join(format!("{}.rs", target.name))).unwrap();
        assert!(binary.contains(&format!("genkan_fuzz_targets::{}", target_path(target.name))), "{binary}");
        assert!(manifest.contains(&format!("name = \"{}\"\npath", target.name)), "{}", target.name);
    }
}

/// The path of a target's function, read from the table.
fn target_path(name: &str) -> String {
    let table = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let row = table.lines().find(|line| line.contains(&format!("name: \"{name}\""))).unwrap();
    row.split_once("run: ").unwrap().1.trim_end_matches(" },").to_owned()
}
