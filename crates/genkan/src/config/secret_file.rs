//! Files that hold the value of one key.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::problem::io_reason;

/// Reads a secret. A file that every user of the machine can read is an error.
pub(super) fn read_secret(path: &Path) -> Result<String, (String, String)> {
    let mode = fs::metadata(path).map_err(|error| cannot_read(path, &error))?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err((
            format!("every user of this machine can read {} (mode {:04o})", path.display(), mode & 0o7777),
            format!("run chmod o= {}", path.display()),
        ));
    }
    let text = fs::read_to_string(path).map_err(|error| cannot_read(path, &error))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads a list, one value per line. Empty lines and everything after `#` are ignored.
pub(super) fn read_lines(path: &Path) -> Result<String, (String, String)> {
    let text = fs::read_to_string(path).map_err(|error| cannot_read(path, &error))?;
    let values: Vec<&str> = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .collect();
    Ok(values.join(","))
}

fn cannot_read(path: &Path, error: &std::io::Error) -> (String, String) {
    (
        format!("cannot read {}: {}", path.display(), io_reason(error)),
        "use a text file that Genkan's user can read".to_owned(),
    )
}
