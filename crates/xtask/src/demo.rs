//! `cargo demo`: a whole network on this machine, to try things on.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::arguments::Arguments;
use crate::network::genkan::{self, Genkan, GenkanOptions};
use crate::network::{Network, Options};
use crate::network_command::StopSignal;
use crate::provision::node;
use crate::say::{Step, line, paint};
use crate::{command, workspace};

pub const USAGE: &str = "\
cargo demo [--fresh] [--stop-when-ready] [--data DIR] [--genkan-binary PATH]

  Boot a PLC directory, two reference PDS hosts, a stand-alone reference PDS and a mail catcher on
  loopback, with Genkan on SQLite in front, and sign an account up with a published client. Fetch the
  programs that are missing. Ctrl-C stops everything. Data stays in .demo/ for the next start.

  --fresh                Delete the data of an earlier demo first.
  --data DIR             Keep data in DIR instead of .demo/.
  --genkan-binary PATH   Run this Genkan instead of compiling one.
  --stop-when-ready      Stop as soon as everything is up, to see whether it works.";

/// The demo takes the first free ports from here on.
const FIRST_PORT: u16 = 2580;

pub fn run(mut arguments: Arguments) -> Result<()> {
    let (fresh, stop) = (arguments.flag("--fresh"), arguments.flag("--stop-when-ready"));
    let given_data = arguments.option("--data")?;
    let given_binary = arguments.option("--genkan-binary")?;
    arguments.end()?;
    let end = StopSignal::watch()?;
    let data = given_data.map_or_else(|| workspace::root().join(".demo"), PathBuf::from);
    if fresh && data.exists() {
        fs::remove_dir_all(&data)?;
    }

    line("Genkan demo");
    node::node()?;
    let binary = match given_binary {
        Some(given) => std::path::absolute(given)?,
        None => genkan::build()?,
    };
    let wanted = GenkanOptions::new(binary);
    let options = Options {
        data: Some(data),
        first_port: Some(FIRST_PORT),
        genkan: Some(wanted),
        example: true,
        ..Options::default()
    };
    let network = Network::start(&options)?;
    let genkan = network.genkan().context("the demo has a Genkan")?;
    let account = account(&network)?;
    let command = network.data().join("bin/genkan");
    write_command(&command, genkan)?;
    show(&network, genkan, &account, &command);
    if !stop {
        end.wait();
        line("\nStopping …");
    }
    Ok(())
}

/// Signs the demo's account up with the published client, or in if an earlier demo made it.
fn account(network: &Network) -> Result<Value> {
    let step = Step::start("an account, with @atproto/api");
    let map = network.write_map()?;
    let node = network.map().get("node").and_then(Value::as_str).context("the map names Node")?;
    let mut client = Command::new(node);
    client.arg("demo-account.mjs").arg(&map).current_dir(workspace::network());
    let said = command::run(&mut client)?;
    step.done("");
    serde_json::from_str(&said).context("reading the client's output")
}

/// Writes a script that runs Genkan's command line with the demo's settings.
fn write_command(file: &Path, genkan: &Genkan) -> Result<()> {
    let exports = genkan.settings.iter().map(|(name, value)| format!("export {name}='{value}'\n"));
    let script =
        format!("#!/bin/sh\n{}exec '{}' \"$@\"\n", exports.collect::<String>(), genkan.binary.display());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    // Readable for its owner only, since the admin password is in it.
    let _ = fs::remove_file(file);
    let mut options = fs::OpenOptions::new();
    std::io::Write::write_all(
        &mut options.create(true).write(true).truncate(true).mode(0o700).open(file)?,
        script.as_bytes(),
    )?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o700))?;
    Ok(())
}

fn show(network: &Network, genkan: &Genkan, account: &Value, command: &Path) {
    let map = network.map();
    let at = |path: &str| map.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let of = |name: &str| account.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let row = |name: &str, url: &str, what: &str| println!("  {name:<18}{url:<28}{}", paint("2", what));

    println!("\n{}\n", paint("1", "Genkan is up"));
    row("Genkan", &genkan.url, "the one name that people know; SQLite");
    let last = network.hosts().len().saturating_sub(1);
    for (place, host) in network.hosts().iter().enumerate() {
        let branch = if place == last { "└─" } else { "├─" };
        row(&format!("{branch} {}", host.name), &host.url, "a reference PDS behind it");
    }
    row("metrics, health", &genkan.operations_url, "/metrics /livez /readyz");
    row("PLC directory", &at("/plc/url"), &format!("hosts see it through {}", genkan.directory_front_url));
    row("stand-alone PDS", &at("/alone/url"), "does not know Genkan; handles *.alone.test");
    row("example app", &at("/example/url"), "signs in accounts of any PDS, through Genkan");
    row("mail catcher", &at("/mail/url"), "/messages lists the emails sent");
    row("name server", &at("/dns/server"), &format!("records at {}/records", at("/dns/url")));

    println!("\n{}\n", paint("1", "An account, made by @atproto/api"));
    row("handle", &of("handle"), "");
    row("password", &of("password"), "");
    row("DID", &of("did"), "");
    row("lives on", &of("home"), "the host that the client posted to");
    row("first post", &of("post"), "");

    println!("\n{}\n", paint("1", "An account of the stand-alone PDS, to sign in with at the example app"));
    row("handle", &of("aloneHandle"), "");
    row("password", &of("alonePassword"), "");

    let here = std::env::current_dir().unwrap_or_default();
    let command = command.strip_prefix(&here).unwrap_or(command).display();
    println!("\n{}\n", paint("1", "Try next"));
    println!("  curl '{}/xrpc/com.atproto.identity.resolveHandle?handle={}'", genkan.url, of("handle"));
    println!("  curl -H 'Host: {}' {}/.well-known/atproto-did", of("handle"), genkan.url);
    println!(
        "  curl '{}/xrpc/com.atproto.repo.listRecords?repo={}&collection=app.bsky.feed.post'",
        genkan.url,
        of("handle")
    );
    println!("  {command} host list");
    println!("  {command} host place --explain");
    let data = network.data().strip_prefix(&here).unwrap_or_else(|_| network.data()).display();
    println!("\nCtrl-C stops everything. Data stays in {data} for the next start.");
}
