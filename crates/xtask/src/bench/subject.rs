//! The proxies under test, nginx and Genkan, each on a core of its own and before a stand-in for a
//! host.

pub(super) mod genkan;
pub(super) mod nginx;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{guard, workspace};

/// The core of the proxies. Only one of them is asked at a time.
const PROXY_CORE: &str = "0";
/// The core of the clients and of the stub.
pub(super) const CLIENT_CORE: &str = "1";

/// A running proxy.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) name: String,
    /// Where it listens.
    pub(super) address: String,
    /// Header fields that the clients send.
    pub(super) fields: Vec<String>,
    process: Running,
}

impl Subject {
    pub(super) fn pid(&self) -> u32 {
        self.process.child.id()
    }
}

/// A process that ends with this value.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
}

impl Running {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let child =
            command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?;
        guard::watch(child.id())?;
        Ok(Self { child })
    }

    /// Writes a line to the process's standard input.
    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("the process has a standard input")?;
        Ok(writeln!(stdin, "{line}")?)
    }

    /// Reads the next line of the process's standard output.
    pub(super) fn line(&mut self) -> Result<String> {
        let stdout = self.child.stdout.as_mut().context("the process has a standard output")?;
        let mut line = String::new();
        // A buffer of one byte: the reader is dropped after this line, and must not have read more.
        BufReader::with_capacity(1, stdout).read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM first, with which nginx ends its worker too. The process may have ended by
        // itself.
        let _ = i32::try_from(self.child.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        let until = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        guard::forget(self.child.id());
    }
}

/// The stand-in for the account's host, which answers at once.
#[derive(Debug)]
pub(super) struct Stub {
    pub(super) address: String,
    _process: Running,
}

impl Stub {
    pub(super) fn start(tool: &str, port: u16) -> Result<Self> {
        let address = format!("127.0.0.1:{port}");
        let mut command = pinned(CLIENT_CORE, tool);
        let process = Running::start(command.args(["stub", &address]).stdout(Stdio::null()))?;
        wait_for(port)?;
        Ok(Self { address, _process: process })
    }
}

/// Returns a command that runs a program on one core.
pub(super) fn pinned(core: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", core, program]);
    command
}

/// Returns a port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn wait_for(port: u16) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if Instant::now() > until {
            bail!("after 20 s no process listens on port {port}");
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Returns an empty folder for one run.
fn folder(name: &str) -> Result<PathBuf> {
    let folder = workspace::target().join("bench").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
