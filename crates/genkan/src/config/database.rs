//! `[database]`: where Genkan keeps what it knows.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::key::section;
use super::problem::{Findings, Problem};
use super::value::Setting;
use crate::base::Secret;

section! {
    /// Where Genkan keeps what it knows.
    pub struct Database = "database" {
        /// The folder of keys and of the embedded database. Made at the first start, for Genkan's user only.
        data_dir: PathBuf { env: "GENKAN_DATA_DIR", alias: "PDS_DATA_DIRECTORY", default: "./data" },
        /// The database: `sqlite:<path>`, or `postgres://user:password@host/name` for several Genkans side by side.
        url: DatabaseUrl {
            env: "GENKAN_DATABASE_URL",
            derived: "sqlite:genkan.db in data_dir" => data_dir.as_ref().map(|folder| DatabaseUrl::sqlite(&folder.join("genkan.db")))
        },
        /// The most connections to PostgreSQL; the readers of SQLite.
        connections: u32 { env: "GENKAN_DATABASE_CONNECTIONS", default: "16" },
        /// How long a request waits for a connection before it is answered 503.
        acquire_timeout: Duration { env: "GENKAN_DATABASE_ACQUIRE_TIMEOUT", default: "2s" },
    }
}

impl Database {
    fn check(&self, found: &mut Findings) {
        if self.connections == 0 || self.connections > 1000 {
            found.add(
                "GENKAN_DATABASE_CONNECTIONS",
                format!("{} connections cannot be", self.connections),
                "write 1 to 1000",
            );
        }
        if self.acquire_timeout.is_zero() {
            found.add(
                "GENKAN_DATABASE_ACQUIRE_TIMEOUT",
                "0s never gets a connection",
                "write 2s, for instance",
            );
        }
        if self.data_dir.exists() && !self.data_dir.is_dir() {
            found.add(
                "GENKAN_DATA_DIR",
                format!("{} is not a folder", self.data_dir.display()),
                "name a folder, or a path where one can be made",
            );
        }
    }
}

impl Database {
    /// Makes the data folder where it is missing, for Genkan's user only: keys lie there.
    pub(crate) fn make_data_dir(&self) -> Result<(), Problem> {
        use std::os::unix::fs::DirBuilderExt as _;
        if self.data_dir.is_dir() {
            return Ok(());
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.data_dir).map_err(|error| {
            Problem {
                setting: "GENKAN_DATA_DIR".to_owned(),
                wrong: format!("cannot make {} ({})", self.data_dir.display(), error.kind()),
                mend: "name a folder that Genkan's user may write to".to_owned(),
            }
        })
    }
}

/// Where the database is. Prints without the password that it may contain.
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
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() || path.contains(['?', '#']) || path.starts_with(':') {
                Err("names no file".to_owned())
            } else {
                Ok(Self::Sqlite(path.into()))
            };
        }
        let url: http::Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
        match url.scheme_str() {
            Some("postgres" | "postgresql") if url.path().len() > 1 => {
                Ok(Self::Postgres(Secret::new(text.to_owned())))
            }
            Some("postgres" | "postgresql") => Err("names no database".to_owned()),
            _ => Err("is neither SQLite nor PostgreSQL".to_owned()),
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
                // All but user, password and parameters, which may hold a password too.
                let url = url.expose();
                let place = url.split_once("://").map_or("", |(_, rest)| rest);
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
