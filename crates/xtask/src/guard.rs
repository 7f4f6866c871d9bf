//! A guard process that ends children whose parent was killed.
//!
//! `xtask guard` hears of every child over a pipe. The pipe closes when the parent ends in any way,
//! and the guard then ends the children that are left. So no child outlives its command.

use std::io::{BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Has the guard end the child `pid` when this process is gone.
pub fn watch(pid: u32) -> Result<()> {
    tell(&format!("+{pid}"))
}

/// Reports to the guard that a child has ended and was waited for.
pub fn forget(pid: u32) {
    // When the guard itself is gone there is nothing to forget.
    let _ = tell(&format!("-{pid}"));
}

/// Runs the guard: collects process ids until standard input ends, then ends those processes.
pub fn run() {
    let mut children: Vec<i32> = Vec::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (sign, pid) = line.split_at(1);
        let Ok(pid) = pid.parse() else { continue };
        if sign == "+" { children.push(pid) } else { children.retain(|child| *child != pid) }
    }
    // A process stopped by SIGSTOP sees no other signal before SIGCONT. SIGINT is PostgreSQL's fast
    // shutdown, since its SIGTERM waits for clients.
    for signal in [Signal::SIGCONT, Signal::SIGTERM, Signal::SIGINT] {
        signal_all(&children, signal);
    }
    for _ in 0..50 {
        children.retain(|pid| kill(Pid::from_raw(*pid), None).is_ok());
        if children.is_empty() {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    signal_all(&children, Signal::SIGKILL);
}

fn signal_all(children: &[i32], signal: Signal) {
    for pid in children {
        // A child that is already gone needs no signal.
        let _ = kill(Pid::from_raw(*pid), signal);
    }
}

fn tell(line: &str) -> Result<()> {
    static PIPE: OnceLock<Mutex<Option<ChildStdin>>> = OnceLock::new();
    if cfg!(test) {
        // The guard is this program started again, and a test's executable is another program.
        return Ok(());
    }
    let mut pipe = PIPE.get_or_init(Mutex::default).lock().expect("no holder of the pipe panics");
    if pipe.is_none() {
        let mut guard = Command::new(crate::workspace::ourselves()?);
        // In a process group of its own, so that Ctrl-C does not reach it.
        guard.arg("guard").stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        *pipe = guard.spawn().context("starting the guard")?.stdin.take();
    }
    let pipe = pipe.as_mut().context("the guard has a pipe")?;
    writeln!(pipe, "{line}").context("telling the guard")
}
