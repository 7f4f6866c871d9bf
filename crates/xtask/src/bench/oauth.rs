//! The rows of `docs/speed.md` that are about OAuth: a request with a proof, checked and signed anew, beside nginx that
//! only forwards; and how many tokens one core gives out.

use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use super::forward::{CONNECTIONS, ENOUGH, build};
use super::machine;
use super::measure::{self, median};
use super::report::{self, Goal, Line};
use super::subject::genkan::{Account, PASSWORD};
use super::subject::{self, CLIENT_CORE, Running, Subject, pinned};
use crate::arguments::Arguments;
use crate::say::Step;

pub(super) fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let check = arguments.flag("--check");
    let rounds = arguments.number("--rounds")?.unwrap_or(ENOUGH);
    let seconds = arguments.number("--seconds")?.unwrap_or(3);
    let genkan = arguments.option("--genkan")?;
    arguments.end()?;
    let step = Step::start("release binaries");
    let tool = build("genkan-bench")?;
    let genkan = genkan.map_or_else(|| build("genkan"), Ok)?;
    step.done("");
    let (account, port) = subject::genkan::sign_up(&genkan, &tool)?;
    let stub = subject::Stub::start(&tool, port)?;
    let nginx = subject::nginx::start(&stub.address, &account.token)?;
    let Account { subject: genkan, .. } = account;
    let mut app = App::start(&tool, &genkan)?;
    let lines = lines(&tool, &nginx, &genkan, &mut app, rounds, seconds)?;
    println!("\n{}; {rounds} rounds of {seconds} s each, medians", machine::facts());
    let fits = report::print(&lines);
    Ok(if check && !fits { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn lines(
    tool: &str,
    nginx: &Subject,
    genkan: &Subject,
    app: &mut App,
    rounds: usize,
    seconds: usize,
) -> Result<Vec<Line>> {
    let length = f64::from(u32::try_from(seconds)?);
    let step = Step::start("DPoP, checked and signed anew");
    measure::load(tool, nginx, CONNECTIONS, 0.5, TARGET)?;
    app.run(genkan, &format!("dpop 1 {TARGET}"))?;
    let (mut plain, mut bound) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        plain.push(measure::load(tool, nginx, CONNECTIONS, length, TARGET)?);
        bound.push(app.run(genkan, &format!("dpop {seconds} {TARGET}"))?);
    }
    step.done("");
    let cpu = median(bound.iter().map(|run| run.cpu));
    let beside = median(plain.iter().map(|run| run.cpu_per_request));
    let p = |figure: fn(&Figures) -> f64| median(bound.iter().map(figure));
    let mut lines = vec![Line {
        what: "DPoP signed anew: CPU per request ÷ nginx".to_owned(),
        figures: format!(
            "{cpu:.1} and {beside:.2} µs; {:.0}/s; p50/p99 {:.0}/{:.0} µs",
            p(|run| run.per_second),
            p(|run| run.p50),
            p(|run| run.p99)
        ),
        value: cpu / beside,
        goal: Goal::AtMost { must: 9.5, want: 8.2 },
    }];
    for (what, command) in [
        ("codes into tokens", format!("issue {CODES}")),
        ("refreshes", format!("refresh {GRANTS} {seconds}")),
    ] {
        let step = Step::start(what);
        let runs: Vec<Figures> =
            (0..rounds.min(3)).map(|_| app.run(genkan, &command)).collect::<Result<_>>()?;
        step.done("");
        let cpu = median(runs.iter().map(|run| run.cpu));
        lines.push(Line {
            what: format!("{what} per second"),
            figures: format!("{cpu:.0} µs of CPU each"),
            value: median(runs.iter().map(|run| run.per_second)),
            goal: Goal::Shown,
        });
    }
    Ok(lines)
}

/// The clients, which make their proofs before each run.
struct App {
    process: Running,
}

/// What one run came to; the CPU time is the server's, in microseconds for each answer.
struct Figures {
    per_second: f64,
    cpu: f64,
    p50: f64,
    p99: f64,
}

impl App {
    fn start(tool: &str, genkan: &Subject) -> Result<Self> {
        let port = genkan.address.rsplit(':').next().context("an address has a port")?;
        let origin = format!("http://localhost:{port}");
        let mut command = pinned(CLIENT_CORE, tool);
        command.args(["app", &genkan.address, &origin, "bench.test", PASSWORD]);
        let process = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        Ok(Self { process })
    }

    fn run(&mut self, genkan: &Subject, what: &str) -> Result<Figures> {
        self.process.say(what)?;
        if self.process.line()? != "ready" {
            bail!("the app is not ready for {what}");
        }
        let before = measure::cpu_seconds(genkan)?;
        self.process.say("go")?;
        let said = self.process.line()?;
        let used = measure::cpu_seconds(genkan)? - before;
        let figures: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [answers, failures, elapsed, _, p50, p99] = figures[..] else {
            bail!("{what} failed: {said:?}");
        };
        if answers < 1.0 || failures > 0.0 {
            bail!("{answers} answers and {failures} failures for {what}");
        }
        Ok(Figures { per_second: answers / elapsed, cpu: used * 1e6 / answers, p50, p99 })
    }
}

const TARGET: &str = "/xrpc/app.bsky.feed.getTimeline?limit=50";
const CODES: usize = 200;
const GRANTS: usize = 8;
