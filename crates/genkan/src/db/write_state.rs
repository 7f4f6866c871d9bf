//! Whether writes reach the disk, for the readiness of this process.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::says_that_writes_fail;
use super::{Error, Result};

/// What the last writes say about the disk.
///
/// A write that finds the disk full says so for all that follow, since a smaller one may still find
/// room. So the outcome of requests only sets it, and a probe clears it.
#[derive(Debug, Default)]
pub(super) struct WriteState {
    /// The number of failed writes.
    failures: AtomicU64,
    /// The number of failed writes when a probe last succeeded.
    settled: AtomicU64,
}

impl WriteState {
    /// Takes an error into account.
    pub(super) fn note(&self, cause: &sqlx::Error) {
        if says_that_writes_fail(cause) && self.failures.fetch_add(1, Ordering::SeqCst) == self.settled() {
            tracing::error!(cause = cause as &dyn std::error::Error, "the database cannot write");
        }
    }

    pub(super) fn is_writable(&self) -> bool {
        self.failures() == self.settled()
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    /// A probe has succeeded that began after this number of failures.
    pub(super) fn settle(&self, failures: u64) {
        // A write that failed meanwhile counts: the next probe decides about it.
        if self.settled.swap(failures, Ordering::SeqCst) != failures && self.is_writable() {
            tracing::info!("the database can write again");
        }
    }

    fn settled(&self) -> u64 {
        self.settled.load(Ordering::SeqCst)
    }
}

/// Checks that the disk takes as much as a large request writes, beside the file of the database.
pub(super) async fn find_room(database: &Path) -> Result<()> {
    let mut file = database.as_os_str().to_owned();
    file.push("-probe");
    let file = PathBuf::from(file);
    let probed = tokio::task::spawn_blocking(move || {
        let written = write_whole(&file);
        // The room is given back in any case.
        let _ = std::fs::remove_file(&file);
        written.map_err(|cause| Error::Unwritable(file, cause))
    });
    probed.await.unwrap_or(Err(Error::BrokenOff))
}

fn write_whole(file: &Path) -> io::Result<()> {
    let mut file = File::create(file)?;
    file.write_all(&vec![1; ROOM])?;
    // A disk may report only now that it is full.
    file.sync_all()
}

/// In bytes. A sign-up writes about 200 KiB to the write-ahead log.
const ROOM: usize = 512 << 10;
