//! A Node program that takes lines on its standard input and answers with lines of JSON.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::machine::other_cores;
use crate::network::Network;
use crate::{guard, workspace};

/// A running program, which ends with this value.
pub(super) struct Process {
    name: String,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts a program of `network/` on the cores that Genkan does not have. Returns it with the
    /// first line that it prints, when it is ready.
    pub(super) fn start(
        network: &Network,
        name: &str,
        script: &str,
        argument: Option<&Path>,
        folder: &Path,
        first_line: Option<&Value>,
    ) -> Result<(Self, Value)> {
        let log = fs::File::create(folder.join(format!("{name}.log")))?;
        let mut command = program(network, script, argument)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
        guard::watch(child.id())?;
        let stdin = child.stdin.take().context("the program has an input")?;
        let stdout = BufReader::new(child.stdout.take().context("the program has an output")?);
        let mut process = Self { name: name.to_owned(), child, stdin, stdout };
        if let Some(line) = first_line {
            process.say(&line.to_string())?;
        }
        let ready = process.line()?;
        Ok((process, ready))
    }

    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.stdin, "{line}").with_context(|| format!("{} has ended: see its log", self.name))
    }

    /// Reads the next line.
    pub(super) fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            bail!("{} has ended: see its log", self.name);
        }
        serde_json::from_str(&line).with_context(|| format!("{} printed {line}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        guard::forget(self.child.id());
    }
}

/// Returns a command that runs a Node program of `network/` on the cores that Genkan does not have.
pub(super) fn program(network: &Network, script: &str, argument: Option<&Path>) -> Result<Command> {
    let node = network.map().get("node").and_then(Value::as_str).context("the map names Node")?;
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &other_cores()?, node, script]).args(argument);
    let authority = network.map().pointer("/app/authorityFile").and_then(Value::as_str);
    command.env("NODE_EXTRA_CA_CERTS", authority.unwrap_or_default());
    command.current_dir(workspace::network());
    Ok(command)
}
