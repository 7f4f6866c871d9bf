//! Failures of commands, and their exit statuses.

use std::process::ExitCode;

/// Why a command failed, which decides its exit status.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A wrong configuration, a line per mistake: exit status 2.
    #[error(transparent)]
    Config(#[from] crate::config::Problems),
    /// A setting that turned out to be wrong when it was used: exit status 2.
    #[error("{0}")]
    Setting(String),
    /// The change is recorded, and some running servers still work without it: exit status 3.
    #[error("{0}")]
    Unread(String),
    /// Anything else: exit status 1.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// Prints the failure to standard error, and returns its exit status.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Setting(_) => {
                eprintln!("{self}");
                // 2, so that a supervisor can tell a wrong setting, which a restart does not cure,
                // from a failure.
                ExitCode::from(2)
            }
            Self::Unread(_) => {
                eprintln!("genkan: {self}");
                // 3: the change is made, so the command must not be repeated.
                ExitCode::from(3)
            }
            Self::Other(cause) => {
                eprintln!("genkan: {}", with_causes(cause));
                ExitCode::FAILURE
            }
        }
    }
}

/// The error and its causes in one line. Libraries often repeat a cause in their own text, so a
/// repeated one is left out.
fn with_causes(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Some errors repeat the text of their cause. It is printed once.
        if !line.ends_with(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
    }
    line
}

impl From<crate::app::BuildError> for Failure {
    fn from(error: crate::app::BuildError) -> Self {
        use crate::app::BuildError as E;
        match error {
            E::Folder(problem) => Self::Setting(problem.to_string()),
            E::Database(cause)
            | E::Keys(crate::keys::Error::Storage(cause))
            | E::Fleet(crate::fleet::Error::Storage(cause)) => cause.into(),
            E::RecoveryKey | E::Keys(_) | E::Tls(_) | E::Dns(_) | E::Mail(_) => {
                Self::Setting(error.to_string())
            }
            E::Fleet(_) => Self::Other(error.into()),
        }
    }
}

impl From<crate::db::Error> for Failure {
    fn from(error: crate::db::Error) -> Self {
        use crate::db::Error as E;
        match error {
            E::Newer { .. } => Self::Setting(format!("GENKAN_DATABASE_URL: {error}; run the newer Genkan")),
            E::ChangedStep { .. } | E::SharedSessions => Self::Setting(format!("GENKAN_DATABASE_URL: {error}")),
            E::NotADatabase(_) | E::Unreadable(..) | E::Unwritable(..) | E::InUse(_) | E::Lost { .. } => {
                Self::Setting(format!("GENKAN_DATABASE_URL: {:#}", anyhow::Error::from(error)))
            }
            E::Away(_) => Self::Other(anyhow::Error::from(error).context(
                "GENKAN_DATABASE_URL: the database cannot be used. Check that it exists, and that this process reaches it",
            )),
            E::Statement(_) => Self::Other(anyhow::Error::from(error).context("GENKAN_DATABASE_URL")),
            E::Damaged(_)
            | E::Gone(_)
            | E::Outdated
            | E::FileAway(..)
            | E::BrokenOff
            | E::Standby
            | E::ClientGone
            | E::Unconfirmed(_)
            | E::Conflict(_)
            | E::Corrupt { .. }
            | E::Migrate { .. } => Self::Other(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let text = refused.to_string();
        let error = anyhow::Error::from(refused).context(format!("no answer: {text}")).context("settings");
        assert_eq!(with_causes(&error), format!("settings: no answer: {text}"));
    }
}
