//! The people who use Genkan during a run: the Node program `network/soak/load.mjs`.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::guard;
use crate::network::Network;

/// The longest time that an operation takes to end, with a margin: people give up after 3 minutes.
const ENDS_WITHIN: Duration = Duration::from_mins(8);

/// The running load.
pub(super) struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    last: Arc<Mutex<Value>>,
    reader: JoinHandle<()>,
}

impl Load {
    /// Starts the load. Its journal and failed requests are files in `folder`.
    pub(super) fn start(network: &Network, folder: &Path, people: usize) -> Result<Self> {
        let settings = settings(network, folder, people);
        let file = folder.join("load.json");
        fs::write(&file, settings.to_string())?;
        let log = fs::File::create(folder.join("load.log"))?;
        let mut command = network.program("soak/load.mjs", &file)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("starting the load")?;
        guard::watch(child.id())?;
        let stdout = child.stdout.take().context("the load has an output")?;
        let last = Arc::new(Mutex::new(Value::Null));
        let reader = spawn({
            let last = Arc::clone(&last);
            move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if let Ok(said) = serde_json::from_str(&line) {
                        *last.lock().expect("no holder panics") = said;
                    }
                }
            }
        });
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, last, reader })
    }

    /// Describes what was done so far in a few words.
    pub(super) fn progress(&self) -> String {
        let last = self.last.lock().expect("no holder panics");
        let number = |name: &str| last.get(name).and_then(Value::as_u64).unwrap_or(0);
        format!("{} operations, {} accounts", number("operations"), number("accounts"))
    }

    /// Returns the number of answers so far, as of the load's last report, which is some seconds old.
    pub(super) fn answers(&self) -> u64 {
        let last = self.last.lock().expect("no holder panics");
        let counts = last.get("counts").and_then(Value::as_object);
        counts.map_or(0, |counts| counts.values().filter_map(Value::as_u64).sum())
    }

    /// Tells the load that the older Genkan is gone.
    pub(super) fn upgraded(&self) -> Result<()> {
        let mut stdin = self.stdin.as_ref().context("the load has an input")?;
        Ok(stdin.write_all(b"upgraded\n")?)
    }

    /// Lets everyone finish what they do, and returns the figures.
    pub(super) fn end(mut self) -> Result<Value> {
        // The end of its input tells the load to end.
        self.stdin = None;
        let until = Instant::now() + ENDS_WITHIN;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > until {
                self.child.kill()?;
                bail!("the load did not end within {ENDS_WITHIN:?}");
            }
            sleep(Duration::from_millis(50));
        };
        guard::forget(self.child.id());
        if !status.success() {
            bail!("the load ended with {status}: see load.log");
        }
        // The last line may still be in the pipe.
        let _ = self.reader.join();
        Ok(self.last.lock().expect("no holder panics").clone())
    }
}

/// The settings of the load and of the check.
pub(super) fn settings(network: &Network, folder: &Path, people: usize) -> Value {
    json!({
        "map": network.map(),
        "journal": folder.join("journal.jsonl"),
        "failures": folder.join("failures.jsonl"),
        "residents": people,
        "linked": people.div_ceil(3),
    })
}
