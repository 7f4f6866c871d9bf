//! Programs from Debian packages that are unpacked into the cache. Nothing is installed: no service
//! starts, and no other program is replaced.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::say::Step;
use crate::{command, workspace};

/// A program, and the Debian package of the same name that brings it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Program {
    pub(super) name: &'static str,
    /// The program's path inside the package.
    pub(super) path: &'static str,
    /// An argument with which the program prints its version and succeeds.
    pub(super) version: &'static str,
}

impl Program {
    /// Returns the machine's own program, else the unpacked one, else the one that apt installs.
    ///
    /// An unpacked program may lack libraries that only an installation brings.
    pub(super) fn get(self) -> Result<PathBuf> {
        if let Some(installed) = workspace::find_program(self.name) {
            return Ok(installed);
        }
        let folder = workspace::cache()?.join(self.name);
        let program = folder.join(self.path);
        if self.works(&program) {
            return Ok(program);
        }
        let step = Step::start(self.name);
        if self.unpack(&folder).is_ok() && self.works(&program) {
            step.done("Debian's package, unpacked into the cache");
            return Ok(program);
        }
        super::apt::install(&[self.name])?;
        workspace::find_program(self.name)
            .with_context(|| format!("apt-get installed {0}, but {0} is not on the PATH", self.name))
    }

    fn unpack(self, folder: &Path) -> Result<()> {
        let _lock = workspace::lock_cache(self.name)?;
        unpack(&[self.name], folder)
    }

    fn works(self, program: &Path) -> bool {
        program.is_file() && command::succeeds(Command::new(program).arg(self.version))
    }
}

/// Downloads packages and unpacks them into a folder, without the packages that they depend on.
pub(super) fn unpack(packages: &[&str], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut fetch = Command::new("apt-get");
    fetch.arg("download").args(packages).current_dir(folder);
    if workspace::is_root() {
        // The unprivileged user that apt downloads as cannot write below root's home.
        fetch.args(["--option", "APT::Sandbox::User=root"]);
        if !command::succeeds(&mut fetch) {
            command::run(Command::new("apt-get").args(["update", "--quiet"]))?;
        }
    }
    command::run(&mut fetch)?;
    let files = fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path());
    let files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect();
    ensure!(files.len() >= packages.len(), "apt-get download left {} packages", files.len());
    for file in files {
        command::run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(folder))?;
    }
    Ok(())
}
