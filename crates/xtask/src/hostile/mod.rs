//! `cargo xtask hostile`: whether one user, or a stranger without an account, can make another
//! user's calls fail or wait.
//!
//! * `process` talks to the Node programs of `network/hostile/`: a victim who posts, refreshes a
//!   session, makes linked calls and signs in, and the attacks.
//! * `report` compares what the victim saw under an attack with what it saw under harmless load of
//!   the same volume.
//!
//! Genkan has a core of its own. Attackers connect from other loopback addresses than the victim, so
//! limits per address act as on the internet.

mod process;
mod report;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::network::genkan::{self, Genkan, GenkanOptions};
use crate::network::{Network, Options, ports};
use crate::provision::postgres::Postgres;
use crate::say::line;
use crate::{command, workspace};
use process::Process;
use report::{Figures, Row, Survivors};

pub const USAGE: &str = "\
cargo xtask hostile [--as user|stranger|both] [--minutes N] [--each SECONDS] [--only TEXT]
                    [--genkan-binary FILE] [--postgres] [--json]

  Attack a Genkan on a core of its own, with a reference host and a stand-alone PDS, all on loopback.
  Measure a victim who creates records, refreshes a session, makes linked calls and signs in: under
  harmless load of the same volume, under each attack by itself, and under all attacks together.

  Exit with 1 if a call of the victim fails, if its p99 more than doubles, or if an account is deleted
  by an app password, an app, its host or a date in the past. Print each result.

  --as user|stranger|both  Attack as a signed-in user, as a stranger without an account, or as one
                           after the other. [default: both]
  --minutes N              Let all attacks run together for N minutes. 0 leaves this out. [default: 5]
  --each SECONDS           Let each attack run by itself for SECONDS. 0 leaves this out. [default: 20]
  --only TEXT              Run only the attacks whose name contains TEXT.
  --genkan-binary FILE     Attack this Genkan instead of compiling one.
  --postgres               Run Genkan on PostgreSQL instead of SQLite.
  --json                   Print the result as JSON, too.";

/// The core of Genkan. Everything else runs on the others.
const GENKAN_CORE: &str = "0";
/// Ports of the attackers' server, each of which is a DID of its own.
const SERVERS: usize = 16;
/// What is held by an attack that has ended is free again after this time.
const BREATH: Duration = Duration::from_secs(12);

/// The options of a trial.
#[derive(Debug)]
struct Settings {
    roles: Vec<&'static str>,
    together: Duration,
    each: Duration,
    only: String,
    json: bool,
}

/// Runs the command. Succeeds if no attack reached the victim.
pub fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let settings = Settings::read(&mut arguments)?;
    let postgres = arguments.flag("--postgres").then(Postgres::start).transpose()?;
    let binary = arguments.option("--genkan-binary")?;
    arguments.end()?;
    let binary = binary.map_or_else(genkan::build, |file| Ok(std::path::absolute(file)?))?;
    let folder = workspace::target().join("hostile");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;

    let server_ports = (0..SERVERS).map(|_| ports::free()).collect::<Result<Vec<_>>>()?;
    let network = start_network(binary, postgres.as_ref(), &server_ports, &folder)?;
    let genkan = network.genkan().context("the network has a Genkan")?;
    // With the configuration as its first line, as every member of the network.
    let (server, said) = Process::start(
        &network,
        "server",
        "hostile/server.mjs",
        None,
        &folder,
        Some(&json!({ "ports": server_ports })),
    )?;
    let world = prepare(&network, genkan, &said, &folder)?;
    pin(&network)?;
    let trial = Trial::start(&network, &world, &folder)?;
    let (rows, survivors) = trial.run(&settings)?;
    drop(server);
    let is_passed = report::print(&rows, &survivors, settings.json);
    line(&format!("  logs: {}", folder.display()));
    Ok(if is_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Settings {
    fn read(arguments: &mut Arguments) -> Result<Self> {
        let roles = match arguments.option("--as")?.as_deref() {
            None | Some("both") => vec!["user", "stranger"],
            Some("user") => vec!["user"],
            Some("stranger") => vec!["stranger"],
            Some(other) => bail!("{other} is not user, stranger or both"),
        };
        let seconds = |number: Option<usize>, default: u64| -> Result<u64> {
            Ok(number.map(u64::try_from).transpose()?.unwrap_or(default))
        };
        Ok(Self {
            roles,
            together: Duration::from_secs(60 * seconds(arguments.number("--minutes")?, 5)?),
            each: Duration::from_secs(seconds(arguments.number("--each")?, 20)?),
            only: arguments.option("--only")?.unwrap_or_default(),
            json: arguments.flag("--json"),
        })
    }
}

fn start_network(
    binary: PathBuf,
    postgres: Option<&Postgres>,
    server_ports: &[u16],
    folder: &Path,
) -> Result<Network> {
    let settings = [("GENKAN_WORKERS", "1"), ("GENKAN_RATE_CREATE_ACCOUNT", "1000/5m")];
    let genkan = GenkanOptions {
        database_url: postgres.map(Postgres::url),
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        private_origins: server_ports.iter().map(|port| format!("http://localhost:{port}")).collect(),
        ..GenkanOptions::new(binary)
    };
    // One host, so that the attacker's account lives where the victim's does.
    let data = Some(folder.join("network"));
    Network::start(&Options { data, hosts: 1, dev_mode: false, genkan: Some(genkan), ..Options::default() })
}

/// Makes the accounts and documents of the trial, and returns the file that describes them.
fn prepare(network: &Network, genkan: &Genkan, server: &Value, folder: &Path) -> Result<PathBuf> {
    let file = folder.join("prepare.json");
    std::fs::write(&file, json!({ "map": network.map(), "server": server }).to_string())?;
    let said = command::run(&mut process::program(network, "hostile/prepare.mjs", Some(&file))?)?;
    let mut world: Value = serde_json::from_str(&said).context("reading what was prepared")?;
    if let Some(world) = world.as_object_mut() {
        world.insert("did".to_owned(), genkan.did.clone().into());
    }
    let file = folder.join("world.json");
    std::fs::write(&file, world.to_string())?;
    Ok(file)
}

/// Gives Genkan a core of its own, and everything else of the network the other cores.
fn pin(network: &Network) -> Result<()> {
    for name in network.members().names() {
        let Some(pid) = network.members().get(name)?.pid() else { continue };
        let cores = if name == "genkan" { GENKAN_CORE.to_owned() } else { other_cores() };
        let mut pin = Command::new("taskset");
        // All threads: a thread that runs already keeps the cores of its own.
        command::run(pin.args(["--all-tasks", "--cpu-list", "--pid", &cores, &pid.to_string()]))?;
    }
    Ok(())
}

fn other_cores() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores > 1 { format!("1-{}", cores - 1) } else { GENKAN_CORE.to_owned() }
}

/// The victim and the attackers.
struct Trial {
    victim: Process,
    attacker: Process,
    names: Value,
}

impl Trial {
    fn start(network: &Network, world: &Path, folder: &Path) -> Result<Self> {
        let start =
            |name: &str, script: &str| Process::start(network, name, script, Some(world), folder, None);
        let (victim, _) = start("victim", "hostile/victim.mjs")?;
        let (attacker, said) = start("attacks", "hostile/attacks.mjs")?;
        let names = said.get("names").cloned().context("the attacks say their names")?;
        Ok(Self { victim, attacker, names })
    }

    fn run(mut self, settings: &Settings) -> Result<(Vec<Row>, Survivors)> {
        let mut rows = Vec::new();
        for role in &settings.roles {
            let all = self.names.get(*role).and_then(Value::as_array).cloned().unwrap_or_default();
            let chosen = all.iter().filter_map(Value::as_str).filter(|name| name.contains(&settings.only));
            let chosen: Vec<String> = chosen.map(str::to_owned).collect();
            if chosen.is_empty() {
                continue;
            }
            if !settings.each.is_zero() {
                for name in &chosen {
                    let one = std::slice::from_ref(name);
                    rows.push(self.compare(role, name, one, settings.each, settings.each)?);
                }
            }
            if !settings.together.is_zero() {
                let harmless = (settings.together / 3).max(Duration::from_secs(20));
                rows.push(self.compare(
                    role,
                    "all of these together",
                    &chosen,
                    harmless,
                    settings.together,
                )?);
            }
        }
        if rows.is_empty() {
            bail!("no attack has such a name: {}", self.names);
        }
        line("  waiting for deletions that are due, if there was an attack of that kind");
        self.attacker.say("survivors")?;
        let survivors = serde_json::from_value(self.attacker.line()?).context("reading the survivors")?;
        Ok((rows, survivors))
    }

    /// Runs some attacks as harmless load, and then as attacks.
    fn compare(
        &mut self,
        role: &str,
        name: &str,
        attacks: &[String],
        harmless_for: Duration,
        harmful_for: Duration,
    ) -> Result<Row> {
        let (harmless, _) = self.measure(attacks, false, harmless_for)?;
        let (harmful, told) = self.measure(attacks, true, harmful_for)?;
        let row = Row { role: role.to_owned(), name: name.to_owned(), harmless, harmful, answers: told };
        line(&format!("  {}", row.summary()));
        Ok(row)
    }

    fn measure(&mut self, attacks: &[String], harmful: bool, length: Duration) -> Result<(Figures, Value)> {
        self.attacker.say(&json!({ "attacks": attacks, "harmful": harmful }).to_string())?;
        sleep(Duration::from_secs(2));
        self.victim.say("begin")?;
        sleep(length);
        self.victim.say("end")?;
        // Its calls end while the attack goes on, so that a call that hangs is seen.
        let figures = serde_json::from_value(self.victim.line()?).context("reading the victim's figures")?;
        self.attacker.say("stop")?;
        let told = self.attacker.line()?;
        if harmful {
            sleep(BREATH);
        }
        Ok((figures, told))
    }
}
