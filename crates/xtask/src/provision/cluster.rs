//! Programs for a service on several machines: Patroni, etcd, `HAProxy`, and libfaketime.
//!
//! All are Debian's packages, unpacked with the libraries that they need and not installed, since an
//! installation would start etcd and `HAProxy` as services.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::debian;
use crate::say::Step;
use crate::{command, workspace};

/// The packages, and those of their dependencies that a small Debian lacks.
const PACKAGES: [&str; 23] = [
    "etcd-server",
    "haproxy",
    "libfaketime",
    "liblua5.3-0",
    "libopentracing-c-wrapper0",
    "libopentracing1",
    "libpq5",
    "patroni",
    "python3-cdiff",
    "python3-click",
    "python3-colorama",
    "python3-dateutil",
    "python3-dnspython",
    "python3-etcd",
    "python3-pkg-resources",
    "python3-prettytable",
    "python3-psutil",
    "python3-psycopg2",
    "python3-six",
    "python3-tz",
    "python3-urllib3",
    "python3-wcwidth",
    "python3-yaml",
];

/// The unpacked programs.
#[derive(Debug, Clone)]
pub struct Programs {
    root: PathBuf,
    libraries: PathBuf,
}

/// Returns the programs, from the cache or newly unpacked.
pub fn programs() -> Result<Programs> {
    // The unprivileged user that runs Patroni cannot read root's cache.
    let root = if workspace::is_root() {
        PathBuf::from("/var/tmp/genkan-cluster")
    } else {
        workspace::cache()?.join("cluster")
    };
    let libraries = root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let programs = Programs { root, libraries };
    let _lock = workspace::lock_cache("cluster")?;
    if !programs.work() {
        let step = Step::start("Patroni, etcd, HAProxy, libfaketime");
        debian::unpack(&PACKAGES, &programs.root).context(
            "install the Debian packages patroni, etcd-server, haproxy and libfaketime, or use a Debian",
        )?;
        fs::set_permissions(&programs.root, fs::Permissions::from_mode(0o755))?;
        ensure!(programs.work(), "the unpacked programs do not start: see {}", programs.root.display());
        step.done("Debian's packages, unpacked into the cache");
    }
    Ok(programs)
}

impl Programs {
    pub fn etcd(&self) -> PathBuf {
        self.root.join("usr/bin/etcd")
    }

    /// Returns the program and the arguments that start Patroni. Debian's own Python runs it, since
    /// the libraries are compiled for that version.
    pub fn patroni(&self) -> (PathBuf, PathBuf) {
        ("/usr/bin/python3".into(), self.root.join("usr/bin/patroni"))
    }

    pub fn haproxy(&self) -> PathBuf {
        self.root.join("usr/sbin/haproxy")
    }

    /// Returns the environment in which the programs find their libraries.
    pub fn environment(&self) -> Vec<(String, String)> {
        let python = self.root.join("usr/lib/python3/dist-packages");
        let text = |path: &Path| path.to_string_lossy().into_owned();
        vec![("LD_LIBRARY_PATH".to_owned(), text(&self.libraries)), ("PYTHONPATH".to_owned(), text(&python))]
    }

    /// Returns the environment of a process whose clock is off by some seconds. Its monotonic clock
    /// is not, as on a machine with a wrong date.
    pub fn clock_off_by(&self, seconds: i32) -> Vec<(String, String)> {
        let library = self.libraries.join("faketime/libfaketime.so.1");
        [
            ("LD_PRELOAD", library.to_string_lossy().into_owned()),
            ("FAKETIME", format!("{seconds:+}s")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    fn work(&self) -> bool {
        let (python, patroni) = self.patroni();
        let succeeds = |command: &mut Command| command::succeeds(command.envs(self.environment()));
        succeeds(Command::new(self.etcd()).arg("--version"))
            && succeeds(Command::new(self.haproxy()).arg("-v"))
            && succeeds(Command::new(python).arg(patroni).arg("--version"))
            && succeeds(Command::new("true").envs(self.clock_off_by(90)))
    }
}
