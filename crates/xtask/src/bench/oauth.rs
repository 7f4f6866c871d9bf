//! The rows of `docs/speed.md` that are about OAuth: a request whose proof is checked and which is
//! signed again for the host, and the tokens that one core issues.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use super::against::{self, Binary, Comparison, Warmth};
use super::forward::{CONNECTIONS, TIMELINE, WARM_UP};
use super::measure::{self, Sample, median};
use super::report::{Goal, Line};
use super::subject::genkan::{Account, PASSWORD};
use super::subject::{self, CLIENT_CORE, Running, Subject, pinned};
use super::{Binaries, Report, Settings};
use crate::say::Step;

pub(super) fn run(settings: &Settings) -> Result<Report> {
    let binaries = settings.build()?;
    Ok(match &settings.against {
        None => Report::BesideNginx(beside_nginx(&binaries, settings)?),
        Some(old) => Report::Against(compare(&binaries, old, settings)?),
    })
}

fn beside_nginx(binaries: &Binaries, settings: &Settings) -> Result<Vec<Line>> {
    let mut genkan = Target::start(&binaries.genkan, &binaries.tool, "genkan")?;
    let nginx = subject::nginx::start(&genkan.stub.address, &genkan.account.token)?;
    let Settings { rounds, seconds, .. } = *settings;
    let dpop = format!("dpop {seconds} {TIMELINE}");
    let step = Step::start("DPoP, checked and signed again");
    measure::load(&binaries.tool, &nginx, CONNECTIONS, WARM_UP, TIMELINE)?;
    genkan.run(&format!("dpop 1 {TIMELINE}"))?;
    let (mut plain, mut bound) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        plain.push(measure::load(&binaries.tool, &nginx, CONNECTIONS, f64::from(seconds), TIMELINE)?);
        bound.push(genkan.run(&dpop)?);
    }
    step.done("");
    let of = |runs: &[Sample], figure: fn(&Sample) -> f64| median(runs.iter().map(figure));
    let cpu = of(&bound, |run| run.cpu_per_request);
    let beside = of(&plain, |run| run.cpu_per_request);
    let mut lines = vec![Line {
        what: "DPoP signed again: CPU per request ÷ nginx".to_owned(),
        figures: format!(
            "{cpu:.1} and {beside:.2} µs; {:.0}/s; p50/p99 {:.0}/{:.0} µs",
            of(&bound, |run| run.per_second),
            of(&bound, |run| run.p50),
            of(&bound, |run| run.p99)
        ),
        value: cpu / beside,
        goal: Goal::AtMost { must: 9.5, want: 8.2 },
    }];
    for (what, command) in [("codes into tokens", issue()), ("refreshes", refresh(seconds))] {
        let step = Step::start(what);
        let runs: Vec<Sample> = (0..rounds.min(3)).map(|_| genkan.run(&command)).collect::<Result<_>>()?;
        step.done("");
        lines.push(Line {
            what: format!("{what} per second"),
            figures: format!("{:.0} µs of CPU each", of(&runs, |run| run.cpu_per_request)),
            value: of(&runs, |run| run.per_second),
            goal: Goal::Shown,
        });
    }
    Ok(lines)
}

/// Measures every workload on an older binary and on the new one.
fn compare(binaries: &Binaries, old: &str, settings: &Settings) -> Result<Vec<Comparison>> {
    let mut old = Target::start(old, &binaries.tool, "genkan-old")?;
    let mut new = Target::start(&binaries.genkan, &binaries.tool, "genkan")?;
    let seconds = settings.seconds;
    let dpop = |seconds: u32| format!("dpop {seconds} {TIMELINE}");
    let workloads = [
        ("DPoP signed again", dpop(seconds), dpop(1), against::ALL),
        ("codes into tokens", issue(), issue(), against::WITHOUT_P99),
        ("refreshes", refresh(seconds), refresh(1), against::ALL),
    ];
    let mut comparisons = Vec::new();
    for (name, command, warm_up, limits) in workloads {
        let step = Step::start(name);
        let comparison = Comparison::measure(name, limits, settings.rounds, |binary, warmth| {
            let target = if binary == Binary::Old { &mut old } else { &mut new };
            target.run(if warmth == Warmth::WarmUp { &warm_up } else { &command })
        })?;
        step.done("");
        comparisons.push(comparison);
    }
    Ok(comparisons)
}

fn issue() -> String {
    format!("issue {CODES}")
}

fn refresh(seconds: u32) -> String {
    format!("refresh {GRANTS} {seconds}")
}

/// A Genkan, an app with a grant there, and the stand-in for the account's host.
///
/// The app makes its proofs before each run, so that the time of a run is the server's.
struct Target {
    app: Running,
    account: Account,
    stub: subject::Stub,
}

impl Target {
    fn start(binary: &str, tool: &str, folder: &str) -> Result<Self> {
        let (account, port) = subject::genkan::sign_up(binary, tool, folder)?;
        let stub = subject::Stub::start(tool, port)?;
        let address = &account.subject.address;
        let port = address.rsplit(':').next().context("an address has a port")?;
        let origin = format!("http://localhost:{port}");
        let mut command = pinned(CLIENT_CORE, tool);
        command.args(["app", address, &origin, "bench.test", PASSWORD]);
        let app = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        Ok(Self { app, account, stub })
    }

    fn genkan(&self) -> &Subject {
        &self.account.subject
    }

    /// Runs one command of the app. The CPU time is that between `go` and the figures.
    fn run(&mut self, command: &str) -> Result<Sample> {
        self.app.say(command)?;
        if self.app.line()? != "ready" {
            bail!("the app is not ready for {command}");
        }
        let before = measure::cpu_seconds(self.genkan())?;
        self.app.say("go")?;
        let line = self.app.line()?;
        let used = measure::cpu_seconds(self.genkan())? - before;
        Sample::read(&line, used).with_context(|| command.to_owned())
    }
}

const CODES: usize = 200;
const GRANTS: usize = 8;
