//! `cargo xtask steady`: the Rust tests again and again beside other load, to find tests that
//! depend on the machine's speed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::arguments::Arguments;
use crate::provision::{cargo_tools, faketime, pgbouncer, postgres::Postgres, stress_ng};
use crate::say::{Step, line, seconds};
use crate::verify::CHECKS_OF_STATEMENTS;
use crate::{command, guard, workspace};

pub const USAGE: &str = "\
cargo xtask steady [--runs N] [--no-load] [FILTER]

  Run the Rust tests, on SQLite and PostgreSQL, several times beside processor load (one worker per
  core) and disk load (writes with fsync). Print the tests that failed in each run, and how often
  each failed in all. Exit with 1 if any failed. Each run's output is kept in target/steady/.

  --runs N    Run the tests N times. [default: 10]
  --no-load   Run the tests without other load, to compare.
  FILTER      Run only the tests whose name contains FILTER.";

/// Runs the command. Succeeds if no test failed in any run.
pub fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let runs = arguments.number("--runs")?.unwrap_or(10);
    let without_load = arguments.flag("--no-load");
    let filter = arguments.word();
    arguments.end()?;

    let folder = workspace::target().join("steady");
    fs::create_dir_all(&folder)?;
    let suite = Suite::build(filter, &folder)?;
    // Started after the build, which the load would only slow down.
    let load = if without_load { None } else { Some(Load::start(&folder)?) };
    let mut failures: Vec<String> = Vec::new();
    for run in 1..=runs {
        let started = Instant::now();
        let result = suite.run(&folder.join(format!("run-{run}.log")))?;
        println!("run {run} of {runs}: {} ({})", result.summary, seconds(started.elapsed()));
        for test in &result.failed {
            println!("    {test}");
        }
        failures.extend(result.failed);
    }
    drop(load);
    print_totals(&failures, runs);
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_totals(failures: &[String], runs: usize) {
    let mut tests = failures.to_vec();
    tests.sort();
    tests.dedup();
    println!("\n{} tests failed in {runs} runs", tests.len());
    for test in tests {
        let times = failures.iter().filter(|failure| **failure == test).count();
        println!("    {times} of {runs}  {test}");
    }
}

/// The compiled tests, and a database for them.
struct Suite {
    nextest: PathBuf,
    postgres: Postgres,
    filter: Option<String>,
    /// nextest's list of the compiled tests.
    binaries: PathBuf,
    /// cargo's description of the workspace, which nextest reads with the list.
    metadata: PathBuf,
}

/// The result of one run of the suite.
#[derive(Debug, PartialEq, Eq)]
struct RunResult {
    /// The runner's own summary, such as `1199 tests run: 1199 passed`.
    summary: String,
    failed: Vec<String>,
}

impl Suite {
    /// Compiles the tests and writes down in `folder` what was compiled.
    fn build(filter: Option<String>, folder: &Path) -> Result<Self> {
        let nextest = cargo_tools::cargo_nextest()
            .context("cargo-nextest cannot be had: run `cargo install --locked cargo-nextest`")?;
        let step = Step::start("compiling the tests");
        // The program too: some tests start it.
        command::run(workspace::cargo().args(["build", "--workspace", "--all-targets", "--quiet"]))?;
        // Every run uses this list. Without it nextest would compile again, beside the load, what
        // was edited meanwhile, and the runs would not be of one program.
        let mut list = Command::new(&nextest);
        list.current_dir(workspace::root()).args(["nextest", "list", "--workspace"]);
        list.args(["--list-type=binaries-only", "--message-format=json"]);
        let (binaries, metadata) = (folder.join("binaries.json"), folder.join("metadata.json"));
        fs::write(&binaries, command::run(&mut list)?)?;
        fs::write(&metadata, command::run(workspace::cargo().args(["metadata", "--format-version=1"]))?)?;
        step.done("");
        Ok(Self { nextest, postgres: Postgres::start()?, filter, binaries, metadata })
    }

    /// Runs all tests once, with the output in `log`.
    fn run(&self, log: &Path) -> Result<RunResult> {
        let output = File::create(log)?;
        let mut tests = Command::new(&self.nextest);
        tests.current_dir(workspace::root());
        tests.args(["nextest", "run", "--no-fail-fast", "--run-ignored=all"]);
        tests.arg("--binaries-metadata").arg(&self.binaries);
        tests.arg("--cargo-metadata").arg(&self.metadata);
        tests.args(["--status-level=fail", "--final-status-level=fail", "--hide-progress-bar"]);
        tests.args(["--color=never"]).args(&self.filter);
        tests.args(["-E", &format!("not test({CHECKS_OF_STATEMENTS})")]);
        tests.env("GENKAN_TEST_POSTGRES", self.postgres.url());
        tests.env("GENKAN_TEST_FAKETIME", faketime::library()?);
        tests.env("GENKAN_TEST_PGBOUNCER", pgbouncer::pgbouncer()?);
        tests.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // A run with failed tests does not succeed either: the log tells one from the other.
        tests.status().context("starting cargo-nextest")?;
        let text = fs::read(log)?;
        read_result(&String::from_utf8_lossy(&text))
            .with_context(|| format!("the tests did not run: see {}", log.display()))
    }
}

/// Reads nextest's summary, and the failed tests that it lists below it.
fn read_result(log: &str) -> Option<RunResult> {
    let (_, end) = log.rsplit_once("Summary [")?;
    let mut lines = end.lines();
    let summary = lines.next()?.split_once("] ")?.1.trim().to_owned();
    let failed = lines
        .filter_map(|line| {
            // `FAIL [   2.408s] (3/5) genkan::it stories::standing::…`, or TIMEOUT, or a signal's
            // name.
            let (status, rest) = line.trim().split_once(" [")?;
            let name = rest.split_once("] ")?.1;
            let name =
                name.strip_prefix('(').and_then(|name| name.split_once(") ")).map_or(name, |(_, name)| name);
            status.chars().all(|letter| letter.is_ascii_uppercase()).then(|| name.to_owned())
        })
        .collect();
    Some(RunResult { summary, failed })
}

/// stress-ng, which ends with this value.
struct Load(Child);

impl Load {
    fn start(folder: &Path) -> Result<Self> {
        let mut stress = Command::new(stress_ng::stress_ng()?);
        // 0 workers are one per core. Each disk worker writes a file and calls fsync after each
        // write.
        stress.args(["--cpu", "0", "--hdd", "2", "--hdd-bytes", "64m", "--hdd-opts", "fsync"]);
        stress
            .arg("--temp-path")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = stress.spawn().context("starting stress-ng")?;
        guard::watch(child.id())?;
        line("  load: stress-ng on every core, and writes with fsync");
        Ok(Self(child))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // SIGTERM, since stress-ng then ends its workers. It may have ended by itself.
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
        guard::forget(self.0.id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_read_below_the_summary() {
        let log = "        FAIL [   9.0s] (1/3) genkan::it shown::while_running
────────────
     Summary [  54.448s] 3 tests run: 1 passed, 2 failed, 255 skipped
        FAIL [   9.056s] (1/3) genkan::it stories::databases::a_story
     TIMEOUT [  60.000s] (3/3) genkan edge::a_test
error: test run failed
";
        let result = read_result(log).unwrap();
        assert_eq!(result.summary, "3 tests run: 1 passed, 2 failed, 255 skipped");
        assert_eq!(result.failed, ["genkan::it stories::databases::a_story", "genkan edge::a_test"]);
        assert_eq!(read_result("error: could not compile `genkan`"), None);
    }
}
