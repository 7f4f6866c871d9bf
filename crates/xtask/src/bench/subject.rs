//! What is measured: nginx and Genkan, each alone on a core, before the same stub.

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

/// The core that the measured proxy has to itself.
const PROXY_CORE: &str = "0";
/// The core of the clients and of the stub.
pub(super) const CLIENT_CORE: &str = "1";

/// A running proxy.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) name: String,
    /// Where it listens.
    pub(super) address: String,
    /// Header fields that its clients send.
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

    /// Gives it a line to read.
    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("its input is ours to write")?;
        Ok(writeln!(stdin, "{line}")?)
    }

    /// The next line that it prints.
    pub(super) fn line(&mut self) -> Result<String> {
        let stdout = self.child.stdout.as_mut().context("its output is ours to read")?;
        let mut line = String::new();
        // One line at a time is asked for and printed, so that nothing is lost in this reader.
        BufReader::with_capacity(1, stdout).read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Asked first, since nginx then ends its worker too. It may have ended by itself.
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

/// The host behind both.
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

/// A program on one core.
pub(super) fn pinned(core: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", core, program]);
    command
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn wait_for(port: u16) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if Instant::now() > until {
            bail!("nobody listens on port {port}");
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// An empty folder for one run.
fn folder(name: &str) -> Result<PathBuf> {
    let folder = workspace::target().join("bench").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
