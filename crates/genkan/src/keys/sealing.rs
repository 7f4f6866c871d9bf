//! The sealing key's file: made at the first start, readable by its owner only.

use std::io::Write as _;
use std::path::Path;

use data_encoding::HEXLOWER_PERMISSIVE;

use super::Error;
use crate::base::{Secret, random};

/// Reads the sealing key from `file`, or makes both when `file` is not there.
pub fn sealing_key_file(file: &Path) -> Result<Secret<[u8; 32]>, Error> {
    let wrong = |why: String| Error::SealingKeyFile { file: file.to_path_buf(), why };
    match std::fs::read_to_string(file) {
        Ok(text) => {
            refuse_readable_by_others(file).map_err(wrong)?;
            let bytes = HEXLOWER_PERMISSIVE
                .decode(text.trim().as_bytes())
                .ok()
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                .ok_or_else(|| wrong("must hold 64 hex characters".to_owned()))?;
            Ok(Secret::new(bytes))
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            let key = random::bytes::<32>();
            write_private(file, &HEXLOWER_PERMISSIVE.encode(&key))
                .map_err(|cause| wrong(cause.to_string()))?;
            Ok(Secret::new(key))
        }
        Err(cause) => Err(wrong(cause.to_string())),
    }
}

fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(out, "{text}")?;
    out.sync_all()
}

fn refuse_readable_by_others(file: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(file).map_err(|cause| cause.to_string())?.permissions().mode();
    // Group read is let pass: container platforms mount secrets so.
    if mode & 0o004 == 0 {
        return Ok(());
    }
    Err(format!("others may read it (mode {:03o}); run chmod 600 on it", mode & 0o777))
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
        assert!(refused.contains("others may read it (mode 644)"), "{refused}");
        std::fs::remove_file(&file).unwrap();
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
