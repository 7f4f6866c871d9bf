//! The file of SQLite: that it is still the one that was opened, and that one server uses it.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use super::dialect::DatabaseUrl;
use super::{Error, Result};
use crate::base::monotonic_now;

/// The file that was opened, and the files that SQLite keeps beside it.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    pub(super) path: PathBuf,
    identity: FileId,
    /// Known once a connection keeps them in place.
    logs: OnceLock<Vec<(PathBuf, FileId)>>,
}

/// The numbers of a file's device and of its inode.
type FileId = (u64, u64);

impl DatabaseFile {
    /// The file at `path`, which has just been opened.
    pub(super) fn opened(path: &Path) -> Result<Self> {
        let found = identity(path).map_err(|cause| Error::Unreadable(path.to_owned(), cause))?;
        Ok(Self { path: path.to_owned(), identity: found, logs: OnceLock::new() })
    }

    /// Includes the write-ahead log and its index in what must stay in place.
    ///
    /// The caller has a connection that has read, and keeps it open: SQLite removes both files with
    /// the last connection, and creates others for the next.
    pub(super) fn remember_logs(&self) {
        let real = real_path(&self.path);
        let found = ["-wal", "-shm"].into_iter().filter_map(|suffix| {
            let path = beside(&real, suffix);
            identity(&path).ok().map(|found| (path, found))
        });
        self.logs.get_or_init(|| found.collect());
    }

    /// Returns the first of the files that was deleted or replaced. What is written to it is lost.
    pub(super) fn lost(&self) -> Option<&Path> {
        let logs = self.logs.get().into_iter().flatten().map(|(path, opened)| (path, opened));
        let mut all = std::iter::once((&self.path, &self.identity)).chain(logs);
        all.find(|(path, opened)| !is_still(path, **opened)).map(|(path, _)| path.as_path())
    }

    /// The size of its write-ahead log, in bytes.
    pub(super) fn log_size(&self) -> u64 {
        std::fs::metadata(beside(&real_path(&self.path), "-wal")).map_or(0, |log| log.len())
    }
}

fn is_still(path: &Path, opened: FileId) -> bool {
    match identity(path) {
        Ok(found) => found == opened,
        // Any other failure says nothing about the file that is open.
        Err(cause) => !matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

fn identity(path: &Path) -> io::Result<FileId> {
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// The path without symbolic links. SQLite keeps its other files beside the real one, and two paths
/// to one database share one lock.
fn real_path(path: &Path) -> PathBuf {
    let in_real_folder = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new(".")).canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    path.canonicalize().ok().or_else(in_real_folder).unwrap_or_else(|| path.to_owned())
}

/// A file beside the database: its name with `suffix`.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The right to serve from a SQLite file, for as long as it lives. It ends with the process.
#[derive(Debug)]
pub(crate) struct ServingLock {
    _file: Option<File>,
}

/// Takes the right to serve from a database. PostgreSQL gives it to everyone.
///
/// Only servers take it, so that commands work beside one. A server that is about to end is waited
/// for.
///
/// # Errors
///
/// [`Error::InUse`] if another server has it.
pub(crate) async fn lock_for_serving(url: &DatabaseUrl) -> Result<ServingLock> {
    let Some(database) = url.file() else { return Ok(ServingLock { _file: None }) };
    let path = beside(&real_path(database), "-serving");
    // Not the database itself: SQLite's locks on it end when any handle of this process is closed.
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|cause| Error::Unwritable(path.clone(), cause))?;
    let deadline = monotonic_now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(ServingLock { _file: Some(file) }),
            Err(TryLockError::WouldBlock) if monotonic_now() < deadline => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(database.to_owned())),
            Err(TryLockError::Error(cause)) => {
                tracing::warn!(
                    cause = &cause as &dyn std::error::Error,
                    file = %path.display(),
                    "this disk has no locks: make sure that only one Genkan serves from the database"
                );
                return Ok(ServingLock { _file: None });
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Refuses a database that is missing or empty although `sealing_key`, the file of its key, is
/// there. A start would otherwise create an empty one in its place.
pub(crate) fn refuse_lost_database(url: &DatabaseUrl, sealing_key: &Path) -> Result<()> {
    let Some(database) = url.file() else { return Ok(()) };
    // The key first: a first start by another process creates the database before its key.
    let has_key = sealing_key.exists();
    let is_lost = match std::fs::metadata(database) {
        Ok(found) => found.len() == 0,
        Err(cause) => cause.kind() == io::ErrorKind::NotFound,
    };
    if is_lost && has_key {
        return Err(Error::Lost { database: database.to_owned(), sealing_key: sealing_key.to_owned() });
    }
    Ok(())
}

/// A part of the time that a start may take.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(50);
