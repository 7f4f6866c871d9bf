//! The faults of a run, in their order.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::database::Database;
use super::load::Load;
use super::{Settings, metrics, now};
use crate::network::Network;
use crate::network::genkan::Genkan;
use crate::network::member::Member;
use crate::provision::cluster::Programs;
use crate::say::{line, seconds};
use crate::workspace;

/// The clocks of the replicas: right, ahead, behind.
const CLOCKS: [i32; 3] = [0, 1, -1];
/// A replica that starts is ready before the balancer has noticed.
const BALANCER_NOTICES: Duration = Duration::from_secs(1);
/// A replica measures its clock when it starts.
const CLOCK_IS_MEASURED: Duration = Duration::from_secs(20);
/// What requests take to end after the last fault. Faults are no part of a rolling restart.
const SETTLED: Duration = Duration::from_secs(8);

/// A time in which requests may not fail, in milliseconds since 1970.
#[derive(Debug, Clone)]
pub(super) struct Window {
    pub(super) name: &'static str,
    pub(super) whose: Whose,
    pub(super) from: u64,
    /// The end of the work on the system. What began before it must succeed, however long it takes.
    pub(super) done: u64,
    /// The end of what follows from that work. Later faults may break what began after `done`.
    pub(super) to: u64,
    /// The number of answers in this time.
    pub(super) answers: u64,
}

/// The requests that may not fail in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Everyone,
    /// Those of people who are known to have another host than this one.
    NotOf(&'static str),
    /// Posts, reads and refreshes, which need no directory.
    PostsAndRefreshes,
}

/// What happened, as far as the verdict needs it.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    pub(super) windows: Vec<Window>,
    pub(super) kills: usize,
    pub(super) failovers: usize,
    /// Faults that the system did not recover from by itself.
    pub(super) troubles: Vec<String>,
}

/// The means to cause faults.
pub(super) struct Faults<'a> {
    network: &'a Network,
    database: &'a mut Database,
    programs: &'a Programs,
    load: &'a Load,
    began: Instant,
    timeline: Timeline,
}

impl<'a> Faults<'a> {
    pub(super) fn new(
        network: &'a Network,
        database: &'a mut Database,
        programs: &'a Programs,
        load: &'a Load,
    ) -> Self {
        Self { network, database, programs, load, began: Instant::now(), timeline: Timeline::default() }
    }

    /// Runs the whole schedule. Each part begins at its share of the run's length, or later if the
    /// part before it took longer.
    pub(super) fn run(mut self, settings: &Settings) -> Result<Timeline> {
        let length = settings.length;
        let at = |percent: u32| length * percent / 100;
        let (first, second) = (settings.kills / 3, settings.kills / 3);
        // One replica is spared before the rolling restart and another one after it, so that their
        // processes live long enough to show whether memory grows.
        let spared_last = VICTIMS.map(|name| if name == "genkan-3" { "genkan-2" } else { name });
        let spared_first = VICTIMS.map(|name| if name == "genkan-1" { "genkan-3" } else { name });
        self.wait_until(at(4));
        self.roll("rolling upgrade", Some(settings))?;
        self.load.upgraded()?;
        self.compare_clocks(settings.clocks);
        self.kill_many(first, at(8), at(32), &spared_last);
        self.fail_over();
        self.settle()?;
        self.go_away("oak", at(3), "absence of a host, for people of others", Whose::NotOf("oak"));
        self.settle()?;
        self.go_away("plc", at(3), "absence of the directory", Whose::PostsAndRefreshes);
        self.kill_many(second, at(45), at(62), &spared_last);
        self.wait_until(at(63));
        self.settle()?;
        self.roll("rolling restart", None)?;
        self.kill_many(settings.kills - first - second, at(68), at(88), &spared_first);
        self.fail_over();
        self.settle()?;
        self.wait_until(length);
        Ok(self.timeline)
    }

    /// Kills processes with SIGKILL, spread over the time between `from` and `to`. Each starts again
    /// at once.
    fn kill_many(&mut self, times: usize, from: Duration, to: Duration, victims: &[&str]) {
        let begin = from.max(self.began.elapsed());
        let pause = to.saturating_sub(begin) / u32::try_from(times.max(1)).unwrap_or(1);
        for kill in 0..times {
            self.wait_until(begin + pause * u32::try_from(kill).unwrap_or(0));
            let victim = victims.get(random(victims.len())).copied().unwrap_or("genkan-2");
            self.say(&format!("kill {}: {victim}", self.timeline.kills + 1));
            self.note(Self::kill(self.network, victim));
            self.timeline.kills += 1;
        }
    }

    fn kill(network: &Network, name: &str) -> Result<()> {
        let mut member = network.members().get(name)?;
        let was_running = must_run(&mut member);
        member.kill();
        member.start()?;
        was_running
    }

    /// Lets a member be silent for half of some time, as a machine that hangs, and stops it for the
    /// other half.
    fn go_away(&mut self, name: &str, how_long: Duration, window: &'static str, whose: Whose) {
        self.say(&format!("{name} goes away for {}", seconds(how_long)));
        let (from, answers) = (now(), self.load.answers());
        let away = || -> Result<()> {
            let mut member = self.network.members().get(name)?;
            must_run(&mut member)?;
            member.pause();
            sleep(how_long / 2);
            member.stop()?;
            sleep(how_long / 2);
            Ok(())
        };
        let outcome = away();
        self.note(outcome);
        let (to, answers) = (now(), self.load.answers() - answers);
        self.timeline.windows.push(Window { name: window, whose, from, done: to, to, answers });
        let back = || self.network.members().get(name)?.start();
        let outcome = back();
        self.note(outcome);
        self.say(&format!("{name} is back"));
    }

    /// Restarts the replicas one after the other, as an operator does. With settings, each starts as
    /// the new version and with a clock of its own.
    fn roll(&mut self, name: &'static str, upgrade: Option<&Settings>) -> Result<()> {
        self.say(name);
        let (from, answers) = (now(), self.load.answers());
        let mut died = Vec::new();
        for (index, replica) in self.network.replicas().iter().enumerate() {
            let mut member = self.network.members().get(replica.name())?;
            died.extend(must_run(&mut member).err());
            member.stop().with_context(|| format!("{name}: {} did not stop", replica.name()))?;
            if let Some(settings) = upgrade {
                member.spec_mut().program.clone_from(&settings.newer);
                let off = settings.clocks * CLOCKS.get(index).copied().unwrap_or(0);
                if off != 0 {
                    member.spec_mut().environment.extend(self.programs.clock_off_by(off));
                }
            }
            member.start().with_context(|| format!("{name}: {} did not start", replica.name()))?;
            drop(member);
            sleep(BALANCER_NOTICES);
            self.say(&format!("{name}: {} is up", replica.name()));
        }
        for death in died {
            self.note(Err(death));
        }
        let done = now();
        // A replica that was ready too early fails requests a moment later.
        sleep(SETTLED);
        let (to, answers) = (now(), self.load.answers() - answers);
        self.timeline.windows.push(Window { name, whose: Whose::Everyone, from, done, to, answers });
        Ok(())
    }

    /// Compares what the replicas say of their clocks with how far these were set off. A library
    /// that was not loaded would change no clock, and nothing else would tell.
    fn compare_clocks(&mut self, off: i32) {
        for (index, replica) in self.network.replicas().iter().enumerate() {
            let wanted = off * CLOCKS.get(index).copied().unwrap_or(0);
            let outcome = wait_for_clock(replica, wanted);
            self.note(outcome);
        }
    }

    /// Kills the leader of the database.
    fn fail_over(&mut self) {
        const NAME: &str = "kill of the database's leader";
        self.say(NAME);
        let began = Instant::now();
        let outcome = self.kill_leader();
        if outcome.is_ok() {
            self.timeline.failovers += 1;
            self.say(&format!("{NAME}: done after {}", seconds(began.elapsed())));
        }
        self.note(outcome.context(NAME));
    }

    fn kill_leader(&mut self) -> Result<()> {
        let before = self.database.kill_leader()?;
        self.database.wait_for_new_leader(&before, Duration::from_mins(1))?;
        self.database.restart(&before)?;
        self.database.wait_until_safe(Duration::from_mins(2))
    }

    /// Waits until everything runs again and what the faults have delayed is over.
    fn settle(&mut self) -> Result<()> {
        self.database.wait_until_safe(Duration::from_mins(1))?;
        for name in self.network.members().names() {
            let state = self.network.members().get(name)?.state();
            if state != "running" {
                bail!("{name} is {state} after its faults");
            }
        }
        sleep(SETTLED);
        Ok(())
    }

    /// A fault that did not heal is a finding, and the run goes on.
    fn note(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            let text = format!("{error:#}");
            self.say(&format!("TROUBLE: {text}"));
            self.timeline.troubles.push(text);
        }
    }

    fn wait_until(&self, at: Duration) {
        sleep(at.saturating_sub(self.began.elapsed()));
    }

    fn say(&self, text: &str) {
        let at = self.began.elapsed().as_secs();
        line(&format!("  {:>2}:{:02}  {text:<52} {}", at / 60, at % 60, self.load.progress()));
    }
}

/// Fails if a member has ended by itself.
fn must_run(member: &mut Member) -> Result<()> {
    let state = member.state();
    if state != "running" {
        bail!("{} was {state} before a fault came", member.name());
    }
    Ok(())
}

/// Waits until a replica has measured that its clock is off by so many seconds.
fn wait_for_clock(replica: &Genkan, wanted: i32) -> Result<()> {
    let until = Instant::now() + CLOCK_IS_MEASURED;
    loop {
        let found = metrics::read(replica.operations_port).and_then(|found| {
            found.get(metrics::CLOCK_OFFSET).copied().context("it has no offset of its clock")
        });
        match found {
            Ok(seconds) if (seconds - f64::from(wanted)).abs() <= 5.0 => return Ok(()),
            _ if Instant::now() < until => sleep(Duration::from_millis(200)),
            found => bail!("{} should say that its clock is off by {wanted} s: {found:?}", replica.name()),
        }
    }
}

/// The processes that are killed. Replicas are killed more often than others. The mail server keeps
/// its messages in memory, so a kill would lose codes that no client can ask for again at once.
const VICTIMS: [&str; 10] =
    ["genkan-1", "genkan-1", "genkan-2", "genkan-2", "genkan-3", "genkan-3", "oak", "elm", "alone", "plc"];

fn random(below: usize) -> usize {
    let hex = workspace::random_hex(4).unwrap_or_default();
    usize::from_str_radix(&hex, 16).unwrap_or(0) % below.max(1)
}
