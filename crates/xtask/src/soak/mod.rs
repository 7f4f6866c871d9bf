//! `cargo xtask soak`: a long run of three Genkans under faults, after which nothing that was
//! acknowledged may be missing.
//!
//! * `database` is PostgreSQL under Patroni, and the network adds replicas, a balancer and hosts.
//! * `load` runs the people (`network/soak/load.mjs`), who write down what was acknowledged.
//! * `faults` kills, stops, restarts and upgrades processes meanwhile.
//! * `metrics` reads what the replicas say of themselves, and `memory` whether they grow.
//! * `check` compares the journal with the running system (`network/soak/check.mjs`), and `verdict`
//!   judges.

mod check;
mod database;
mod faults;
mod load;
mod memory;
mod metrics;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::arguments::Arguments;
use crate::network::genkan::{self, GenkanOptions, Replicas};
use crate::network::{Network, Options};
use crate::provision::cluster;
use crate::say::{line, seconds};
use crate::{older, workspace};
use database::Database;
use faults::Faults;
use load::Load;
use metrics::{Logs, Metrics};

pub const USAGE: &str = "\
cargo xtask soak [--minutes N] [--from COMMIT|FILE] [--genkan-binary FILE] [--kills N] [--people N]
                 [--clocks SECONDS] [--keep] [--json] [--plant]

  Run three Genkans behind HAProxy on PostgreSQL under Patroni, with two reference hosts, a
  stand-alone PDS with linked accounts, a PLC directory and a mail server, all on loopback. People,
  their browsers and apps use it all the time. Meanwhile the replicas are upgraded from an older
  Genkan one by one, their clocks differ by ± 90 s, processes are killed, a host and the directory
  hang and go away, the leader of the database is killed twice, and the replicas are restarted one by
  one.

  Exit with 1 if an acknowledged write or ending is missing, someone is logged out, a request fails
  during the rolling restart or upgrade or by a host or directory that it does not need, Genkan
  answers 500, panics or ends by itself, an operation or a fresh token is refused, or memory grows.
  Print each result. Journal and logs are kept in target/soak/ until the next run.

  --minutes N            Let the load run for N minutes. [default: 30]
  --from COMMIT|FILE     Start with the Genkan of this commit, compiled into the cache, or with this
                         binary. [default: HEAD^]
  --genkan-binary FILE   Upgrade to this Genkan instead of compiling one.
  --kills N              Kill N processes. [default: 100 in 30 minutes]
  --people N             Let N people with sessions and apps act at once. [default: 10]
  --clocks SECONDS       Let the clock of one replica be SECONDS ahead and that of another behind.
                         [default: 90]
  --keep                 Keep the network running after the result, until Ctrl-C.
  --json                 Print the result as JSON, too.
  --plant                Add made-up rows to the journal, which the check must then find missing.
                         The run fails.";

/// Short lifetimes and pauses, so that a short run meets what a long one does. The rate limits are
/// high, because all people come from one address.
const SETTINGS: [(&str, &str); 15] = [
    ("GENKAN_ACCESS_LIFETIME", "5m"),
    ("GENKAN_OAUTH_ACCESS_LIFETIME", "5m"),
    ("GENKAN_SHUTDOWN_LAG", "2s"),
    ("GENKAN_SHUTDOWN_GRACE", "10s"),
    ("GENKAN_RATE_GLOBAL", "4000000000/5m"),
    ("GENKAN_RATE_CREATE_ACCOUNT", "1000000/5m"),
    ("GENKAN_RATE_CREATE_SESSION", "1000000/5m"),
    ("GENKAN_RATE_CREATE_SESSION_DAILY", "1000000/1d"),
    ("GENKAN_RATE_SIGN_IN_ADDRESS", "1000000/5m"),
    ("GENKAN_RATE_SIGN_IN_ACCOUNT", "1000000/5m"),
    ("GENKAN_RATE_UPDATE_HANDLE", "1000000/5m"),
    ("GENKAN_RATE_UPDATE_HANDLE_DAILY", "1000000/1d"),
    ("GENKAN_RATE_OAUTH_PAR", "1000000/5m"),
    ("GENKAN_RATE_OAUTH_TOKEN", "1000000/5m"),
    ("GENKAN_RATE_USE_CODE", "1000000/5m"),
];

/// The life of the tokens that the external PDS gives to Genkan. Genkan refreshes them after about a
/// minute.
const EXTERNAL_TOKEN_AGE: Duration = Duration::from_mins(2);

/// The options of a run.
#[derive(Debug)]
struct Settings {
    length: Duration,
    kills: usize,
    people: usize,
    /// How many seconds two of the clocks are off.
    clocks: i32,
    older: PathBuf,
    newer: PathBuf,
    keep: bool,
    json: bool,
    plant: bool,
}

/// Runs the command. Succeeds if nothing was lost and nothing failed that must not fail.
pub fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let end = crate::network_command::StopSignal::watch()?;
    let settings = Settings::read(&mut arguments)?;
    arguments.end()?;
    let folder = workspace::target().join("soak");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;

    let programs = cluster::programs()?;
    let mut database = Database::start(&programs)?;
    let network = start_network(&settings, &programs, &database, &folder)?;
    let load = Load::start(&network, &folder, settings.people)?;
    let metrics = Metrics::watch(network.replicas());
    let faults = Faults::new(&network, &mut database, &programs, &load);
    let timeline = faults.run(&settings)?;
    line("  the load ends");
    let figures = load.end()?;
    let samples = metrics.end();
    if settings.plant {
        check::plant(&folder)?;
    }
    let checked = check::run(&network, &folder)?;
    let logs = Logs::read(&folder.join("network").join("logs"), network.replicas())?;
    let run = verdict::Run { timeline, samples, logs, figures, length: settings.length };
    let result = verdict::Verdict::judge(&checked, &json_lines(&folder.join("failures.jsonl"))?, run);
    result.print(settings.json);
    line(&format!("  journal, failed requests and logs: {}", folder.display()));
    if settings.keep {
        line("  --keep: Ctrl-C stops everything");
        end.wait();
    }
    Ok(if result.is_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Settings {
    fn read(arguments: &mut Arguments) -> Result<Self> {
        let minutes = arguments.number("--minutes")?.unwrap_or(30).max(1);
        let kills = arguments.number("--kills")?.unwrap_or_else(|| (minutes * 100).div_ceil(30));
        let people = arguments.number("--people")?.unwrap_or(10);
        let clocks = i32::try_from(arguments.number("--clocks")?.unwrap_or(90))?;
        let from = arguments.option("--from")?.unwrap_or_else(|| "HEAD^".to_owned());
        let (keep, json) = (arguments.flag("--keep"), arguments.flag("--json"));
        let plant = arguments.flag("--plant");
        let given = arguments.option("--genkan-binary")?;
        let newer = given.map_or_else(genkan::build, |file| Ok(std::path::absolute(file)?))?;
        let older = older::binary(&from)?;
        let length = Duration::from_secs(60 * u64::try_from(minutes)?);
        line(&format!("soak: {}, {kills} kills, {people} people, from {from}", seconds(length)));
        Ok(Self { length, kills, people, clocks, older, newer, keep, json, plant })
    }
}

fn start_network(
    settings: &Settings,
    programs: &cluster::Programs,
    database: &Database,
    folder: &std::path::Path,
) -> Result<Network> {
    let genkan = GenkanOptions {
        database_url: Some(database.url()),
        settings: SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        replicas: Some(Replicas { count: 3, balancer: programs.clone() }),
        ..GenkanOptions::new(settings.older.clone())
    };
    Network::start(&Options {
        data: Some(folder.join("network")),
        genkan: Some(genkan),
        dev_mode: false,
        external_token_age: Some(EXTERNAL_TOKEN_AGE),
        ..Options::default()
    })
}

/// Milliseconds since 1970, as the load notes its requests.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a file of JSON lines. A file that does not exist has none.
fn json_lines(file: &std::path::Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let read =
        |line: &str| serde_json::from_str(line).with_context(|| format!("in {}: {line}", file.display()));
    text.lines().map(read).collect()
}
