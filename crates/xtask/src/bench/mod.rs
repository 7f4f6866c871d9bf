//! `cargo xtask bench forward` and `bench oauth`: the cost that Genkan adds to a request.
//!
//! A bench compares two proxies within one run, because figures depend on the machine and ratios
//! within a run do not. The two are Genkan and nginx (`forward`, `oauth`), or a new Genkan and an
//! older one (`against`). The proxy under test has a core to itself. The host behind it and the
//! clients share another core. The runs of both proxies alternate, several times for each row.

mod against;
mod forward;
mod machine;
mod measure;
mod oauth;
mod report;
mod subject;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::arguments::Arguments;
use crate::say::Step;
use crate::{command, workspace};

pub const USAGE: &str = "\
cargo xtask bench forward [OPTIONS]
cargo xtask bench oauth   [OPTIONS]

  forward   Measure forwarded requests and downloads.
  oauth     Measure requests with DPoP proofs, and tokens issued.

  Without --against, Genkan is measured beside nginx and held to docs/speed.md.

  --against FILE   Measure beside FILE, an older Genkan binary, instead of nginx. Prints old, new
                   and the median of the rounds' ratios, for CPU per request (at most 1.03),
                   requests/s (at least 0.90) and p99 (at most 1.10).
  --check          Exit with 1 when a limit is missed.
  --rounds N       Run each row N times for each proxy. [default: 7]
  --seconds N      Let one run take N seconds. [default: 3]
  --genkan FILE    Measure FILE, a Genkan binary, instead of compiling one.
  --profile NAME   Compile with this cargo profile. [default: release]
                   `bench-loop` compiles in a fraction of the time, without link-time optimization.";

/// Runs a bench by its name.
pub fn command(mut arguments: Arguments) -> Result<ExitCode> {
    let bench = match arguments.word().as_deref() {
        Some("forward") => forward::run,
        Some("oauth") => oauth::run,
        Some(other) => bail!("there is no bench named {other}\n\n{USAGE}"),
        None => bail!("name a bench: forward or oauth\n\n{USAGE}"),
    };
    let settings = Settings::read(arguments)?;
    let rounds = settings.rounds;
    let seconds = settings.seconds;
    let check = settings.check;
    let report = bench(&settings)?;
    println!("\n{}; {rounds} rounds of {seconds} s each, medians", machine::facts());
    let all_met = match report {
        Report::BesideNginx(lines) => report::print(&lines),
        Report::Against(comparisons) => against::print(&comparisons),
    };
    Ok(if check && !all_met { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The options of a bench.
#[derive(Debug)]
struct Settings {
    check: bool,
    /// Runs of each row for each proxy.
    rounds: usize,
    /// Length of one run.
    seconds: u32,
    /// A binary to measure instead of compiling one.
    genkan: Option<String>,
    /// An older binary to measure beside, instead of nginx.
    against: Option<String>,
    profile: String,
}

/// The results of a bench.
#[derive(Debug)]
enum Report {
    BesideNginx(Vec<report::Line>),
    Against(Vec<against::Comparison>),
}

impl Settings {
    fn read(mut arguments: Arguments) -> Result<Self> {
        let seconds = arguments.number("--seconds")?.unwrap_or(3);
        let settings = Self {
            check: arguments.flag("--check"),
            rounds: arguments.number("--rounds")?.unwrap_or(ENOUGH),
            seconds: u32::try_from(seconds).context("--seconds is too large")?,
            genkan: arguments.option("--genkan")?.map(absolute).transpose()?,
            against: arguments.option("--against")?.map(absolute).transpose()?,
            profile: arguments.option("--profile")?.unwrap_or_else(|| "release".to_owned()),
        };
        arguments.end()?;
        Ok(settings)
    }

    /// Compiles what is to be measured and the clients.
    fn build(&self) -> Result<Binaries> {
        let step = Step::start(format!("binaries, profile {}", self.profile));
        let tool = build("genkan-bench", &self.profile)?;
        let genkan = self.genkan.clone().map_or_else(|| build("genkan", &self.profile), Ok)?;
        step.done("");
        Ok(Binaries { tool, genkan })
    }
}

/// The programs that a bench starts.
#[derive(Debug)]
struct Binaries {
    /// The clients and the host's stand-in.
    tool: String,
    genkan: String,
}

/// Compiles a package's program and returns where cargo put it.
fn build(package: &str, profile: &str) -> Result<String> {
    let mut build = workspace::cargo();
    build.args(["build", "--quiet", "--message-format", "json", "--package", package, "--profile", profile]);
    let messages = command::run(&mut build)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter_map(|message| message.get("executable")?.as_str().map(str::to_owned));
    programs.next_back().with_context(|| format!("{package} has a program"))
}

/// A path that does not depend on the folder that a program is started in.
fn absolute(path: String) -> Result<String> {
    let path = std::path::absolute(PathBuf::from(path))?;
    anyhow::ensure!(path.is_file(), "there is no file {}", path.display());
    Ok(path.display().to_string())
}

/// The fewest rounds after which a 99th percentile says something.
const ENOUGH: usize = 7;
