//! The stages in their order: what is quick to fail comes first.

use std::fs;
use std::process::Command;

use anyhow::Result;

use super::outcome::{Counts, Ended};
use super::stories::{self, Variant};
use super::tee;
use crate::network::genkan;
use crate::provision::{chromium, node, postgres::Postgres, python};
use crate::say::line;
use crate::workspace::{self, cargo};

#[derive(Debug)]
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) run: fn() -> Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Quick,
    /// Quick's part of what `Rust` does more of.
    Tests,
    Rust,
    Network,
}

pub(super) fn all() -> Vec<Stage> {
    let stage = |name, kind, run| Stage { name, kind, run };
    vec![
        stage("format", Kind::Quick, format),
        stage("lints", Kind::Quick, lints),
        stage("tests on SQLite", Kind::Tests, tests_on_sqlite),
        stage("tests on SQLite and PostgreSQL", Kind::Rust, tests_on_both),
        stage("examples in documentation", Kind::Rust, documented_examples),
        stage("documentation", Kind::Rust, documentation),
        stage("dependencies", Kind::Rust, dependencies),
        stage("generated documents", Kind::Rust, generated_documents),
        stage("real network, SQLite", Kind::Network, network_on_sqlite),
        stage("real network, PostgreSQL", Kind::Network, network_on_postgres),
        stage("demo", Kind::Network, demo),
    ]
}

fn format() -> Ended {
    ran(cargo().args(["fmt", "--all", "--check"]))
}

fn lints() -> Ended {
    ran(cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]))
}

fn tests_on_sqlite() -> Ended {
    ran(&mut tests(false))
}

/// All at once: many wait more than they compute. What needs PostgreSQL carries
/// `#[ignore = "needs GENKAN_TEST_POSTGRES"]`, as all ignored tests do.
fn tests_on_both() -> Ended {
    let postgres = match Postgres::start() {
        Ok(postgres) => postgres,
        Err(missing) => {
            line(&format!("skipped: the SQL tests and stories on PostgreSQL, since {missing:#}"));
            let without = tee::run(&mut tests(false));
            return counted(without.map(|counts| counts.and(Counts { skipped: 1, ..Counts::default() })));
        }
    };
    ran(tests(true).env("GENKAN_TEST_POSTGRES", postgres.url()))
}

fn tests(with_ignored: bool) -> Command {
    let mut tests = cargo();
    if workspace::find_program("cargo-nextest").is_some() {
        tests.args(["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests=pass"]);
        tests.args(["--status-level=slow", "--final-status-level=slow", "--hide-progress-bar"]);
        tests.args(["--run-ignored", if with_ignored { "all" } else { "default" }]);
    } else {
        tests.args(["test", "--workspace", "--no-fail-fast", "--all-targets", "--quiet"]);
        if with_ignored {
            tests.args(["--", "--include-ignored"]);
        }
    }
    tests
}

fn documented_examples() -> Ended {
    ran(cargo().args(["test", "--workspace", "--doc", "--quiet"]))
}

fn documentation() -> Ended {
    ran(cargo().args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "--deny warnings"))
}

fn dependencies() -> Ended {
    if workspace::find_program("cargo-deny").is_none() {
        return Ended::Skipped(
            "cargo-deny is not installed: licenses, sources and bans are unchecked".to_owned(),
        );
    }
    ran(cargo().args(["deny", "--all-features", "check", "bans", "licenses", "sources"]))
}

/// Documents that Genkan prints about itself are what is in the clone.
fn generated_documents() -> Ended {
    let check = || -> Result<Counts> {
        let binary = genkan::build_beside_tests()?;
        let mut counts = Counts::default();
        for name in ["configuration", "routing"] {
            let file = workspace::root().join("docs").join(format!("{name}.md"));
            if !file.exists() {
                line(&format!("there is no docs/{name}.md: unchecked"));
                counts = counts.and(Counts { skipped: 1, ..Counts::default() });
                continue;
            }
            let printed = crate::command::run(Command::new(&binary).args(["docs", name]))?;
            let same = fs::read_to_string(&file).is_ok_and(|kept| kept == printed);
            if !same {
                line(&format!("docs/{name}.md is stale: genkan docs {name} > docs/{name}.md"));
            }
            counts = counts.and(Counts::one(same));
        }
        Ok(counts)
    };
    counted(check())
}

fn network_on_sqlite() -> Ended {
    network(&Variant { name: "sqlite", postgres: false, dev_mode: true, filter: String::new() })
}

fn network_on_postgres() -> Ended {
    network(&Variant { name: "postgres", postgres: true, dev_mode: false, filter: String::new() })
}

fn network(variant: &Variant) -> Ended {
    if let Err(missing) = node::node() {
        return skipped("every story on the real network", &missing);
    }
    let python = match python::python() {
        Ok(python) => Some(python),
        Err(missing) => {
            line(&format!("Python's client cannot be had, its story is skipped: {missing:#}"));
            None
        }
    };
    let chromium = match chromium::chromium() {
        Ok(chromium) => Some(chromium),
        Err(missing) => {
            line(&format!("There is no browser, stories in one are skipped: {missing:#}"));
            None
        }
    };
    let postgres = match variant.postgres.then(Postgres::start).transpose() {
        Ok(postgres) => postgres,
        Err(missing) => return skipped("the stories on PostgreSQL", &missing),
    };
    counted(stories::run(variant, postgres.as_ref(), python.as_deref(), chromium.as_deref()))
}

/// Started, stopped, and started again on what it kept; somewhere else than a developer's own demo.
fn demo() -> Ended {
    if let Err(missing) = node::node() {
        return skipped("the demo", &missing);
    }
    let binary = match genkan::build_beside_tests() {
        Ok(binary) => binary,
        Err(error) => return counted(Err(error)),
    };
    let run = |more: &[&str]| {
        let mut demo = Command::new(workspace::ourselves()?);
        demo.args(["demo", "--stop-when-ready", "--data"])
            .arg(workspace::target().join("verify/demo"))
            .arg("--genkan-binary")
            .arg(&binary)
            .args(more);
        tee::run(&mut demo)
    };
    counted(run(&["--fresh"]).and_then(|first| Ok(first.and(run(&[])?))))
}

fn ran(command: &mut Command) -> Ended {
    counted(tee::run(command))
}

fn counted(result: Result<Counts>) -> Ended {
    Ended::Ran(result.unwrap_or_else(|error| {
        line(&format!("error: {error:#}"));
        Counts::one(false)
    }))
}

fn skipped(what: &str, missing: &anyhow::Error) -> Ended {
    line(&format!("skipped: {what}, since {missing:#}"));
    Ended::Skipped(format!("{missing}"))
}
