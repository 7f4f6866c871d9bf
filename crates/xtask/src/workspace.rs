//! Paths: the clone, the cache that outlives clones, and programs on the `PATH`.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// The top of the clone.
pub fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.ancestors().nth(2).expect("xtask lies in crates/xtask").to_owned()
}

/// The folder with the Node programs.
pub fn network() -> PathBuf {
    root().join("network")
}

/// A folder of the clone that git ignores. Cargo itself may have been told to build in another one.
pub fn target() -> PathBuf {
    root().join("target")
}

/// Returns a folder outside of the clone for what is slow to fetch, or one inside `target/` when
/// there is no home directory.
pub fn cache() -> Result<PathBuf> {
    let outside = std::env::var_os("XDG_CACHE_HOME")
        .filter(|dir| Path::new(dir).is_absolute())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .map(|dir| dir.join("genkan"));
    if let Some(dir) = outside
        && fs::create_dir_all(&dir).is_ok()
        && !fs::metadata(&dir)?.permissions().readonly()
    {
        return Ok(dir);
    }
    let inside = target().join("cache");
    fs::create_dir_all(&inside).with_context(|| format!("making {}", inside.display()))?;
    Ok(inside)
}

/// Takes the lock on one part of the cache, which is released when the file is dropped. Other
/// processes that fill the same part wait for it.
pub fn lock_cache(name: &str) -> Result<File> {
    let file = File::create(cache()?.join(format!("{name}.lock")))?;
    file.lock()?;
    Ok(file)
}

/// Returns a `cargo` command that runs at the top of the clone.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Returns the first program of a name on the `PATH`, or in the folders for administrators'
/// programs.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

pub fn random_hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let digits = random.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    Ok(digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect())
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Returns this program. Cargo may have replaced it by a newer one since the start, which serves as
/// well.
pub fn ourselves() -> Result<PathBuf> {
    let running = std::env::current_exe()?;
    if running.exists() {
        return Ok(running);
    }
    // Linux appends this to the name of a file that was replaced while it ran.
    let name = running.to_string_lossy();
    Ok(PathBuf::from(name.strip_suffix(" (deleted)").unwrap_or(&name)))
}
