//! Files that hold one value.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// A secret: refused when anybody on the machine may read it.
pub(super) fn read_secret(path: &Path) -> Result<String, (String, String)> {
    let mode = fs::metadata(path).map_err(|error| cannot_read(path, &error))?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err((
            format!("anybody on this machine may read {} (mode {:04o})", path.display(), mode & 0o7777),
            format!("chmod o= {}", path.display()),
        ));
    }
    let text = fs::read_to_string(path).map_err(|error| cannot_read(path, &error))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A list: a value a line; empty lines and what follows `#` are left out.
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
    let reason = match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    };
    (
        format!("cannot read {}: {reason}", path.display()),
        "name a text file that Genkan's user may read".to_owned(),
    )
}
