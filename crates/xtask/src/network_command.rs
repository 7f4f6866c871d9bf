//! `cargo xtask network`: the real network, for any other program.

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

  Boot a PLC directory, reference PDS hosts behind an entryway, one stand-alone reference PDS, a mail
  catcher, a name server and an app view's stand-in on loopback. Stay up until Ctrl-C, or until
  standard input closes if that is a pipe.

  --json                 Print one JSON object when everything is ready: URLs, DIDs, admin passwords, keys.
  --hosts N              Boot N hosts. [default: 2]
  --data DIR             Keep data, ports and keys in DIR for the next start. Without it they are deleted at the end.
  --production           Run the hosts without development mode: they do not check the entryway's answers
                         against the lexicons.

  --with-genkan          Run Genkan, compiled now, as the entryway.
  --genkan-binary PATH   Run this Genkan as the entryway.
  --database-url URL     Run Genkan on this PostgreSQL database instead of SQLite.
  --example              Run the example app. Needs Genkan.
  --door                 Run a second Genkan, without hosts, at a TLS name. Needs Genkan.

  Without Genkan the hosts wait for another entryway, and the private keys that it needs are printed.

  --entryway-url URL     Tell the hosts that the entryway is at URL. [default: a free port]
  --entryway-did DID     Tell the hosts that this is the entryway's DID. [default: did:web of the URL]
  --directory-url URL    Tell the hosts that the PLC directory is at URL, for an entryway that proxies it.";

pub fn run(mut arguments: Arguments) -> Result<()> {
    let json = arguments.flag("--json");
    let with_genkan = arguments.flag("--with-genkan");
    let given_binary = arguments.option("--genkan-binary")?;
    let database_url = arguments.option("--database-url")?;
    let options = Options {
        example: arguments.flag("--example"),
        door: arguments.flag("--door"),
        external_token_age: None,
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
    let genkan = genkan.map(|binary| GenkanOptions { database_url, ..GenkanOptions::new(binary) });

    let end = StopSignal::watch()?;
    let network = Network::start(&Options { genkan, ..options })?;
    if json {
        println!("{}", network.map());
    } else {
        println!("{:#}", network.map());
        say::line("Up. Ctrl-C stops everything.");
    }
    end.wait();
    Ok(())
}

/// The moment to stop: Ctrl-C, SIGTERM, or the end of a pipe that is standard input.
#[derive(Debug)]
pub struct StopSignal(std::sync::mpsc::Receiver<()>);

impl StopSignal {
    pub fn watch() -> Result<Self> {
        let (sender, receiver) = channel();
        let on_signal = sender.clone();
        ctrlc::set_handler(move || {
            // While the command is stopping, a second signal finds no receiver.
            let _ = on_signal.send(());
        })?;
        if standard_input_is_a_pipe() {
            spawn(move || wait_for_end(&sender));
        }
        Ok(Self(receiver))
    }

    pub fn wait(&self) {
        // An error would mean that all senders are gone. The signal handler keeps one until the
        // process ends.
        let _ = self.0.recv();
    }
}

fn wait_for_end(sender: &Sender<()>) {
    let mut buffer = [0; 1024];
    while std::io::stdin().read(&mut buffer).is_ok_and(|read| read > 0) {}
    let _ = sender.send(());
}

/// Whether standard input is a pipe, whose end says that the program that started this one has
/// ended. A terminal and `/dev/null` say nothing of the kind.
fn standard_input_is_a_pipe() -> bool {
    !std::io::stdin().is_terminal()
        && std::fs::metadata("/dev/stdin")
            .is_ok_and(|input| input.file_type().is_fifo() || input.file_type().is_socket())
}
