//! Genkan as a child process.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::ports::Ports;
use crate::{Browser, Client, Process};

/// A Genkan that serves.
#[derive(Debug)]
pub struct Genkan {
    process: Process,
    ports: Ports,
}

/// The result of a command.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit status.
    pub status: i32,
    /// What it printed, errors too.
    pub output: String,
}

impl Ran {
    /// Returns the output of a successful command.
    ///
    /// # Panics
    ///
    /// If it did not.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status == 0, "exit {}: {}", self.status, self.output);
        self.output
    }
}

impl Genkan {
    pub(super) async fn start(
        program: &Path,
        variables: &[(String, String)],
        ports: Option<Ports>,
        more: &[(String, String)],
    ) -> Self {
        let mut this = Self::launch(program, variables, ports, more);
        this.ready().await;
        this
    }

    pub(super) fn launch(
        program: &Path,
        variables: &[(String, String)],
        ports: Option<Ports>,
        more: &[(String, String)],
    ) -> Self {
        let ports = ports.unwrap_or_else(Ports::free);
        let variables = [variables, &ports.variables(), more].concat();
        Self { process: Process::start(program, &["serve"], &variables), ports }
    }

    async fn ready(&mut self) {
        let start = Instant::now();
        loop {
            let request = self.ops().request(http::Method::GET, "/readyz").body(String::new()).unwrap();
            // The port may be closed at first, so a failed connection is no error here.
            if let Ok(answer) = self.ops().try_send(request).await
                && answer.status == 200
            {
                return;
            }
            // A Genkan that cannot start would otherwise use up the whole time limit before its
            // message is seen.
            if let Some(status) = self.process.ended() {
                panic!("genkan ended with {status}:\n{}", self.process.output());
            }
            assert!(start.elapsed() < STARTING, "genkan is not ready:\n{}", self.process.output());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A client that calls this Genkan process.
    pub fn client(&self) -> Client {
        Client::new(&format!("http://127.0.0.1:{}", self.ports.public))
            // The address is an IP address, but the public origin has the name.
            .with("host", &format!("localhost:{}", self.ports.public))
    }

    /// A new browser at this Genkan.
    pub fn browser(&self) -> Browser {
        Browser::new(self.client(), &format!("http://localhost:{}", self.ports.public))
    }

    /// The operator's own listener.
    pub fn ops(&self) -> Client {
        Client::new(&format!("http://127.0.0.1:{}", self.ports.ops))
    }

    /// The PLC proxy that hosts use.
    pub fn plc_proxy(&self) -> Client {
        Client::new(&format!("http://127.0.0.1:{}", self.ports.front))
    }

    /// Its public port.
    pub fn port(&self) -> u16 {
        self.ports.public
    }

    pub(super) fn ports(&self) -> Ports {
        self.ports
    }

    /// Everything that it printed.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Stops it as a debugger does: it neither runs nor ends.
    pub fn suspend(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Continues the process after [`Genkan::suspend`].
    pub fn resume(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// Asks the process to stop gracefully.
    pub fn terminate(&self) {
        self.process.signal(Signal::SIGTERM);
    }

    /// The number of its process.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Returns its exit status, if it ends within the limit. Returns `None` also if a signal ended
    /// it.
    pub async fn end(&mut self, limit: Duration) -> Option<i32> {
        self.process.end(limit).await?.code()
    }

    /// Whether the process ends within the limit, for any reason.
    pub async fn is_gone(&mut self, limit: Duration) -> bool {
        self.process.end(limit).await.is_some()
    }

    /// Its resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }
}

/// Runs a command to its end.
pub(super) async fn run(program: &Path, arguments: &[&str], variables: &[(String, String)]) -> Ran {
    let mut process = Process::start(program, arguments, variables);
    match process.end(COMMAND).await {
        Some(status) => Ran { status: status.code().unwrap_or(-1), output: process.output() },
        None => panic!("genkan {arguments:?} does not end:\n{}", process.output()),
    }
}

/// The machine may be busy with other tests.
const STARTING: Duration = Duration::from_secs(30);
const COMMAND: Duration = Duration::from_mins(1);
