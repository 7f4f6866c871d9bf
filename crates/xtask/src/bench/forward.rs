//! The rows of `docs/speed.md` that are about forwarding.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::machine;
use super::measure::{self, Run, median};
use super::report::{self, Goal, Line};
use super::subject::genkan::Account;
use super::subject::{self, Subject};
use crate::arguments::Arguments;
use crate::command;
use crate::say::Step;
use crate::workspace;

pub(super) fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let check = arguments.flag("--check");
    let rounds = arguments.number("--rounds")?.unwrap_or(ENOUGH);
    let seconds = arguments.number("--seconds")?.unwrap_or(3);
    let genkan = arguments.option("--genkan")?;
    arguments.end()?;
    let bench = Bench::start(genkan, rounds, u32::try_from(seconds)?.into())?;
    let lines = bench.lines()?;
    println!("\n{}; {rounds} rounds of {seconds} s each, medians", machine::facts());
    let fits = report::print(&lines);
    Ok(if check && !fits { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The proxies, and the stub behind them.
struct Bench {
    tool: String,
    rounds: usize,
    seconds: f64,
    nginx: Subject,
    genkan: Subject,
    /// The account that reads are about.
    did: String,
    /// Bytes of Genkan's resident memory before anybody asked for anything.
    at_rest: f64,
    _stub: subject::Stub,
}

impl Bench {
    fn start(genkan: Option<String>, rounds: usize, seconds: f64) -> Result<Self> {
        let step = Step::start("release binaries");
        let tool = build("genkan-bench")?;
        let genkan = genkan.map_or_else(|| build("genkan"), Ok)?;
        step.done("");
        let (account, port) = subject::genkan::sign_up(&genkan, &tool)?;
        let stub = subject::Stub::start(&tool, port)?;
        let nginx = subject::nginx::start(&stub.address, &account.token)?;
        let Account { subject: genkan, did, at_rest, .. } = account;
        Ok(Self { tool, rounds, seconds, nginx, genkan, did, at_rest, _stub: stub })
    }

    fn lines(&self) -> Result<Vec<Line>> {
        // Memory first: what a busy process has kept for later says nothing of what a connection costs.
        let mut lines = vec![memory("just started: MiB", self.at_rest / MIB, 40.0, 15.0)];
        let idle = "/xrpc/app.bsky.feed.getTimeline";
        let step = Step::start("idle connections");
        let genkan = measure::idle_connection(&self.tool, &self.genkan, IDLE, idle)? / 1024.0;
        let nginx = measure::idle_connection(&self.tool, &self.nginx, IDLE, idle)? / 1024.0;
        step.done("");
        lines.push(Line {
            figures: format!("nginx {nginx:.1}"),
            ..memory("one idle connection: KiB", genkan, 15.0, 5.0)
        });
        self.small("cached Bearer", "/xrpc/app.bsky.feed.getTimeline?limit=50", 1.35, 1.15, &mut lines)?;
        let did = &self.did;
        let record = format!(
            "/xrpc/com.atproto.repo.getRecord?repo={did}&collection=app.bsky.feed.post&rkey=3laaaaaaaaaaa"
        );
        self.small("public read", &record, 1.25, 1.10, &mut lines)?;
        for (size, name) in [(64 << 10, "64 KiB"), (1 << 20, "1 MiB"), (64 << 20, "64 MiB")] {
            let target = self.download(size);
            let (nginx, genkan) =
                self.both(&format!("{name} bodies"), if size > 1 << 24 { 4 } else { 16 }, &target)?;
            let cpu = |runs: &[Run]| median(runs.iter().map(|run| run.cpu_per_mib));
            lines.push(Line {
                what: format!("{name}: CPU per MiB ÷ nginx"),
                figures: format!("{:.3} and {:.3} ms", cpu(&genkan), cpu(&nginx)),
                value: cpu(&genkan) / cpu(&nginx),
                goal: Goal::AtMost { must: 0.85, want: 0.70 },
            });
        }
        let growth = measure::growth(&self.tool, &self.genkan, 16, &self.download(64 << 20))?;
        lines.push(memory("16 × 64 MiB at once: MiB of growth", growth / MIB, 16.0, 5.0));
        Ok(lines)
    }

    /// A row of about a kilobyte of JSON.
    fn small(&self, what: &str, target: &str, must: f64, want: f64, lines: &mut Vec<Line>) -> Result<()> {
        let (nginx, genkan) = self.both(what, CONNECTIONS, target)?;
        let of = |runs: &[Run], figure: fn(&Run) -> f64| median(runs.iter().map(figure));
        let cpu: fn(&Run) -> f64 = |run| run.cpu_per_request;
        let rate: fn(&Run) -> f64 = |run| run.per_second;
        let times = |runs: &[Run]| format!("{:.0}/{:.0}", of(runs, |run| run.p50), of(runs, |run| run.p99));
        lines.push(Line {
            what: format!("{what}: CPU per request ÷ nginx"),
            figures: format!("{:.2} and {:.2} µs", of(&genkan, cpu), of(&nginx, cpu)),
            value: of(&genkan, cpu) / of(&nginx, cpu),
            goal: Goal::AtMost { must, want },
        });
        lines.push(Line {
            what: format!("{what}: requests/s ÷ nginx"),
            figures: format!(
                "{:.0} and {:.0}; p50/p99 {} and {} µs",
                of(&genkan, rate),
                of(&nginx, rate),
                times(&genkan),
                times(&nginx)
            ),
            value: of(&genkan, rate) / of(&nginx, rate),
            goal: Goal::AtLeast { must: 0.85, want: 0.95 },
        });
        let p99: fn(&Run) -> f64 = |run| run.p99;
        lines.push(Line {
            what: format!("{what}: p99 ÷ nginx"),
            figures: if self.rounds < ENOUGH {
                format!("few rounds: it takes {ENOUGH}")
            } else {
                String::new()
            },
            value: of(&genkan, p99) / of(&nginx, p99),
            goal: Goal::AtMost { must: 1.5, want: 1.15 },
        });
        Ok(())
    }

    /// Runs a row for both in turn, after a short one to warm up.
    fn both(&self, what: &str, connections: usize, target: &str) -> Result<(Vec<Run>, Vec<Run>)> {
        let step = Step::start(what);
        let run =
            |subject: &Subject, seconds| measure::load(&self.tool, subject, connections, seconds, target);
        let (mut nginx, mut genkan) = (Vec::new(), Vec::new());
        run(&self.nginx, 0.5)?;
        run(&self.genkan, 0.5)?;
        for _ in 0..self.rounds {
            nginx.push(run(&self.nginx, self.seconds)?);
            genkan.push(run(&self.genkan, self.seconds)?);
        }
        step.done("");
        Ok((nginx, genkan))
    }

    fn download(&self, size: u64) -> String {
        format!("/xrpc/com.atproto.sync.getRepo?did={}&size={size}", self.did)
    }
}

/// Builds a package's program for release, and says where cargo put it.
pub(super) fn build(package: &str) -> Result<String> {
    let mut build = workspace::cargo();
    build.args(["build", "--quiet", "--release", "--message-format", "json", "--package", package]);
    let messages = command::run(&mut build)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter_map(|message| message.get("executable")?.as_str().map(str::to_owned));
    programs.next_back().with_context(|| format!("{package} has a program"))
}

fn memory(what: &str, value: f64, must: f64, want: f64) -> Line {
    Line { what: what.to_owned(), figures: String::new(), value, goal: Goal::AtMost { must, want } }
}

/// Rounds in which a 99th percentile begins to say something.
pub(super) const ENOUGH: usize = 7;
pub(super) const CONNECTIONS: usize = 32;
const IDLE: u32 = 1000;
const MIB: f64 = 1024.0 * 1024.0;
