//! `[database]`: the database and the data folder.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::problem::{Findings, Problem, io_reason};
use super::section::section;
use super::value::Setting;
use crate::base::Secret;

section! {
    /// The database and the data folder.
    pub struct Database = "database" {
        /// Folder for keys and the SQLite database. Genkan creates it at the first start,
        /// accessible to its own user only.
        data_dir: PathBuf { env: "GENKAN_DATA_DIR", alias: "PDS_DATA_DIRECTORY", default: "./data" },
        /// Database: `sqlite:<path>`, or `postgres://user:password@host/name`, which several Genkan
        /// processes can share.
        url: DatabaseUrl {
            env: "GENKAN_DATABASE_URL",
            derived: "sqlite:genkan.db in data_dir" => data_dir.as_ref().map(|folder| DatabaseUrl::sqlite(&folder.join("genkan.db")))
        },
        /// Maximum number of connections to PostgreSQL, or of read connections to SQLite. One more
        /// reads the changes of other processes, and no request waits for it.
        connections: u32 { env: "GENKAN_DATABASE_CONNECTIONS", default: "16" },
        /// Time for which a request waits for a database connection before it fails with 503. On
        /// SQLite, where one write waits for the disk while the next ones queue, a write waits four
        /// times as long.
        acquire_timeout: Duration { env: "GENKAN_DATABASE_ACQUIRE_TIMEOUT", default: "2s" },
    }
}

impl Database {
    fn check(&self, found: &mut Findings) {
        if self.connections == 0 || self.connections > 1000 {
            found.add(
                "GENKAN_DATABASE_CONNECTIONS",
                format!("{} is out of range", self.connections),
                "use 1 to 1000",
            );
        }
        if self.acquire_timeout.is_zero() {
            found.add(
                "GENKAN_DATABASE_ACQUIRE_TIMEOUT",
                "0s leaves no time to get a connection",
                "use 2s, for example",
            );
        }
        if self.data_dir.exists() && !self.data_dir.is_dir() {
            found.add(
                "GENKAN_DATA_DIR",
                format!("{} is not a folder", self.data_dir.display()),
                "use a folder, or a path where Genkan can create one",
            );
        }
    }
}

impl Database {
    /// Creates the data folder if it is missing. Only Genkan's user may enter it: it contains keys.
    pub(crate) fn make_data_dir(&self) -> Result<(), Problem> {
        use std::os::unix::fs::DirBuilderExt as _;
        if self.data_dir.is_dir() {
            return Ok(());
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.data_dir).map_err(|error| {
            Problem {
                setting: "GENKAN_DATA_DIR".to_owned(),
                wrong: format!("cannot create {}: {}", self.data_dir.display(), io_reason(&error)),
                mend: "use a folder that Genkan's user can write to".to_owned(),
            }
        })
    }
}

/// The address of the database. Displays without the password that it may contain.
#[derive(Clone)]
pub enum DatabaseUrl {
    /// The file.
    Sqlite(PathBuf),
    /// The whole URL.
    Postgres(Secret<String>),
}

impl DatabaseUrl {
    pub fn sqlite(path: &Path) -> Self {
        Self::Sqlite(path.to_owned())
    }
}

impl Setting for DatabaseUrl {
    const FORM: &'static str = "sqlite:<path> or postgres://user:password@host/name";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            // `sqlite:path` and `sqlite://path` are both common.
            let path = path.strip_prefix("//").unwrap_or(path);
            // `:memory:` is refused, since nothing would outlive the process. Parameters are
            // refused too, since Genkan does not read them.
            return if path.is_empty() || path.contains(['?', '#']) || path.starts_with(':') {
                Err("does not name a file".to_owned())
            } else {
                Ok(Self::Sqlite(path.into()))
            };
        }
        let url: http::Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
        match url.scheme_str() {
            Some("postgres" | "postgresql") if url.path().len() > 1 => {
                Ok(Self::Postgres(Secret::new(text.to_owned())))
            }
            Some("postgres" | "postgresql") => Err("does not name a database".to_owned()),
            _ => Err("is neither an SQLite nor a PostgreSQL URL".to_owned()),
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => {
                // Without user, password and parameters: a parameter can hold a password too.
                let url = url.expose();
                let place = url.split_once("://").map_or("", |(_, rest)| rest);
                // The last `@`: a password may contain others.
                let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
                let place = place.split('?').next().unwrap_or_default();
                write!(f, "postgres://[sealed]@{place}")
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_prints_without_its_password() {
        for (given, shown) in [
            ("sqlite:data/x.db", "sqlite:data/x.db"),
            ("sqlite:///var/x.db", "sqlite:/var/x.db"),
            ("postgres://me:hunter2@db:5432/genkan", "postgres://[sealed]@db:5432/genkan"),
            ("postgresql://db/genkan?user=me&password=hunter2", "postgres://[sealed]@db/genkan"),
        ] {
            let url = DatabaseUrl::parse(given).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
    }
}
