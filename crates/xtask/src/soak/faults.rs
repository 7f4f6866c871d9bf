//! The faults of a run, in their order.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::database::Database;
use super::load::Load;
use super::{Settings, now};
use crate::network::Network;
use crate::provision::cluster::Programs;
use crate::say::{line, seconds};
use crate::workspace;

/// The clocks of the replicas: right, ahead, behind.
const CLOCKS: [i32; 3] = [0, 1, -1];
/// A replica that starts is ready before the balancer has noticed.
const BALANCER_NOTICES: Duration = Duration::from_secs(1);
/// What requests take to end after the last fault. Faults are no part of a rolling restart.
const SETTLED: Duration = Duration::from_secs(8);

/// A time in which no request may fail, in milliseconds since 1970.
#[derive(Debug, Clone)]
pub(super) struct Window {
    pub(super) name: &'static str,
    pub(super) from: u64,
    pub(super) to: u64,
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
        self.wait_until(at(4));
        self.roll("rolling upgrade", Some(settings))?;
        self.kill_many(first, at(8), at(32), &VICTIMS);
        self.fail_over("switchover of the database", Self::switch_over);
        self.go_away("oak", at(3));
        self.go_away("plc", at(3));
        self.kill_many(second, at(45), at(62), &VICTIMS);
        self.wait_until(at(63));
        self.settle()?;
        self.roll("rolling restart", None)?;
        // The first replica is spared from here on, so that one process lives long enough to show
        // whether its memory grows.
        self.kill_many(settings.kills - first - second, at(68), at(88), &VICTIMS[2..]);
        self.fail_over("kill of the database's leader", Self::kill_leader);
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
        member.kill();
        member.start()
    }

    /// Stops a member for some time.
    fn go_away(&mut self, name: &str, how_long: Duration) {
        self.say(&format!("{name} goes away for {}", seconds(how_long)));
        let away = || -> Result<()> {
            self.network.members().get(name)?.stop()?;
            sleep(how_long);
            self.network.members().get(name)?.start()
        };
        let outcome = away();
        self.note(outcome);
        self.say(&format!("{name} is back"));
    }

    /// Restarts the replicas one after the other, as an operator does. With settings, each starts as
    /// the new version and with a clock of its own.
    fn roll(&mut self, name: &'static str, upgrade: Option<&Settings>) -> Result<()> {
        self.say(name);
        let from = now();
        for (index, replica) in self.network.replicas().iter().enumerate() {
            let mut member = self.network.members().get(replica.name())?;
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
        self.timeline.windows.push(Window { name, from, to: now() });
        Ok(())
    }

    fn fail_over(&mut self, name: &str, how: fn(&mut Self) -> Result<()>) {
        self.say(name);
        let began = Instant::now();
        let outcome = how(self);
        if outcome.is_ok() {
            self.timeline.failovers += 1;
            self.say(&format!("{name}: done after {}", seconds(began.elapsed())));
        }
        self.note(outcome.with_context(|| name.to_owned()));
    }

    fn switch_over(&mut self) -> Result<()> {
        let before = self.database.leader().context("there is a leader")?;
        self.database.switch_over()?;
        self.database.wait_for_new_leader(&before, Duration::from_mins(1))?;
        self.database.wait_until_safe(Duration::from_mins(1))
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

/// The processes that are killed. Replicas are killed more often than others. The mail server keeps
/// its messages in memory, so a kill would lose codes that no client can ask for again at once.
const VICTIMS: [&str; 10] =
    ["genkan-1", "genkan-1", "genkan-2", "genkan-2", "genkan-3", "genkan-3", "oak", "elm", "alone", "plc"];

fn random(below: usize) -> usize {
    let hex = workspace::random_hex(4).unwrap_or_default();
    usize::from_str_radix(&hex, 16).unwrap_or(0) % below.max(1)
}
