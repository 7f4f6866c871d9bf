//! `cargo xtask scale`: Genkan on large tables.
//!
//! * `fill` has the statements that make the rows, and `database` runs them.
//! * `process` measures the process: CPU time, memory, and the rows that sweeps removed.
//! * `report` prints what `network/scale/measure.mjs` and the others have measured.

mod database;
mod fill;
mod process;
mod report;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::network::genkan::{self, GenkanOptions};
use crate::network::{Network, Options};
use crate::say::{Step, line};
use crate::{command, workspace};
use database::Database;
use fill::Sample;
use process::Observer;
pub(crate) use process::cpu_seconds;
use report::{Calls, Report};

pub const USAGE: &str = "\
cargo xtask scale [--rows N] [--sqlite-rows N] [--seconds N] [--minutes N] [--genkan-binary FILE] [--json]

  Fill a PostgreSQL database and a SQLite file as years of use would, and measure Genkan on each,
  with a real host on loopback: the time until it is ready, what it costs when idle, the p99 of each
  kind of call while it sweeps and afterwards, and each sweep.

  Exit with 1 if a call or a job fails. A sweep stops after a minute and goes on ten minutes later, so
  the report says how many rows each has left. Everything that was made is removed at the end.

  --rows N              Rows in the largest tables (sessions, refresh tokens) on PostgreSQL. All
                        tables together have about 6 N rows. 0 leaves PostgreSQL out. [default: 5000000]
  --sqlite-rows N       The rows on SQLite. 0 leaves it out. [default: 2000000]
  --seconds N           Measure calls, and the idle process, for N seconds each. [default: 60]
  --minutes N           End with an error after N minutes. [default: 60]
  --genkan-binary FILE  Measure this Genkan, a release build, instead of compiling one.
  --json                Print the result as JSON, too.";

/// Bytes on disk for each of `--rows`, with indexes and the write-ahead log.
const BYTES_PER_ROW: u64 = 4_000;
/// Sweeps run once in ten minutes, and first at the start.
const SETTLED: Duration = Duration::from_secs(15);

/// High limits, because all calls come from one address.
const SETTINGS: [(&str, &str); 11] = [
    ("GENKAN_RATE_GLOBAL", "4000000000/5m"),
    ("GENKAN_RATE_CREATE_ACCOUNT", "1000000/5m"),
    ("GENKAN_RATE_CREATE_SESSION", "1000000/5m"),
    ("GENKAN_RATE_CREATE_SESSION_DAILY", "1000000/1d"),
    ("GENKAN_RATE_SIGN_IN_ADDRESS", "1000000/5m"),
    ("GENKAN_RATE_SIGN_IN_ACCOUNT", "1000000/5m"),
    ("GENKAN_RATE_OAUTH_PAR", "1000000/5m"),
    ("GENKAN_RATE_OAUTH_TOKEN", "1000000/5m"),
    ("GENKAN_RATE_OAUTH_REVOKE", "1000000/5m"),
    ("GENKAN_RATE_USE_CODE", "1000000/5m"),
    ("GENKAN_REQUEST_LOG", "false"),
];

/// The options of a run.
#[derive(Debug)]
struct Settings {
    binary: std::path::PathBuf,
    seconds: u64,
    end: Instant,
}

/// Runs the command. Succeeds if no call failed.
pub fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let rows = arguments.number("--rows")?.unwrap_or(5_000_000);
    let sqlite_rows = arguments.number("--sqlite-rows")?.unwrap_or(2_000_000);
    let seconds = u64::try_from(arguments.number("--seconds")?.unwrap_or(60))?;
    let minutes = u64::try_from(arguments.number("--minutes")?.unwrap_or(60))?;
    let given = arguments.option("--genkan-binary")?;
    let json = arguments.flag("--json");
    arguments.end()?;
    let needed = u64::try_from(rows.max(sqlite_rows))? * BYTES_PER_ROW;
    for place in [workspace::target(), std::env::temp_dir()] {
        let free = free_bytes(&place)?;
        ensure!(free > needed, "{} has {free} bytes free, and {needed} are needed", place.display());
    }
    let binary = given.map_or_else(genkan::build, |file| Ok(std::path::absolute(file)?))?;
    let settings = Settings { binary, seconds, end: Instant::now() + Duration::from_mins(minutes) };
    let folder = workspace::target().join("scale");
    let mut reports = Vec::new();
    for (is_postgres, rows) in [(true, rows), (false, sqlite_rows)] {
        if rows > 0 {
            let made = measure(&settings, is_postgres, rows, &folder);
            std::fs::remove_dir_all(&folder)?;
            let report = made?;
            report.print();
            reports.push(report);
        }
    }
    let is_passed = reports.iter().all(Report::is_passed);
    if json {
        println!("{}", json!({ "passed": is_passed, "databases": reports }));
    }
    Ok(if is_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(settings: &Settings, is_postgres: bool, rows: usize, folder: &Path) -> Result<Report> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    let server = is_postgres.then(Database::postgres).transpose()?;
    let options = GenkanOptions {
        database_url: server.as_ref().and_then(Database::url),
        settings: SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        ..GenkanOptions::new(settings.binary.clone())
    };
    let data = Some(folder.join("network"));
    let network = Network::start(&Options {
        data,
        hosts: 1,
        dev_mode: false,
        genkan: Some(options),
        ..Options::default()
    })?;
    let genkan = network.genkan().context("the network has a Genkan")?;
    let database = server.unwrap_or_else(|| Database::Sqlite { file: genkan.data.join("genkan.db") });
    let run = Run { settings, network: &network, database: &database, folder, rows };
    run.measure()
}

/// One database with its Genkan.
struct Run<'a> {
    settings: &'a Settings,
    network: &'a Network,
    database: &'a Database,
    folder: &'a Path,
    rows: usize,
}

impl Run<'_> {
    fn measure(&self) -> Result<Report> {
        let person = self.story("prepare")?;
        let did = person.get("did").and_then(Value::as_str).context("a person has a DID")?;
        self.network.members().get("genkan")?.stop()?;
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let began = Instant::now();
        let all_rows =
            self.database.fill(self.network, self.folder, &Sample { did, now, rows: self.rows })?;
        let filled = began.elapsed();
        let bytes = self.database.size()?;
        self.database.forget_statistics()?;
        self.check_time()?;

        let began = Instant::now();
        self.network.members().get("genkan")?.start()?;
        let ready = began.elapsed();
        let genkan = self.network.genkan().context("the network has a Genkan")?;
        let observer = Observer::start(genkan.operations_port);
        let mut report = Report {
            database: self.database.name(),
            rows: all_rows,
            bytes,
            filled_seconds: filled.as_secs_f64(),
            ready_seconds: ready.as_secs_f64(),
            ..Report::default()
        };
        report.busy = self.calls("calls right after the start, beside the first sweeps")?;
        self.check_time()?;
        self.rest(&mut report, &observer)?;
        report.quiet = self.calls("calls")?;
        report.listing_seconds = self.listing()?;
        report.scanned_tables = self.database.scanned_tables()?;
        let seen = observer.end();
        (report.sweeps, report.failed_jobs, report.most_resident) =
            (seen.sweeps, seen.failed_jobs, seen.most_resident);
        self.network.members().get("genkan")?.stop()?;
        report.left = self.database.due(self.network, self.folder, now)?;
        Ok(report)
    }

    /// Waits until the sweeps have ended, and measures the idle process.
    fn rest(&self, report: &mut Report, observer: &Observer) -> Result<()> {
        let step = Step::start("the sweeps end");
        while observer.is_sweeping(SETTLED) && Instant::now() < self.settings.end {
            sleep(Duration::from_secs(1));
        }
        step.done("");
        let step = Step::start("the idle process");
        let pid = self.network.members().get("genkan")?.pid().context("Genkan runs")?;
        let (cpu, before) = (cpu_seconds(pid)?, self.database.counters()?);
        sleep(Duration::from_secs(self.settings.seconds));
        let after = self.database.counters()?;
        let minutes = Duration::from_secs(self.settings.seconds).as_secs_f64() / 60.0;
        report.idle_cpu_seconds = (cpu_seconds(pid)? - cpu) / minutes;
        report.idle_transactions = after.transactions.saturating_sub(before.transactions);
        report.idle_rows_scanned = after.scanned.saturating_sub(before.scanned);
        report.idle_resident = observer.resident();
        step.done("");
        Ok(())
    }

    fn calls(&self, what: &str) -> Result<Calls> {
        let step = Step::start(what);
        let calls = serde_json::from_value(self.story("measure")?).context("reading the calls")?;
        step.done("");
        Ok(calls)
    }

    /// Lists accounts as an operator does. Returns how long that takes.
    fn listing(&self) -> Result<f64> {
        let genkan = self.network.genkan().context("the network has a Genkan")?;
        let began = Instant::now();
        genkan.cli(&["account", "list", "--limit", "1000", "--json"])?;
        Ok(began.elapsed().as_secs_f64())
    }

    fn story(&self, step: &str) -> Result<Value> {
        let file = self.folder.join("measure.json");
        let settings = json!({
            "map": self.network.map(),
            "step": step,
            "state": self.folder.join("people.json"),
            "accounts": fill::accounts(self.rows),
            "seconds": self.settings.seconds,
        });
        std::fs::write(&file, settings.to_string())?;
        let said = command::run(&mut self.network.program("scale/measure.mjs", &file)?)?;
        serde_json::from_str(&said).context("reading what was measured")
    }

    fn check_time(&self) -> Result<()> {
        ensure!(Instant::now() < self.settings.end, "--minutes are over");
        Ok(())
    }
}

/// Returns the bytes that are free on the disk of a folder.
fn free_bytes(folder: &Path) -> Result<u64> {
    let said = command::run(Command::new("df").args(["--output=avail", "-B1"]).arg(folder))?;
    let last = said.lines().last().context("df prints a line")?;
    line(&format!("  {}: {} GiB free", folder.display(), last.trim().parse::<u64>()? >> 30));
    Ok(last.trim().parse()?)
}
