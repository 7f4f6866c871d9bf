//! Stories on the real network: published clients, reference hosts, and the real binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::outcome::Counts;
use super::tee;
use crate::arguments::Arguments;
use crate::network::genkan::{self, GenkanOptions};
use crate::network::{Network, Options};
use crate::provision::{chromium, postgres::Postgres, python};
use crate::say::line;
use crate::workspace;

pub const USAGE: &str = "\
cargo xtask stories [--postgres] [--production] [--genkan-binary PATH] [FILTER]

  Run the stories of network/stories whose file name contains FILTER, on a network of their own.

  --postgres             Run Genkan on PostgreSQL instead of SQLite.
  --production           Run the hosts without development mode.
  --genkan-binary PATH   Run this Genkan instead of compiling one.";

/// Settings without which a story would wait too long: for tokens to expire, or for a host to be
/// seen down and up again. The limits are high because all people of the stories come from one
/// address.
const SETTINGS: [(&str, &str); 8] = [
    ("GENKAN_ACCESS_LIFETIME", "1m"),
    ("GENKAN_OAUTH_ACCESS_LIFETIME", "2m"),
    ("GENKAN_PROBE_INTERVAL", "1s"),
    ("GENKAN_BREAKER_PAUSE", "1s"),
    ("GENKAN_RATE_CREATE_ACCOUNT", "10000/5m"),
    ("GENKAN_RATE_SIGN_IN_ADDRESS", "10000/15m"),
    ("GENKAN_RATE_GLOBAL", "1000000/5m"),
    ("GENKAN_CONNECTIONS_PER_ADDRESS", "2000"),
];

/// One way to run the stories.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) postgres: bool,
    pub(super) dev_mode: bool,
    /// Only the files whose name contains it.
    pub(super) filter: String,
    /// The Genkan to run. Without one it is compiled.
    pub(super) binary: Option<PathBuf>,
}

/// Runs `cargo xtask stories` and returns whether every story passed.
pub fn command(mut arguments: Arguments) -> Result<bool> {
    let (postgres, production) = (arguments.flag("--postgres"), arguments.flag("--production"));
    let binary = arguments.option("--genkan-binary")?.map(std::path::absolute).transpose()?;
    let filter = arguments.word().unwrap_or_default();
    arguments.end()?;
    // A name of its own, so that the data of `cargo verify` is kept.
    let variant = Variant { name: "by-hand", postgres, dev_mode: !production, filter, binary };
    let postgres = postgres.then(Postgres::start).transpose()?;
    let counts = run(&variant, postgres.as_ref())?;
    let Counts { passed, failed, skipped } = counts;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(!counts.has_failed())
}

/// Runs the stories that a variant selects, on a network that this function starts and stops.
///
/// A browser that cannot be had is reported, and the stories that need one then fail one by one.
pub(super) fn run(variant: &Variant, postgres: Option<&Postgres>) -> Result<Counts> {
    let chromium = chromium::chromium().unwrap_or_else(|error| {
        line(&format!("error: stories in a browser fail, since {error:#}"));
        PathBuf::new()
    });
    // Kept until the next run, so that the logs can be read after a failure.
    let data = workspace::target().join("verify").join(format!("network-{}", variant.name));
    if data.exists() {
        fs::remove_dir_all(&data)?;
    }
    let database_url = postgres.map(Postgres::url);
    let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let binary = variant.binary.clone().map_or_else(genkan::build_beside_tests, Ok)?;
    let genkan = GenkanOptions { database_url, settings, ..GenkanOptions::new(binary) };
    let options = Options {
        data: Some(data.clone()),
        dev_mode: variant.dev_mode,
        genkan: Some(genkan),
        example: true,
        door: true,
        ..Options::default()
    };
    let network = Network::start(&options)?;
    let map = network.write_map()?;

    let mut counts = Counts::default();
    let node = network.map().get("node").and_then(Value::as_str).context("the map names Node")?;
    for files in story_files(&variant.filter)? {
        let mut stories = Command::new(node);
        stories.args(["--test", "--test-timeout=1800000", "--test-reporter=spec"]);
        stories.arg(format!("--test-concurrency={}", files.len()));
        // Fewer kills on PostgreSQL: the story is the same, and only the database differs.
        let kills = if variant.postgres { "15" } else { "50" };
        stories
            .args(&files)
            .env("GENKAN_TEST_NETWORK", &map)
            .env("GENKAN_TEST_KILLS", kills)
            .env(
                "NODE_EXTRA_CA_CERTS",
                network.map().pointer("/app/authorityFile").and_then(Value::as_str).unwrap_or_default(),
            )
            .env("GENKAN_TEST_CHROMIUM", &chromium)
            .env("GENKAN_TEST_SCREENSHOTS", workspace::target().join("verify/screenshots").join(variant.name))
            .current_dir(workspace::network());
        counts = counts.and(tee::run(&mut stories)?);
    }
    if PYTHON_STORY.contains(&variant.filter) {
        counts = counts.and(python_story(&map).unwrap_or_else(|error| {
            line(&format!("error: {PYTHON_STORY}: {error:#}"));
            Counts::one(false)
        }));
    }
    if counts.has_failed() {
        line(&format!("logs: {}", data.join("logs").display()));
    }
    Ok(counts)
}

fn python_story(map: &Path) -> Result<Counts> {
    let mut story = Command::new(python::python()?);
    story
        .arg(format!("stories/{PYTHON_STORY}"))
        .env("GENKAN_TEST_NETWORK", map)
        .current_dir(workspace::network());
    tee::run(&mut story)
}

const PYTHON_STORY: &str = "python_client.py";

/// The story files in groups. A group's files run at the same time, and groups one after the other.
///
/// Files numbered below [`FIRST_TOGETHER`] are groups of their own, since some of them take members
/// of the network down. The others form the last group.
fn story_files(filter: &str) -> Result<Vec<Vec<PathBuf>>> {
    let folder = workspace::network().join("stories");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.ends_with(".test.mjs") && name.contains(filter)
        })
        .collect();
    files.sort();
    let (together, alone): (Vec<PathBuf>, Vec<PathBuf>) =
        files.into_iter().partition(|file| number(file).is_some_and(|number| number >= FIRST_TOGETHER));
    let mut groups: Vec<Vec<PathBuf>> = alone.into_iter().map(|file| vec![file]).collect();
    if !together.is_empty() {
        groups.push(together);
    }
    Ok(groups)
}

/// The number that a story's file name starts with.
fn number(file: &Path) -> Option<u32> {
    file.file_name()?.to_str()?.split('_').next()?.parse().ok()
}

const FIRST_TOGETHER: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_story_has_a_number_of_its_own_and_runs_once() {
        let groups = story_files("").unwrap();
        let files: Vec<&PathBuf> = groups.iter().flatten().collect();
        let mut numbers: Vec<u32> = files.iter().filter_map(|file| number(file)).collect();
        assert_eq!(numbers.len(), files.len(), "every file name starts with a number");
        numbers.dedup();
        assert_eq!(numbers.len(), files.len(), "no two files have one number");
        assert!(groups.iter().rev().skip(1).all(|group| group.len() == 1));
    }
}
