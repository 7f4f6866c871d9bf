//! `cargo xtask upgrade`: an older Genkan and the one of this clone on one database.
//!
//! On PostgreSQL both run at the same time, as in a rolling upgrade. On SQLite, which has one
//! process, they run one after the other. `network/upgrade/story.mjs` does what people do, through
//! the one and the other, and `report` prints what it says.

mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::arguments::Arguments;
use crate::network::genkan::{self, Genkan, GenkanOptions, Replicas};
use crate::network::member::{Member, Ready};
use crate::network::{Network, Options, ports};
use crate::provision::cluster;
use crate::provision::postgres::Postgres;
use crate::say::{Step, line};
use crate::{command, older, workspace};
use report::{Report, Row};

pub const USAGE: &str = "\
cargo xtask upgrade [--from COMMIT|FILE] [--genkan-binary FILE] [--only sqlite|postgres] [--json]

  Run an older Genkan and this one on one database, with real hosts on loopback.

  On PostgreSQL the older one runs first, then this one migrates and starts beside it. People sign
  up, sign in, refresh, rename, use apps and links, are taken down and more, each at one of the two,
  and the other must see it. Then the older one is restarted on the new schema, and all of it is
  done once more.

  On SQLite the two take turns on one file, and each finds what the other has made. A second
  process on the file must end at once and name the reason, or both must see what the other does.

  Exit with 1 if anything is missing or refused.

  --from COMMIT|FILE     The older Genkan: a commit, compiled into the cache, or a binary.
                         [default: HEAD^]
  --genkan-binary FILE   Use this Genkan instead of compiling one.
  --only sqlite|postgres Use only this database.
  --json                 Print the result as JSON, too.";

/// High limits, because all people come from one address.
const SETTINGS: [(&str, &str); 10] = [
    ("GENKAN_RATE_GLOBAL", "4000000000/5m"),
    ("GENKAN_RATE_CREATE_ACCOUNT", "1000000/5m"),
    ("GENKAN_RATE_CREATE_SESSION", "1000000/5m"),
    ("GENKAN_RATE_CREATE_SESSION_DAILY", "1000000/1d"),
    ("GENKAN_RATE_SIGN_IN_ADDRESS", "1000000/5m"),
    ("GENKAN_RATE_SIGN_IN_ACCOUNT", "1000000/5m"),
    ("GENKAN_RATE_UPDATE_HANDLE", "1000000/5m"),
    ("GENKAN_RATE_OAUTH_PAR", "1000000/5m"),
    ("GENKAN_RATE_OAUTH_TOKEN", "1000000/5m"),
    ("GENKAN_RATE_USE_CODE", "1000000/5m"),
];

/// A second process sees at once that the file is taken.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

/// The two binaries.
#[derive(Debug)]
struct Pair {
    older: PathBuf,
    newer: PathBuf,
}

/// Runs the command. Succeeds if each version found what the other did.
pub fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let from = arguments.option("--from")?.unwrap_or_else(|| "HEAD^".to_owned());
    let given = arguments.option("--genkan-binary")?;
    let only = arguments.option("--only")?;
    let json = arguments.flag("--json");
    arguments.end()?;
    let newer = given.map_or_else(genkan::build, |file| Ok(std::path::absolute(file)?))?;
    let pair = Pair { older: older::binary(&from)?, newer };
    let folder = workspace::target().join("upgrade");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let is_wanted = |database: &str| only.as_deref().is_none_or(|only| only == database);
    let mut report = Report::default();
    if is_wanted("postgres") {
        side_by_side(&pair, &folder.join("postgres"), &mut report)?;
    }
    if is_wanted("sqlite") {
        in_turns(&pair, &folder.join("sqlite"), &mut report)?;
    }
    report.print(json);
    line(&format!("  logs: {}", folder.display()));
    Ok(if report.is_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// PostgreSQL: the older version, then the new one beside it, then the older one restarted.
fn side_by_side(pair: &Pair, folder: &Path, report: &mut Report) -> Result<()> {
    let database = Postgres::start()?;
    let replicas = Replicas { count: 2, balancer: cluster::programs()? };
    let genkan = GenkanOptions {
        database_url: Some(database.url()),
        replicas: Some(replicas),
        ..options(&pair.older)
    };
    let network = start_network(genkan, folder)?;
    let [first, second] = network.replicas() else { anyhow::bail!("there are two replicas") };
    let mut story = Story { network: &network, folder, database: "PostgreSQL", report };
    let (old, new) = (("older", first.listen_port()), ("newer", second.listen_port()));

    story.tell("make", &[old])?;
    start_as(&network, second, &pair.newer)?;
    story.report.note("PostgreSQL", "the newer one starts beside the older one", None);
    let log = folder.join("network").join("logs").join(format!("{}.log", second.name()));
    story.report.set_steps(steps_in(&std::fs::read_to_string(&log).unwrap_or_default()));
    story.tell("find", &[new, old])?;
    story.tell("cross", &[old, new])?;
    story.tell("make", &[new])?;
    let restarted = start_as(&network, first, &pair.older);
    story.report.note("PostgreSQL", "the older one starts on the new schema", restarted.as_ref().err());
    if restarted.is_ok() {
        story.tell("find", &[old, new])?;
        story.tell("cross", &[old, new])?;
    }
    start_as(&network, first, &pair.newer)?;
    story.tell("find", &[("newer again", first.listen_port()), new])
}

/// SQLite: the older version, the new one, the older one and the new one, one after the other.
fn in_turns(pair: &Pair, folder: &Path, report: &mut Report) -> Result<()> {
    let network = start_network(options(&pair.older), folder)?;
    let genkan = network.genkan().context("the network has a Genkan")?.clone();
    let port = genkan.listen_port();
    let mut story = Story { network: &network, folder, database: "SQLite", report };
    story.tell("make", &[("older", port)])?;
    second_process(&mut story, &genkan, "newer beside a running older one", &pair.newer)?;
    start_as(&network, &genkan, &pair.newer)?;
    story.tell("find", &[("newer", port)])?;
    story.tell("make", &[("newer", port)])?;
    second_process(&mut story, &genkan, "newer beside a running newer one", &pair.newer)?;
    let restarted = start_as(&network, &genkan, &pair.older);
    story.report.note("SQLite", "the older one starts on the new schema", restarted.as_ref().err());
    if restarted.is_ok() {
        story.tell("find", &[("older again", port)])?;
    }
    start_as(&network, &genkan, &pair.newer)?;
    story.tell("find", &[("newer again", port)])
}

/// Starts a second process on the file of a running one. It must be refused, or both must see what
/// the other does.
fn second_process(story: &mut Story<'_>, genkan: &Genkan, what: &str, binary: &Path) -> Result<()> {
    let name = format!("a second process on one file: {what}");
    let mut spec = genkan.spec(story.folder);
    binary.clone_into(&mut spec.program);
    spec.log = story.folder.join(format!("{what}.log"));
    // Ports of its own, since the running process has those of the settings.
    let [port, operations, front] = [ports::free()?, ports::free()?, ports::free()?];
    spec.ready = Ready::Http { port: operations, path: "/readyz".to_owned() };
    for (name, port) in
        [("GENKAN_LISTEN", port), ("GENKAN_OPS_LISTEN", operations), ("GENKAN_DIRECTORY_FRONT_LISTEN", front)]
    {
        spec.environment.push((name.to_owned(), format!("127.0.0.1:{port}")));
    }
    let began = Instant::now();
    let mut second = Member::new("second", spec);
    if let Err(error) = second.start() {
        // A crash or a start that hangs is no refusal.
        let is_refusal = is_refusal(&format!("{error:#}")) && began.elapsed() < REFUSED_WITHIN;
        let error = error.context(format!("after {:?}", began.elapsed()));
        story.report.note(story.database, &format!("{name}, is refused"), (!is_refusal).then_some(&error));
        return Ok(());
    }
    story.report.note(story.database, &format!("{name}, starts"), None);
    story.tell("cross", &[("running", genkan.listen_port()), ("second", port)])?;
    second.stop()
}

/// Whether a process ended by itself while it started, because another one has the file.
fn is_refusal(error: &str) -> bool {
    error.contains("ended while starting")
        && error.contains("another Genkan serves from")
        && !error.contains("panicked")
}

/// How many steps of the schema a log tells of.
fn steps_in(log: &str) -> usize {
    log.lines().filter(|line| line.contains("the schema has a new step")).count()
}

fn options(binary: &Path) -> GenkanOptions {
    let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    GenkanOptions { settings, ..GenkanOptions::new(binary.to_owned()) }
}

fn start_network(genkan: GenkanOptions, folder: &Path) -> Result<Network> {
    let data = Some(folder.join("network"));
    Network::start(&Options { data, hosts: 1, dev_mode: false, genkan: Some(genkan), ..Options::default() })
}

/// Stops a process and starts it as another binary.
fn start_as(network: &Network, genkan: &Genkan, binary: &Path) -> Result<()> {
    let mut member = network.members().get(genkan.name())?;
    let step = Step::start(format!("{} starts as {}", genkan.name(), binary.display()));
    member.stop()?;
    binary.clone_into(&mut member.spec_mut().program);
    member.start()?;
    step.done("");
    Ok(())
}

/// The Node program that does what people do.
struct Story<'a> {
    network: &'a Network,
    folder: &'a Path,
    database: &'static str,
    report: &'a mut Report,
}

impl Story<'_> {
    /// Runs one step of the program. A door is a process by its name and port.
    fn tell(&mut self, step: &str, doors: &[(&str, u16)]) -> Result<()> {
        let said = Step::start(format!(
            "{step}: {}",
            doors.iter().map(|door| door.0).collect::<Vec<_>>().join(", ")
        ));
        let settings = json!({
            "map": self.network.map(),
            "step": step,
            "doors": doors,
            "state": self.folder.join("state.json"),
        });
        let file = self.folder.join("story.json");
        std::fs::write(&file, settings.to_string())?;
        let printed = command::run(&mut self.network.program("upgrade/story.mjs", &file)?)?;
        let rows: Vec<Row> = serde_json::from_str(&printed).context("reading what the story says")?;
        let failed = rows.iter().filter(|row| row.failed.is_some()).count();
        said.done(&format!("{} checks, {failed} failed", rows.len()));
        self.report.extend(self.database, rows);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_that_names_the_other_process_is_a_refusal() {
        let of = |said: &str| is_refusal(&format!("second ended while starting (exit status: 1)\n{said}"));
        assert!(of("Error: another Genkan serves from /data/genkan.db; stop it"));
        assert!(!of("Error: the address is in use"));
        assert!(!of("panicked: another Genkan serves from /data/genkan.db; stop it"));
        assert!(!is_refusal("second is not ready after 90s\nanother Genkan serves from /data/genkan.db"));
    }

    #[test]
    fn steps_of_the_schema_are_counted() {
        assert_eq!(steps_in("INFO serving\nINFO the schema has a new step: handle claims (11)\n"), 1);
        assert_eq!(steps_in(""), 0);
    }
}
