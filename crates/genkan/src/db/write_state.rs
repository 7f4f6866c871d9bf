//! Whether writes reach the disk, for the readiness of this process.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{name_damage, says_that_writes_fail};
use super::file::{DatabaseFile, beside};
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
    /// The file of SQLite.
    file: Option<DatabaseFile>,
}

impl WriteState {
    pub(super) fn of(file: Option<DatabaseFile>) -> Self {
        Self { file, ..Self::default() }
    }

    pub(super) const fn file(&self) -> Option<&DatabaseFile> {
        self.file.as_ref()
    }

    /// Checks, after a write and before it is acknowledged, that it went to a file which is still
    /// there.
    pub(super) fn check_place(&self) -> sqlx::Result<()> {
        let Some(lost) = self.file.as_ref().and_then(DatabaseFile::lost_at_write) else { return Ok(()) };
        let told = format!("{} was deleted or replaced", lost.display());
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::NotFound, told)))
    }

    /// Takes an error into account. Returns it with the name of the file if that is damaged.
    pub(super) fn note(&self, cause: sqlx::Error) -> sqlx::Error {
        if says_that_writes_fail(&cause) && self.failures.fetch_add(1, Ordering::SeqCst) == self.settled() {
            let file = self.file.as_ref().map(|file| file.path.display().to_string());
            tracing::error!(cause = &cause as &dyn std::error::Error, file, "the database cannot write");
        }
        match &self.file {
            Some(file) => name_damage(cause, &file.path),
            None => cause,
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
    let file = beside(database, "-probe");
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
