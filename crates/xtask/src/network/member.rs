//! A process of the network, which can be started, stopped, killed and paused.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{guard, http, workspace};

const READY_WITHIN: Duration = Duration::from_secs(90);
const STOPPED_WITHIN: Duration = Duration::from_secs(15);

/// How a member is started, each time.
#[derive(Debug, Clone)]
pub struct Spec {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// A line of JSON for standard input, which stays open afterwards: its end tells the member to
    /// end.
    pub configuration: Option<Value>,
    pub ready: Ready,
    /// The file for standard error, and for standard output after the ready line.
    pub log: PathBuf,
}

/// How a member shows that it is ready.
#[derive(Debug, Clone)]
pub enum Ready {
    /// It prints a line of JSON on standard output.
    Line,
    /// It answers 200 at this place.
    Http { port: u16, path: String },
}

/// A process of the network, running or not.
#[derive(Debug)]
pub struct Member {
    name: String,
    spec: Spec,
    running: Option<Running>,
    paused: bool,
    said: Value,
}

#[derive(Debug)]
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    line: Receiver<Value>,
}

impl Member {
    pub fn new(name: &str, spec: Spec) -> Self {
        Self { name: name.to_owned(), spec, running: None, paused: false, said: Value::Null }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn spec_mut(&mut self) -> &mut Spec {
        &mut self.spec
    }

    /// Returns the process id while the process exists.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    pub fn state(&mut self) -> &'static str {
        let ended = match &mut self.running {
            None => return "stopped",
            Some(running) => !matches!(running.child.try_wait(), Ok(None)),
        };
        match (ended, self.paused) {
            (true, _) => "ended by itself",
            (false, true) => "paused",
            (false, false) => "running",
        }
    }

    /// Returns the line of JSON that the member printed when it became ready.
    pub fn said(&self) -> &Value {
        &self.said
    }

    /// Starts the member and waits until it is ready.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_until_ready()
    }

    /// Starts the member without waiting, so that several can get ready at the same time.
    pub fn spawn(&mut self) -> Result<()> {
        // The guard still has the id of a process that ended by itself.
        if self.state() == "ended by itself" {
            self.reap();
        }
        if self.running.is_some() {
            bail!("{} is already running", self.name);
        }
        let spec = &self.spec;
        if let Some(folder) = spec.log.parent() {
            fs::create_dir_all(folder)?;
        }
        let log = OpenOptions::new().create(true).append(true).open(&spec.log)?;
        let mut command = Command::new(&spec.program);
        command
            .args(&spec.arguments)
            .envs(spec.environment.iter().cloned())
            .current_dir(workspace::network());
        // In a process group of its own: Ctrl-C must not reach it, since members end in an order.
        command.stderr(log.try_clone()?).process_group(0);
        // Standard input stays open as a signal: the member ends when it closes.
        command.stdin(if spec.configuration.is_some() { Stdio::piped() } else { Stdio::null() });
        match spec.ready {
            Ready::Line => command.stdout(Stdio::piped()),
            Ready::Http { .. } => command.stdout(log.try_clone()?),
        };
        let mut child = command.spawn().with_context(|| format!("starting {}", self.name))?;
        guard::watch(child.id())?;

        let (sender, line) = channel();
        if let Some(stdout) = child.stdout.take() {
            spawn(move || pass_on(stdout, &sender, log));
        }
        let mut stdin = child.stdin.take();
        if let (Some(stdin), Some(configuration)) = (&mut stdin, &spec.configuration) {
            // A member may end before it reads this. Then the wait for it reports what its log
            // says.
            let _ = writeln!(stdin, "{configuration}");
        }
        self.running = Some(Running { child, stdin, line });
        self.paused = false;
        Ok(())
    }

    pub fn wait_until_ready(&mut self) -> Result<()> {
        let Some(running) = &mut self.running else { bail!("{} is not running", self.name) };
        let started = Instant::now();
        while started.elapsed() < READY_WITHIN {
            // Looked at in each round, so that a failed start is reported at once and with its log.
            if let Some(status) = running.child.try_wait()? {
                let log = last_lines(&self.spec.log);
                self.reap();
                bail!("{} ended while starting ({status})\n{log}", self.name);
            }
            match &self.spec.ready {
                Ready::Line => match running.line.recv_timeout(Duration::from_millis(200)) {
                    Ok(said) => {
                        self.said = said;
                        return Ok(());
                    }
                    // The process has closed its output, so the next round sees that it ended.
                    Err(RecvTimeoutError::Disconnected) => sleep(Duration::from_millis(20)),
                    Err(RecvTimeoutError::Timeout) => {}
                },
                Ready::Http { port, path } => {
                    if http::get(*port, path).is_ok_and(|(status, _)| status == 200) {
                        return Ok(());
                    }
                    sleep(Duration::from_millis(20));
                }
            }
        }
        bail!("{} is not ready after {READY_WITHIN:?}\n{}", self.name, last_lines(&self.spec.log))
    }

    /// Asks the member to end, and kills it if it does not.
    pub fn stop(&mut self) -> Result<()> {
        self.ask_to_stop();
        let Some(running) = &mut self.running else { return Ok(()) };
        let asked = Instant::now();
        while running.child.try_wait()?.is_none() {
            if asked.elapsed() > STOPPED_WITHIN {
                // A member that ignores SIGTERM is an error in the test run, even though the kill
                // cleans up.
                self.kill();
                bail!("{} did not stop within {STOPPED_WITHIN:?} and was killed", self.name);
            }
            sleep(Duration::from_millis(10));
        }
        self.reap();
        Ok(())
    }

    /// Asks the member to end, without waiting. Several can end at the same time before
    /// [`Member::stop`] waits for each.
    pub fn ask_to_stop(&mut self) {
        // A paused process does not see SIGTERM before it continues.
        self.resume();
        self.signal(Signal::SIGTERM);
        // Dropping the pipe closes it, which tells a member that ignores SIGTERM to end.
        if let Some(running) = &mut self.running {
            running.stdin = None;
        }
    }

    /// Kills the member with SIGKILL.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.reap();
    }

    /// Stops the member with SIGSTOP: it keeps its connections and answers nothing.
    pub fn pause(&mut self) {
        self.signal(Signal::SIGSTOP);
        self.paused = self.running.is_some();
    }

    pub fn resume(&mut self) {
        if self.paused {
            self.signal(Signal::SIGCONT);
            self.paused = false;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // The process was not waited for yet, so its id cannot belong to another one.
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }

    fn reap(&mut self) {
        if let Some(mut running) = self.running.take() {
            // Only after the wait is the id free for another process, so the guard forgets it last.
            let _ = running.child.wait();
            guard::forget(running.child.id());
        }
        self.paused = false;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
        }
    }
}

/// Passes the first line of JSON to `ready`, and everything else to the log.
fn pass_on(stdout: ChildStdout, ready: &Sender<Value>, mut log: File) {
    let mut said = false;
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        match serde_json::from_str::<Value>(&line) {
            Ok(value) if !said && value.get("url").is_some() => {
                said = true;
                // The receiver is gone if the start was given up.
                let _ = ready.send(value);
            }
            _ => {
                let _ = writeln!(log, "{line}");
            }
        }
    }
}

fn last_lines(log: &PathBuf) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Member, Ready, Spec};
    use serde_json::json;

    /// A member that is a line of shell.
    fn member(script: &str) -> Member {
        let log =
            std::env::temp_dir().join(format!("genkan-member-{}", crate::workspace::random_hex(6).unwrap()));
        Member::new(
            "shell",
            Spec {
                program: "/bin/sh".into(),
                arguments: vec!["-c".to_owned(), script.to_owned()],
                environment: vec![("SAID".to_owned(), r#"{"url":"here"}"#.to_owned())],
                configuration: Some(json!({ "some": "settings" })),
                ready: Ready::Line,
                log,
            },
        )
    }

    #[test]
    fn it_is_ready_when_it_says_so_and_ends_when_its_input_does() {
        // The shell ignores SIGTERM, so only the end of its input can stop it.
        let mut member = member("read -r settings; echo noise; echo \"$SAID\"; trap '' TERM; cat");
        member.start().unwrap();
        assert_eq!(member.said(), &json!({ "url": "here" }));
        assert_eq!(member.state(), "running");
        assert!(member.start().is_err(), "it runs already");
        member.stop().unwrap();
        assert_eq!(member.state(), "stopped");
        member.start().unwrap();
        assert_eq!(member.state(), "running");
    }

    #[test]
    fn a_member_that_ends_while_starting_is_reported_with_its_output() {
        let trouble = member("echo out of luck >&2; exit 3").start().unwrap_err().to_string();
        assert!(trouble.contains("out of luck") && trouble.contains('3'), "{trouble}");
    }

    #[test]
    fn it_can_be_paused_killed_and_die_by_itself() {
        let mut member = member("read -r settings; echo \"$SAID\"; cat");
        member.start().unwrap();
        member.pause();
        assert_eq!(member.state(), "paused");
        member.resume();
        assert_eq!(member.state(), "running");
        member.kill();
        assert_eq!((member.state(), member.pid()), ("stopped", None));

        member.start().unwrap();
        let pid = nix::unistd::Pid::from_raw(member.pid().unwrap().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        // The kernel ends the process a moment after the signal.
        while member.state() == "running" {
            std::thread::yield_now();
        }
        assert_eq!(member.state(), "ended by itself");
        member.start().unwrap();
    }
}
