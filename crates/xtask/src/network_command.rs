//! `cargo xtask network`: the real network for any outside program.

use std::io::{IsTerminal as _, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::thread::spawn;

use anyhow::Result;

use crate::arguments::Arguments;
use crate::network::genkan::{self, GenkanOptions};
use crate::network::{Entryway, Network, Options};
use crate::say;

pub const USAGE: &str = "\
cargo xtask network [--json] [--hosts N] [--data DIR] [--production]
                    [--with-genkan] [--genkan-binary PATH] [--database-url URL]
                    [--entryway-url URL] [--entryway-did DID] [--directory-url URL]

  Boots a PLC directory, N (2) reference PDS hosts in entryway mode, one stand-alone reference PDS, a mail catcher,
  a name server and an app view's stand-in on loopback, and stays up until Ctrl-C, or until its standard input closes
  when that is a pipe.

  --json           one JSON object on standard output when all is ready: URLs, DIDs, admin passwords, keys
  --with-genkan    Genkan is the entryway: compiled now, or the binary at --genkan-binary; on SQLite, or on
                   --database-url; else the hosts wait for one at --entryway-url (a free port when not given),
                   and the private keys it needs are printed
  --data DIR       keeps data, ports and keys there for the next start
  --example        with the example app (needs --with-genkan)
  --door           with a second Genkan, without hosts, at a TLS name (needs --with-genkan)
  --production     hosts without development mode: they do not check the entryway's answers against the lexicons
  --directory-url  what the hosts have as PLC directory, when the entryway fronts it";

pub fn run(mut arguments: Arguments) -> Result<()> {
    let json = arguments.flag("--json");
    let with_genkan = arguments.flag("--with-genkan");
    let given_binary = arguments.option("--genkan-binary")?;
    let database_url = arguments.option("--database-url")?;
    let options = Options {
        example: arguments.flag("--example"),
        door: arguments.flag("--door"),
        data: arguments.option("--data")?.map(PathBuf::from),
        hosts: arguments.number("--hosts")?.unwrap_or(2),
        dev_mode: !arguments.flag("--production"),
        first_port: None,
        genkan: None,
        entryway: Entryway {
            url: arguments.option("--entryway-url")?,
            did: arguments.option("--entryway-did")?,
            directory_url: arguments.option("--directory-url")?,
        },
    };
    arguments.end()?;
    let genkan = match (with_genkan, given_binary) {
        (false, None) => None,
        (true, None) => Some(genkan::build()?),
        (_, Some(given)) => Some(std::path::absolute(given)?),
    };
    let genkan = genkan.map(|binary| GenkanOptions { binary, database_url, settings: Vec::new() });

    let end = EndOfInterest::watch()?;
    let network = Network::start(&Options { genkan, ..options })?;
    if json {
        println!("{}", network.map());
    } else {
        println!("{:#}", network.map());
        say::line("Up. Ctrl-C stops all of it.");
    }
    end.wait();
    Ok(())
}

/// Ctrl-C, SIGTERM, or the end of a pipe that is our standard input.
#[derive(Debug)]
pub struct EndOfInterest(std::sync::mpsc::Receiver<()>);

impl EndOfInterest {
    pub fn watch() -> Result<Self> {
        let (sender, receiver) = channel();
        let on_signal = sender.clone();
        ctrlc::set_handler(move || {
            // A second signal while stopping finds nobody waiting.
            let _ = on_signal.send(());
        })?;
        if standard_input_is_a_pipe() {
            spawn(move || wait_for_end(&sender));
        }
        Ok(Self(receiver))
    }

    pub fn wait(&self) {
        // An error means that the handlers are gone, which they never are.
        let _ = self.0.recv();
    }
}

fn wait_for_end(sender: &Sender<()>) {
    let mut buffer = [0; 1024];
    while std::io::stdin().read(&mut buffer).is_ok_and(|read| read > 0) {}
    let _ = sender.send(());
}

/// A terminal or `/dev/null` says nothing about who is interested; a pipe does.
fn standard_input_is_a_pipe() -> bool {
    !std::io::stdin().is_terminal()
        && std::fs::metadata("/dev/stdin")
            .is_ok_and(|input| input.file_type().is_fifo() || input.file_type().is_socket())
}
