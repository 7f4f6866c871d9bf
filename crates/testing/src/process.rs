//! A server as a child process that tests can kill, stop, continue and measure.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::loopback::locked;

/// A running child process. It is killed when this value is dropped.
pub struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a program with only these arguments and variables.
    ///
    /// # Panics
    ///
    /// If the program cannot be started.
    pub fn start(program: &Path, arguments: &[&str], variables: &[(String, String)]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            // A variable of the developer's shell must not change what the program does.
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            // Both streams are read at once. If no one read a pipe, it would fill up and block the
            // program.
            keep(child.stdout.take().unwrap(), Arc::clone(&output)),
            keep(child.stderr.take().unwrap(), Arc::clone(&output)),
        ];
        Self { child, output, readers }
    }

    /// Returns the output so far.
    pub fn output(&self) -> String {
        locked(&self.output).clone()
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. It has no effect on a process that has ended.
    ///
    /// # Panics
    ///
    /// Never on the systems these tests run on: process numbers are small.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal);
    }

    /// Kills the process, and waits until it is gone.
    pub fn kill(&mut self) {
        // The process may have ended already. `wait` reaps it in either case.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The readers end when the pipes close, so after this the output is complete.
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }

    /// Returns how the process ended, if it has ended.
    ///
    /// # Panics
    ///
    /// If the operating system gives no status.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits up to `limit` for the end of the process.
    pub async fn end(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.ended() {
                for reader in self.readers.drain(..) {
                    let _ = reader.join();
                }
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// Returns the process's resident memory in bytes.
    ///
    /// # Panics
    ///
    /// If the operating system gives no size.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Process({})", self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn keep(from: impl std::io::Read + Send + 'static, output: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            let mut output = locked(&output);
            output.push_str(&line);
            output.push('\n');
        }
    })
}
