//! `cargo xtask hostile`: whether one user, or a stranger without an account, can make another
//! user's calls fail or wait.
//!
//! * `process` talks to the Node programs of `network/hostile/`: a victim who posts, refreshes a
//!   session, makes linked calls and signs in, and the attacks.
//! * `report` compares what the victim saw under an attack with what it saw under harmless load of
//!   the same volume.
//! * `arrival` says whether the attack arrived at all, by its answers.
//! * `machine` gives Genkan a core of its own, and says what an attack costs it.
//!
//! Genkan has a core of its own. Attackers connect from other loopback addresses than the victim, so
//! limits per address act as on the internet.

mod arrival;
mod machine;
mod process;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::network::genkan::{self, Genkan, GenkanOptions};
use crate::network::{Network, Options, ports};
use crate::provision::postgres::Postgres;
use crate::say::{Step, line};
use crate::{command, workspace};
use machine::{Watched, pin};
use process::Process;
use report::{Half, Row, Survivors};

pub const USAGE: &str = "\
cargo xtask hostile [--as user|stranger|both] [--minutes N] [--each SECONDS] [--only TEXT]
                    [--genkan-binary FILE] [--postgres] [--json]

  Attack a Genkan on a core of its own, with a reference host and a stand-alone PDS, all on loopback.
  Measure a victim who creates records, refreshes a session, makes linked calls and signs in: under
  harmless load of the same volume, and then for as long under attack. What the victim reads as anybody
  may is told and not judged.

  Exit with 1 if a call of the victim fails, if its p99 more than doubles, if it gets through less than
  half of its calls, or if it made too few calls for a p99 (which takes three minutes). Exit with 1 as
  well if an attack did not arrive, if something connected to a port where nothing may, if Genkan took
  256 MiB more memory or has hundreds of metrics more, or if an account is deleted by an app password,
  an app, its host or at once. Print each result.

  A run of both takes 25 minutes: two of preparation, and eleven as a stranger and as a user. Give
  --genkan-binary a release build, because a debug build is too slow for the load. Where the machine
  has other work, only failures and arrivals say something.

  --as user|stranger|both  Attack as a signed-in user, as a stranger without an account, or first as a
                           stranger and then as a user. [default: both]
  --minutes N              Let all attacks run together for N minutes. 0 leaves this out. [default: 5]
  --each SECONDS           Let each attack run by itself for SECONDS first, which makes 30 rows. 0
                           leaves this out. In a short time only failures and a halved number of calls
                           are judged. [default: 0]
  --only TEXT              Run only the attacks whose name contains TEXT.
  --genkan-binary FILE     Attack this Genkan instead of compiling one.
  --postgres               Run Genkan on PostgreSQL instead of SQLite.
  --json                   Print the result as JSON, too.";

/// Ports of the attackers' server, each of which is a DID of its own.
const SERVERS: usize = 16;
/// Names of the origins that never answer. `network/hostile/prepare.mjs` has as many.
const TARPITS: usize = 64;
/// The name of the row in which all attacks run.
const TOGETHER: &str = "all of these together";
/// What is held by an attack that has ended is free again after this time.
const BREATH: Duration = Duration::from_secs(15);

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

    machine::other_cores()?;
    let places = Places::choose()?;
    let network = start_network(binary, postgres.as_ref(), &places, &folder)?;
    let genkan = network.genkan().context("the network has a Genkan")?;
    // With the configuration as its first line, as every member of the network.
    let (server, said) =
        Process::start(&network, "server", "hostile/server.mjs", None, &folder, Some(&places.settings()))?;
    let world = prepare(&network, genkan, &said, &places, &folder)?;
    pin(&network, postgres.as_ref())?;
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
            None | Some("both") => vec!["stranger", "user"],
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
            each: Duration::from_secs(seconds(arguments.number("--each")?, 0)?),
            only: arguments.option("--only")?.unwrap_or_default(),
            json: arguments.flag("--json"),
        })
    }
}

/// Where the attackers' servers listen.
#[derive(Debug)]
struct Places {
    ports: Vec<u16>,
    /// It accepts connections and says nothing.
    silent_port: u16,
    /// Nothing may connect to it: Genkan does not have it among its private origins.
    trap_port: u16,
    /// Nothing listens there, as at a host that is down.
    closed_port: u16,
}

impl Places {
    fn choose() -> Result<Self> {
        Ok(Self {
            ports: (0..SERVERS).map(|_| ports::free()).collect::<Result<_>>()?,
            silent_port: ports::free()?,
            trap_port: ports::free()?,
            closed_port: ports::free()?,
        })
    }

    fn settings(&self) -> Value {
        json!({ "ports": self.ports, "silentPort": self.silent_port, "trapPort": self.trap_port })
    }

    fn closed_origin(&self) -> String {
        format!("http://localhost:{}", self.closed_port)
    }

    /// The origins that Genkan may connect to although they are at loopback.
    fn private_origins(&self) -> Vec<String> {
        let servers = self.ports.iter().map(|port| format!("http://localhost:{port}"));
        let tarpits = (0..TARPITS).map(|index| format!("https://t{index}.example.com:{}", self.silent_port));
        servers.chain(tarpits).chain([self.closed_origin()]).collect()
    }
}

fn start_network(
    binary: PathBuf,
    postgres: Option<&Postgres>,
    places: &Places,
    folder: &Path,
) -> Result<Network> {
    let settings = [("GENKAN_WORKERS", "1"), ("GENKAN_RATE_CREATE_ACCOUNT", "1000/5m")];
    let genkan = GenkanOptions {
        database_url: postgres.map(Postgres::url),
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        private_origins: places.private_origins(),
        ..GenkanOptions::new(binary)
    };
    // One host, so that the attacker's account lives where the victim's does.
    let data = Some(folder.join("network"));
    Network::start(&Options { data, hosts: 1, dev_mode: false, genkan: Some(genkan), ..Options::default() })
}

/// Makes the accounts and documents of the trial, and returns the file that describes them.
fn prepare(
    network: &Network,
    genkan: &Genkan,
    server: &Value,
    places: &Places,
    folder: &Path,
) -> Result<PathBuf> {
    let step = Step::start("accounts and documents");
    let file = folder.join("prepare.json");
    let settings = json!({
        "map": network.map(),
        "server": server,
        "silentPort": places.silent_port,
        "closedOrigin": places.closed_origin(),
    });
    std::fs::write(&file, settings.to_string())?;
    let said = command::run(&mut process::program(network, "hostile/prepare.mjs", Some(&file))?)?;
    let mut world: Value = serde_json::from_str(&said).context("reading what was prepared")?;
    if let Some(world) = world.as_object_mut() {
        world.insert("did".to_owned(), genkan.did.clone().into());
    }
    let file = folder.join("world.json");
    std::fs::write(&file, world.to_string())?;
    step.done("");
    Ok(file)
}

/// The victim and the attackers.
struct Trial {
    victim: Process,
    attacker: Process,
    names: Value,
    genkan: Watched,
}

impl Trial {
    fn start(network: &Network, world: &Path, folder: &Path) -> Result<Self> {
        let start =
            |name: &str, script: &str| Process::start(network, name, script, Some(world), folder, None);
        let (victim, _) = start("victim", "hostile/victim.mjs")?;
        let (attacker, said) = start("attacks", "hostile/attacks.mjs")?;
        let names = said.get("names").cloned().context("the attacks say their names")?;
        Ok(Self { victim, attacker, names, genkan: Watched::new(network)? })
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
                    rows.push(self.compare(role, name, one, settings.each)?);
                }
            }
            if !settings.together.is_zero() {
                rows.push(self.compare(role, TOGETHER, &chosen, settings.together)?);
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
    fn compare(&mut self, role: &str, name: &str, attacks: &[String], length: Duration) -> Result<Row> {
        let harmless = self.measure(attacks, false, length)?;
        let harmful = self.measure(attacks, true, length)?;
        let is_long = name == TOGETHER;
        let row = Row { role: role.to_owned(), name: name.to_owned(), is_long, harmless, harmful };
        line(&format!("  {}", row.summary()));
        Ok(row)
    }

    fn measure(&mut self, attacks: &[String], harmful: bool, length: Duration) -> Result<Half> {
        // It is measured already when the attack begins, whose first burst may be the worst.
        self.victim.say("begin")?;
        sleep(Duration::from_secs(1));
        self.attacker.say(&json!({ "attacks": attacks, "harmful": harmful }).to_string())?;
        let cost = self.genkan.wait(length)?;
        self.victim.say("end")?;
        // Its calls end while the attack goes on, so that a call that hangs is seen.
        let victim = serde_json::from_value(self.victim.line()?).context("reading the victim's figures")?;
        self.attacker.say("stop")?;
        let told = serde_json::from_value(self.attacker.line()?).context("reading what the attacks tell")?;
        if harmful {
            sleep(BREATH);
        }
        Ok(Half { victim, told, cost })
    }
}
