//! The stages in their order. Those that fail fast come first.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::outcome::Counts;
use super::stories::{self, Variant};
use super::{CHECKS_OF_STATEMENTS, tee};
use crate::network::genkan;
use crate::provision::{cargo_tools, faketime, pgbouncer, postgres::Postgres};
use crate::say::line;
use crate::workspace::{self, cargo};

/// One step of `cargo verify`.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) run: fn() -> Result<Counts>,
}

/// The option of `cargo verify` that a stage belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Runs always.
    Quick,
    /// Runs with `--quick` only: a smaller form of a stage that runs otherwise.
    QuickOnly,
    /// Runs without `--quick`.
    Rust,
    /// Runs without `--quick` and `--rust-only`.
    Network,
}

pub(super) fn all() -> Vec<Stage> {
    let stage = |name, kind, run| Stage { name, kind, run };
    vec![
        stage("format", Kind::Quick, format),
        stage("lints", Kind::Quick, lints),
        stage("tests on SQLite", Kind::QuickOnly, tests_on_sqlite),
        stage("tests on SQLite and PostgreSQL", Kind::Rust, tests_on_both),
        stage("statements on large tables", Kind::Rust, statements),
        stage("fuzz corpus", Kind::Rust, fuzz_corpus),
        stage("examples in documentation", Kind::Rust, documented_examples),
        stage("documentation", Kind::Rust, documentation),
        stage("dependencies", Kind::Rust, dependencies),
        stage("generated documents", Kind::Rust, generated_documents),
        stage("real network, SQLite", Kind::Network, network_on_sqlite),
        stage("real network, PostgreSQL", Kind::Network, network_on_postgres),
        stage("demo", Kind::Network, demo),
    ]
}

fn format() -> Result<Counts> {
    tee::run(cargo().args(["fmt", "--all", "--check"]))
}

fn lints() -> Result<Counts> {
    tee::run(cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]))
}

fn tests_on_sqlite() -> Result<Counts> {
    tee::run(&mut tests(false))
}

/// Tests that need PostgreSQL carry `#[ignore = "needs GENKAN_TEST_POSTGRES"]`, as all ignored
/// tests do. They run together with the others, since many tests wait more than they compute.
fn tests_on_both() -> Result<Counts> {
    let postgres = Postgres::start_with_statements()?;
    // The next stage must not find the statements of an earlier run.
    fs::create_dir_all(workspace::target().join("verify"))?;
    fs::write(executed_statements(), "")?;
    let mut tests = tests(true);
    tests.env("GENKAN_TEST_POSTGRES", postgres.url());
    tests.env("GENKAN_TEST_FAKETIME", faketime::library()?);
    tests.env("GENKAN_TEST_PGBOUNCER", pgbouncer::pgbouncer()?);
    let counts = tee::run(&mut tests)?;
    let executed: Vec<String> = postgres.statements()?.into_iter().collect();
    fs::write(executed_statements(), executed.join("\0"))?;
    Ok(counts)
}

/// Checks the statements that the tests executed: each one of the source is among them, and reads
/// tables of 100 000 rows by an index.
fn statements() -> Result<Counts> {
    let executed = executed_statements();
    anyhow::ensure!(
        executed.exists(),
        "no statements were recorded: the stage \"tests on SQLite and PostgreSQL\" comes first"
    );
    let postgres = Postgres::start()?;
    let mut check = cargo();
    check.args(["test", "--workspace", "--lib", "--quiet", "--", "--ignored", CHECKS_OF_STATEMENTS]);
    check.env("GENKAN_TEST_POSTGRES", postgres.url()).env("GENKAN_TEST_STATEMENTS", executed);
    let counts = tee::run(&mut check)?;
    anyhow::ensure!(counts.passed + counts.failed > 0, "no check named {CHECKS_OF_STATEMENTS} exists");
    Ok(counts)
}

/// The texts that the tests executed on PostgreSQL, with a zero byte between them.
fn executed_statements() -> PathBuf {
    workspace::target().join("verify/statements")
}

fn tests(with_ignored: bool) -> Command {
    // A slower run is better than none: the verdict is the same.
    let Some(nextest) = cargo_tools::cargo_nextest() else {
        line("cargo-nextest cannot be had: `cargo test` runs the same tests, slower");
        let mut tests = cargo();
        tests.args(["test", "--workspace", "--no-fail-fast", "--all-targets", "--quiet"]);
        if with_ignored {
            tests.args(["--", "--include-ignored", "--skip", CHECKS_OF_STATEMENTS]);
        }
        return tests;
    };
    let mut tests = Command::new(nextest);
    tests.current_dir(workspace::root());
    // All failures in one run, so that no second run is needed to see the rest.
    tests.args(["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests=pass"]);
    tests.args(["--status-level=slow", "--final-status-level=slow", "--hide-progress-bar"]);
    tests.args(["--run-ignored", if with_ignored { "all" } else { "default" }]);
    tests.args(["-E", &format!("not test({CHECKS_OF_STATEMENTS})")]);
    tests
}

/// Replays the corpus of all fuzz targets, and mutations of it, for 30 seconds in all.
fn fuzz_corpus() -> Result<Counts> {
    tee::run(Command::new(genkan::build_fuzz_replay_beside_tests()?).arg("30"))
}

fn documented_examples() -> Result<Counts> {
    tee::run(cargo().args(["test", "--workspace", "--doc", "--quiet"]))
}

fn documentation() -> Result<Counts> {
    tee::run(
        cargo().args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "--deny warnings"),
    )
}

fn dependencies() -> Result<Counts> {
    let mut deny = Command::new(cargo_tools::cargo_deny()?);
    deny.args(["--all-features", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    tee::run(deny.current_dir(workspace::root()))
}

/// Compares the documents that Genkan prints about itself with those in the clone.
fn generated_documents() -> Result<Counts> {
    let binary = genkan::build_beside_tests()?;
    let mut counts = Counts::default();
    for name in ["configuration", "routing"] {
        let file = workspace::root().join("docs").join(format!("{name}.md"));
        let printed = crate::command::run(Command::new(&binary).args(["docs", name]))?;
        // Compared and not written: a stage must not change the clone.
        let same = fs::read_to_string(&file).is_ok_and(|kept| kept == printed);
        if !same {
            line(&format!("docs/{name}.md is stale or missing: genkan docs {name} > docs/{name}.md"));
        }
        counts = counts.and(Counts::one(same));
    }
    Ok(counts)
}

fn network_on_sqlite() -> Result<Counts> {
    network(&Variant { name: "sqlite", postgres: false, dev_mode: true, filter: String::new(), binary: None })
}

fn network_on_postgres() -> Result<Counts> {
    network(&Variant {
        name: "postgres",
        postgres: true,
        dev_mode: false,
        filter: String::new(),
        binary: None,
    })
}

fn network(variant: &Variant) -> Result<Counts> {
    let postgres = variant.postgres.then(Postgres::start).transpose()?;
    stories::run(variant, postgres.as_ref())
}

/// Starts the demo from empty data several times, and once more on what the last start kept. The
/// data lies apart from a developer's own demo.
fn demo() -> Result<Counts> {
    let binary = genkan::build_beside_tests()?;
    let run = |more: &[&str]| {
        let mut demo = Command::new(workspace::ourselves()?);
        demo.args(["demo", "--stop-when-ready", "--data"])
            .arg(workspace::target().join("verify/demo"))
            .arg("--genkan-binary")
            .arg(&binary)
            .args(more);
        tee::run(&mut demo)
    };
    // A race between the sign-up and what the server knows of its hosts fails only sometimes.
    let mut counts = Counts::default();
    for _ in 0..FRESH_STARTS {
        counts = counts.and(run(&["--fresh"])?);
    }
    Ok(counts.and(run(&[])?))
}

const FRESH_STARTS: usize = 3;
