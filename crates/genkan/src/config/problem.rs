//! Problems of a configuration, one line each.

use std::fmt;

/// One problem: the setting as the operator wrote it, what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// Name of the variable, or of the key with its section and file.
    pub setting: String,
    pub wrong: String,
    pub mend: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.setting, self.wrong, self.mend)
    }
}

/// All problems of a configuration. Displays one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// Problems that a check of a section found, by the name of the `GENKAN_*` variable.
///
/// The reader, which knows where each value came from, turns them into [`Problem`]s.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(super) Vec<(&'static str, String, String)>);

impl Findings {
    pub(super) fn add(&mut self, env: &'static str, wrong: impl Into<String>, mend: impl Into<String>) {
        self.0.push((env, wrong.into(), mend.into()));
    }
}

/// Why a file cannot be read, in words for the operator.
pub(crate) fn io_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    }
}

/// What to do about a plain `http` origin.
pub(super) const HTTPS_ONLY: &str = "use https://; http:// is allowed for loopback addresses only";
