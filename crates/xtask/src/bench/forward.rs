//! The rows of `docs/speed.md` that are about forwarding.

use anyhow::Result;

use super::against::{self, Binary, Comparison, Warmth};
use super::measure::{self, Sample, median};
use super::report::{Goal, Line};
use super::subject::genkan::Account;
use super::subject::{self, Subject};
use super::{Binaries, ENOUGH, Report, Settings};
use crate::say::Step;

pub(super) fn run(settings: &Settings) -> Result<Report> {
    let binaries = settings.build()?;
    Ok(match &settings.against {
        None => Report::BesideNginx(Bench::start(&binaries, settings)?.lines()?),
        Some(old) => Report::Against(compare(&binaries, old, settings)?),
    })
}

/// Measures every workload on an older binary and on the new one.
fn compare(binaries: &Binaries, old: &str, settings: &Settings) -> Result<Vec<Comparison>> {
    let old = Target::start(old, &binaries.tool, "genkan-old")?;
    let new = Target::start(&binaries.genkan, &binaries.tool, "genkan")?;
    let mut comparisons = Vec::new();
    for workload in workloads() {
        let step = Step::start(workload.name);
        let comparison =
            Comparison::measure(workload.name, workload.limits, settings.rounds, |binary, warmth| {
                let Target { account, .. } = if binary == Binary::Old { &old } else { &new };
                let seconds = if warmth == Warmth::WarmUp { WARM_UP } else { f64::from(settings.seconds) };
                let target = (workload.target)(&account.did);
                measure::load(&binaries.tool, &account.subject, workload.connections, seconds, &target)
            })?;
        step.done("");
        comparisons.push(comparison);
    }
    Ok(comparisons)
}

/// A Genkan with an account, and the stand-in for the account's host.
struct Target {
    account: Account,
    _stub: subject::Stub,
}

impl Target {
    fn start(binary: &str, tool: &str, folder: &str) -> Result<Self> {
        let (account, port) = subject::genkan::sign_up(binary, tool, folder)?;
        Ok(Self { account, _stub: subject::Stub::start(tool, port)? })
    }
}

/// Requests of one kind.
struct Workload {
    name: &'static str,
    connections: usize,
    /// The request target, made from the account's DID.
    target: fn(&str) -> String,
    limits: &'static [against::Limit],
}

fn workloads() -> [Workload; 5] {
    let small = |name, target| Workload { name, connections: CONNECTIONS, target, limits: against::ALL };
    [
        small("cached Bearer", |_| TIMELINE.to_owned()),
        small("public read", record),
        Workload {
            name: "64 KiB download",
            connections: 16,
            target: |did| download(did, 64 << 10),
            limits: against::ALL,
        },
        Workload {
            name: "1 MiB download",
            connections: 16,
            target: |did| download(did, 1 << 20),
            limits: against::ALL,
        },
        Workload {
            name: "64 MiB download",
            connections: 4,
            target: |did| download(did, 64 << 20),
            // A few long downloads give too few samples for a 99th percentile.
            limits: against::WITHOUT_P99,
        },
    ]
}

/// nginx and Genkan, each before a stand-in for the host.
struct Bench {
    tool: String,
    rounds: usize,
    seconds: f64,
    nginx: Subject,
    genkan: Subject,
    /// The account that reads are about.
    did: String,
    /// Genkan's resident memory before the first request, in bytes.
    at_rest: f64,
    _stub: subject::Stub,
}

impl Bench {
    fn start(binaries: &Binaries, settings: &Settings) -> Result<Self> {
        let tool = binaries.tool.clone();
        let (account, port) = subject::genkan::sign_up(&binaries.genkan, &tool, "genkan")?;
        let stub = subject::Stub::start(&tool, port)?;
        let nginx = subject::nginx::start(&stub.address, &account.token)?;
        let Account { subject: genkan, did, at_rest, .. } = account;
        let (rounds, seconds) = (settings.rounds, f64::from(settings.seconds));
        Ok(Self { tool, rounds, seconds, nginx, genkan, did, at_rest, _stub: stub })
    }

    fn lines(&self) -> Result<Vec<Line>> {
        // Memory comes first: a process that was busy keeps memory for later, and that hides what a
        // connection costs.
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
        self.small("cached Bearer", TIMELINE, 1.35, 1.15, &mut lines)?;
        self.small("public read", &record(&self.did), 1.25, 1.10, &mut lines)?;
        for (size, name) in [(64 << 10, "64 KiB"), (1 << 20, "1 MiB"), (64 << 20, "64 MiB")] {
            let target = download(&self.did, size);
            let (nginx, genkan) =
                self.both(&format!("{name} bodies"), if size > 1 << 24 { 4 } else { 16 }, &target)?;
            let cpu = |runs: &[Sample]| median(runs.iter().map(|run| run.cpu_per_mib));
            lines.push(Line {
                what: format!("{name}: CPU per MiB ÷ nginx"),
                figures: format!("{:.3} and {:.3} ms", cpu(&genkan), cpu(&nginx)),
                value: cpu(&genkan) / cpu(&nginx),
                goal: Goal::AtMost { must: 0.85, want: 0.70 },
            });
        }
        let growth = measure::growth(&self.tool, &self.genkan, 16, &download(&self.did, 64 << 20))?;
        lines.push(memory("16 × 64 MiB at once: MiB of growth", growth / MIB, 16.0, 5.0));
        Ok(lines)
    }

    /// The rows for a request whose answer is about a kilobyte of JSON.
    fn small(&self, what: &str, target: &str, must: f64, want: f64, lines: &mut Vec<Line>) -> Result<()> {
        let (nginx, genkan) = self.both(what, CONNECTIONS, target)?;
        let of = |runs: &[Sample], figure: fn(&Sample) -> f64| median(runs.iter().map(figure));
        let cpu: fn(&Sample) -> f64 = |run| run.cpu_per_request;
        let rate: fn(&Sample) -> f64 = |run| run.per_second;
        let times =
            |runs: &[Sample]| format!("{:.0}/{:.0}", of(runs, |run| run.p50), of(runs, |run| run.p99));
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
        let p99: fn(&Sample) -> f64 = |run| run.p99;
        lines.push(Line {
            what: format!("{what}: p99 ÷ nginx"),
            figures: if self.rounds < ENOUGH {
                format!("too few rounds: a p99 takes {ENOUGH}")
            } else {
                String::new()
            },
            value: of(&genkan, p99) / of(&nginx, p99),
            goal: Goal::AtMost { must: 1.5, want: 1.15 },
        });
        Ok(())
    }

    /// Runs a row for nginx and Genkan alternately, after a short run of each to warm up.
    fn both(&self, what: &str, connections: usize, target: &str) -> Result<(Vec<Sample>, Vec<Sample>)> {
        let step = Step::start(what);
        let run =
            |subject: &Subject, seconds| measure::load(&self.tool, subject, connections, seconds, target);
        let (mut nginx, mut genkan) = (Vec::new(), Vec::new());
        run(&self.nginx, WARM_UP)?;
        run(&self.genkan, WARM_UP)?;
        // The runs alternate, so that other load of the machine affects both alike.
        for _ in 0..self.rounds {
            nginx.push(run(&self.nginx, self.seconds)?);
            genkan.push(run(&self.genkan, self.seconds)?);
        }
        step.done("");
        Ok((nginx, genkan))
    }
}

fn record(did: &str) -> String {
    format!("/xrpc/com.atproto.repo.getRecord?repo={did}&collection=app.bsky.feed.post&rkey=3laaaaaaaaaaa")
}

/// A download of `size` bytes: the stand-in for the host answers with as many as the query says.
fn download(did: &str, size: u64) -> String {
    format!("/xrpc/com.atproto.sync.getRepo?did={did}&size={size}")
}

fn memory(what: &str, value: f64, must: f64, want: f64) -> Line {
    Line { what: what.to_owned(), figures: String::new(), value, goal: Goal::AtMost { must, want } }
}

pub(super) const CONNECTIONS: usize = 32;
/// Seconds of the run before the first that counts.
pub(super) const WARM_UP: f64 = 0.5;
pub(super) const TIMELINE: &str = "/xrpc/app.bsky.feed.getTimeline?limit=50";
const IDLE: u32 = 1000;
const MIB: f64 = 1024.0 * 1024.0;
