//! The file of the sealing keys: created at the first start, readable by its owner only.
//!
//! The first line is the key that seals. Further lines are older keys, which stay as long as the
//! database contains values that they sealed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;

use super::Error;
use crate::base::seal::{Sealer, SealingKeys, key_id};
use crate::base::{Secret, random};

/// Reads the sealing keys from `file`. Creates the file with a new key if it does not exist.
pub(crate) fn sealing_key_file(file: &Path) -> Result<SealingKeys, Error> {
    let wrong = |why: String| Error::SealingKeyFile { file: file.to_path_buf(), why };
    match std::fs::read_to_string(file) {
        Ok(text) => {
            // Before the text is parsed, so that an operator fixes the permissions even if the
            // content is wrong.
            refuse_readable_by_others(file).map_err(wrong)?;
            read(&text).ok_or_else(|| wrong("every line must have 64 hexadecimal digits".to_owned()))
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            let key = random::bytes::<32>();
            write_private(file, &HEXLOWER_PERMISSIVE.encode(&key))
                .map_err(|cause| wrong(cause.to_string()))?;
            Ok(SealingKeys::one(Secret::new(key)))
        }
        Err(cause) => Err(wrong(cause.to_string())),
    }
}

fn read(text: &str) -> Option<SealingKeys> {
    let mut keys = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let bytes = HEXLOWER_PERMISSIVE.decode(line.as_bytes()).ok()?;
        keys.push(Secret::new(<[u8; 32]>::try_from(bytes).ok()?));
    }
    let mut keys = keys.into_iter();
    Some(SealingKeys { current: keys.next()?, older: keys.collect() })
}

/// Adds a new key before those in the file. Processes that follow the file seal with it within
/// [`FOLLOW_EVERY`].
pub(crate) fn add_sealing_key(file: &Path) -> Result<SealingKeys, Error> {
    let known = sealing_key_file(file)?;
    let current = Secret::new(random::bytes::<32>());
    let keys = SealingKeys { current, older: std::iter::once(known.current).chain(known.older).collect() };
    write(file, &keys)?;
    Ok(keys)
}

/// Removes all but the current key from the file. Returns the files that the older keys were moved
/// to.
///
/// They are kept because backups of the database from their time need them.
pub(crate) fn drop_older_sealing_keys(file: &Path) -> Result<Vec<PathBuf>, Error> {
    let keys = sealing_key_file(file)?;
    let mut kept = Vec::new();
    for key in &keys.older {
        let aside = file.with_extension(format!("key.{}", key_id(key)));
        // The file may exist from an attempt that was interrupted before the last step.
        let done = write_private(&aside, &HEXLOWER_PERMISSIVE.encode(key.expose()));
        match done {
            Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::SealingKeyFile { file: aside, why: cause.to_string() });
            }
            _ => kept.push(aside),
        }
    }
    // Last: a failure above leaves every key in the file.
    write(file, &SealingKeys::one(keys.current))?;
    Ok(kept)
}

/// Follows the file for as long as the process lives, so that a rotation reaches every process.
pub(crate) async fn follow(file: PathBuf, sealer: Sealer, mut known: SealingKeys) {
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let path = file.clone();
        let read = tokio::task::spawn_blocking(move || sealing_key_file_as_it_is(&path)).await;
        // The file is missing, or someone is editing it: the known keys stay in use.
        let Ok(Some(keys)) = read else { continue };
        // Compared with what was read last, since `replace` and its log line are for changes only.
        if keys != known {
            sealer.replace(&keys);
            tracing::info!(key = &*sealer.key_id(), "read changed sealing keys");
            known = keys;
        }
    }
}

fn sealing_key_file_as_it_is(file: &Path) -> Option<SealingKeys> {
    read(&std::fs::read_to_string(file).ok()?)
}

/// Replaces the file in one step, so that no reader sees half of it.
///
/// The folder is synced as well: without that, a power failure could undo the rename after values
/// were sealed with the new key.
fn write(file: &Path, keys: &SealingKeys) -> Result<(), Error> {
    let lines: Vec<String> = std::iter::once(&keys.current)
        .chain(&keys.older)
        .map(|key| HEXLOWER_PERMISSIVE.encode(key.expose()))
        .collect();
    let fresh = file.with_extension(format!("key.{}.new", random::id()));
    write_private(&fresh, &lines.join("\n"))
        .and_then(|()| std::fs::rename(&fresh, file))
        .and_then(|()| std::fs::File::open(file.parent().unwrap_or_else(|| Path::new(".")))?.sync_all())
        .map_err(|cause| Error::SealingKeyFile { file: file.to_path_buf(), why: cause.to_string() })
}

/// Interval at which processes read the file.
pub(crate) const FOLLOW_EVERY: Duration = Duration::from_secs(1);

fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // `create_new` never follows a link or overwrites a key. The mode is set at creation, so there
    // is no moment at which others can read the file.
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(out, "{text}")?;
    out.sync_all()
}

fn refuse_readable_by_others(file: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(file).map_err(|cause| cause.to_string())?.permissions().mode();
    // Readable by the group is allowed: container platforms mount secrets in that way.
    if mode & 0o004 == 0 {
        return Ok(());
    }
    Err(format!("every user of this machine can read it (mode {:03o}); run chmod 600 on it", mode & 0o777))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn is_made_once_and_read_again() {
        let file = std::env::temp_dir().join(format!("genkan-sealing-{}", random::id()));
        let made = sealing_key_file(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(sealing_key_file(&file).unwrap() == made);

        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = sealing_key_file(&file).unwrap_err().to_string();
        assert!(refused.contains("every user of this machine can read it (mode 644)"), "{refused}");
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_rotation_keeps_the_older_key_until_it_may_go() {
        let file = std::env::temp_dir().join(format!("genkan-sealing-{}.key", random::id()));
        let first = sealing_key_file(&file).unwrap();
        let both = add_sealing_key(&file).unwrap();
        assert_eq!((both.older.len(), &both.older[0]), (1, &first.current));
        assert_eq!(sealing_key_file(&file).unwrap(), both);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let aside = drop_older_sealing_keys(&file).unwrap();
        assert_eq!(sealing_key_file(&file).unwrap(), SealingKeys::one(both.current));
        assert_eq!(sealing_key_file(&aside[0]).unwrap(), first);
        for file in aside.iter().chain([&file]) {
            std::fs::remove_file(file).unwrap();
        }
    }

    #[test]
    fn a_damaged_file_is_never_replaced() {
        let file = std::env::temp_dir().join(format!("genkan-sealing-{}", random::id()));
        write_private(&file, "abc").unwrap();
        assert!(sealing_key_file(&file).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), "abc");
        std::fs::remove_file(&file).unwrap();
    }
}
