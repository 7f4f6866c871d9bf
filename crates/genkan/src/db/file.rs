//! The file of SQLite: that it is still the one that was opened, and that one server uses it.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::dialect::DatabaseUrl;
use super::{Error, Result};
use crate::base::monotonic_now;

/// The file that was opened, and the files that SQLite keeps beside it.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    pub(super) path: PathBuf,
    opened_at: Instant,
    database: OpenedFile,
    /// Known once a connection keeps them in place.
    logs: OnceLock<Vec<OpenedFile>>,
    /// When a write last looked at the paths: milliseconds since the file was opened.
    looked_at: AtomicU64,
}

/// A file that SQLite has open.
#[derive(Debug)]
struct OpenedFile {
    path: PathBuf,
    identity: FileId,
    /// For what the system knows of the file itself, whatever is at its path now.
    handle: Option<File>,
}

/// The numbers of a file's device and of its inode.
type FileId = (u64, u64);

impl DatabaseFile {
    /// The file at `path`, which has just been opened.
    pub(super) fn opened(path: &Path) -> Result<Self> {
        let database =
            OpenedFile::at(path.to_owned()).map_err(|cause| Error::Unreadable(path.to_owned(), cause))?;
        Ok(Self {
            path: path.to_owned(),
            opened_at: monotonic_now(),
            database,
            logs: OnceLock::new(),
            looked_at: AtomicU64::new(0),
        })
    }

    /// Includes the write-ahead log and its index in what must stay in place.
    ///
    /// The caller has a connection that has read, and keeps it open: SQLite removes both files with
    /// the last connection, and creates others for the next.
    pub(super) fn remember_logs(&self) {
        let real = real_path(&self.path);
        let found =
            ["-wal", "-shm"].into_iter().filter_map(|suffix| OpenedFile::at(beside(&real, suffix)).ok());
        self.logs.get_or_init(|| found.collect());
    }

    /// Returns the first of the files that was deleted or replaced. What is written to it is lost.
    pub(super) fn lost(&self) -> Option<&Path> {
        self.all().find(|file| !file.is_still()).map(|file| file.path.as_path())
    }

    /// Returns the first of the files that was deleted, for each write. A file that was moved away,
    /// and still has what is written to it, is noticed within [`LOOK_AT_PATHS_EVERY`].
    pub(super) fn lost_at_write(&self) -> Option<&Path> {
        if let Some(deleted) = self.all().find(|file| file.is_deleted()) {
            return Some(&deleted.path);
        }
        // The system finds a path slowly, compared with a write to the log.
        let now = u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now.saturating_sub(self.looked_at.load(Ordering::Relaxed)) < LOOK_AT_PATHS_EVERY {
            return None;
        }
        let lost = self.lost();
        if lost.is_none() {
            self.looked_at.store(now, Ordering::Relaxed);
        }
        lost
    }

    fn all(&self) -> impl Iterator<Item = &OpenedFile> {
        std::iter::once(&self.database).chain(self.logs.get().into_iter().flatten())
    }

    /// The size of its write-ahead log, in bytes.
    pub(super) fn log_size(&self) -> u64 {
        std::fs::metadata(beside(&real_path(&self.path), "-wal")).map_or(0, |log| log.len())
    }
}

impl OpenedFile {
    fn at(path: PathBuf) -> io::Result<Self> {
        let identity = identity(&path)?;
        let handle =
            handle(&path).filter(|handle| handle.metadata().is_ok_and(|found| id_of(&found) == identity));
        Ok(Self { path, identity, handle })
    }

    /// Whether the path still leads to the file.
    fn is_still(&self) -> bool {
        match identity(&self.path) {
            Ok(found) => found == self.identity,
            // Any other failure says nothing about the file that is open.
            Err(cause) => !matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        }
    }

    /// Whether no path leads to the file any more.
    fn is_deleted(&self) -> bool {
        match &self.handle {
            Some(handle) => handle.metadata().is_ok_and(|found| found.nlink() == 0),
            None => !self.is_still(),
        }
    }
}

/// A handle of a file that can only be asked about it.
#[cfg(target_os = "linux")]
fn handle(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Any other handle would end all locks of SQLite on this file when it is closed (fcntl_locking(2)).
    File::options().read(true).custom_flags(nix::fcntl::OFlag::O_PATH.bits()).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn handle(_: &Path) -> Option<File> {
    None
}

fn identity(path: &Path) -> io::Result<FileId> {
    Ok(id_of(&std::fs::metadata(path)?))
}

fn id_of(found: &std::fs::Metadata) -> FileId {
    (found.dev(), found.ino())
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
/// In milliseconds.
const LOOK_AT_PATHS_EVERY: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_notices_a_deleted_file_and_a_look_a_moved_one() {
        let folder = tempfile::tempdir().unwrap();
        let [path, aside] = ["genkan.db", "aside"].map(|name| folder.path().join(name));
        std::fs::write(&path, "x").unwrap();
        let file = DatabaseFile::opened(&path).unwrap();
        assert_eq!((file.lost(), file.lost_at_write()), (None, None));
        std::fs::rename(&path, &aside).unwrap();
        assert_eq!(file.lost(), Some(path.as_path()));
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!((file.lost(), file.lost_at_write()), (None, None));
        std::fs::write(&aside, "another").unwrap();
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!(file.lost_at_write(), Some(path.as_path()), "replaced");
        let file = DatabaseFile::opened(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.lost_at_write(), Some(path.as_path()), "deleted");
    }
}
