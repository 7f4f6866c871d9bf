//! The entry point of `cargo demo`, `cargo verify` and `cargo xtask …`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use xtask::arguments::Arguments;
use xtask::{bench, demo, guard, hostile, network_command, provision, scale, soak, steady, upgrade, verify};

const USAGE: &str = "\
cargo demo               Boot a whole network on this machine, to try things on.
cargo verify             Run every check.
cargo xtask network      Boot the real network for other programs.
cargo xtask stories      Run stories of the real network by themselves.
cargo xtask steady       Run the Rust tests several times beside other load.
cargo xtask soak         Run three Genkans under faults for half an hour.
cargo xtask upgrade      Run an older Genkan and this one on one database.
cargo xtask hostile      Attack a Genkan and measure what another user sees.
cargo xtask scale        Measure Genkan on tables of millions of rows.
cargo xtask bench        Measure Genkan beside nginx, or beside an older Genkan.
cargo xtask provision    Fetch every program that the other commands need.

Each command explains its options with --help.";

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
        "steady" if help => println!("{}", steady::USAGE),
        "steady" => return steady::run(arguments),
        "soak" if help => println!("{}", soak::USAGE),
        "soak" => return soak::run(arguments),
        "upgrade" if help => println!("{}", upgrade::USAGE),
        "upgrade" => return upgrade::run(arguments),
        "scale" if help => println!("{}", scale::USAGE),
        "scale" => return scale::run(arguments),
        "hostile" if help => println!("{}", hostile::USAGE),
        "hostile" => return hostile::run(arguments),
        "bench" if help => println!("{}", bench::USAGE),
        "bench" => return bench::command(arguments),
        "provision" => {
            arguments.end()?;
            provision::cargo_tools::cargo_deny()?;
            provision::cargo_tools::cargo_nextest();
            provision::node::node()?;
            drop(provision::postgres::Postgres::start()?);
            provision::faketime::library()?;
            provision::pgbouncer::pgbouncer()?;
            provision::python::python()?;
            provision::nginx::nginx()?;
            provision::stress_ng::stress_ng()?;
            provision::cluster::programs()?;
            provision::chromium::chromium()?;
        }
        "guard" => guard::run(),
        "" | "help" | "--help" | "-h" => println!("{USAGE}"),
        unknown => bail!("there is no command {unknown}\n\n{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}
