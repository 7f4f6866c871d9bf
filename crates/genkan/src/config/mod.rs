//! The settings of the operator, read once at the start.
//!
//! A *key* is one setting. A *section* is a struct of keys, in a file of this folder. Its `section!`
//! declaration is the only description of its keys: loading, `genkan config show`,
//! `genkan config check` and `docs/configuration.md` all use it.
//!
//! The value of a key comes from the first of: the environment (`GENKAN_*`), the reference PDS's
//! variable for the same setting (`PDS_*`), the TOML file, the default. No other room reads the
//! environment.

mod brand;
mod database;
mod describe;
mod directory;
mod environment;
mod external;
mod fleet;
mod key;
mod keys;
mod limits;
mod links;
mod listen;
mod mail;
mod network;
mod oauth;
mod problem;
mod reader;
mod secret_file;
mod service;
mod sessions;
mod sign_up;
mod suggest;
mod telemetry;
mod toml_file;
mod value;

use std::path::Path;

pub use brand::{Brand, Colour};
pub use database::{Database, DatabaseUrl};
pub use directory::Directory;
pub use environment::Environment;
pub use external::{External, TargetReads};
pub use fleet::Fleet;
pub use keys::Keys;
pub use limits::Limits;
pub use links::Links;
pub use listen::Listen;
pub use mail::{Mail, Sender, SmtpTls, SmtpUrl};
pub use network::Network;
pub use oauth::OAuth;
pub use problem::{Problem, Problems};
pub use service::Service;
pub use sessions::Sessions;
pub use sign_up::SignUp;
pub use telemetry::{LogFormat, LogLevel, Telemetry};
pub use value::{Rate, Size};

pub(crate) use describe::{configuration_page, show};
pub(crate) use reader::{EffectiveSetting, Source};

use key::Key;
use problem::Findings;
use reader::Reader;

/// All settings, valid.
#[derive(Clone, Debug)]
pub struct Config {
    pub service: Service,
    pub brand: Brand,
    pub listen: Listen,
    pub database: Database,
    pub keys: Keys,
    pub directory: Directory,
    pub network: Network,
    pub fleet: Fleet,
    pub external: External,
    pub sign_up: SignUp,
    pub sessions: Sessions,
    pub oauth: OAuth,
    pub links: Links,
    pub mail: Mail,
    pub limits: Limits,
    pub telemetry: Telemetry,
}

impl Config {
    /// Reads the environment and, if given, a TOML file.
    ///
    /// # Errors
    ///
    /// Returns all problems, not just the first.
    pub fn load(environment: &Environment, file: Option<&Path>) -> Result<Self, Problems> {
        let reading = Reading::of(environment, file);
        match reading.config {
            Some(config) if reading.problems.is_empty() => Ok(config),
            _ => Err(reading.problems),
        }
    }

    /// Settings for tests: a development network at `http://localhost:2583`, with the data below
    /// `data_dir` and every port chosen by the operating system.
    pub fn for_tests(data_dir: &Path) -> Self {
        let environment = Environment::from_pairs([
            ("GENKAN_PUBLIC_URL", "http://localhost:2583"),
            ("GENKAN_DEVELOPMENT", "true"),
            ("GENKAN_LISTEN", "127.0.0.1:0"),
            ("GENKAN_OPS_LISTEN", "127.0.0.1:0"),
            ("GENKAN_DIRECTORY_FRONT_LISTEN", "127.0.0.1:0"),
            ("GENKAN_DIRECTORY_FRONT_URL", "http://localhost:2585"),
            ("GENKAN_DATA_DIR", &data_dir.to_string_lossy()),
            ("GENKAN_SHUTDOWN_LAG", "0s"),
            ("GENKAN_WORKERS", "1"),
        ]);
        Self::load(&environment, None).expect("the defaults for tests are valid")
    }
}

/// The result of reading a configuration: the settings, where each came from, and the problems.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) config: Option<Config>,
    pub(crate) shown: Vec<EffectiveSetting>,
    pub(crate) problems: Problems,
}

impl Reading {
    pub(crate) fn of(environment: &Environment, file: Option<&Path>) -> Self {
        let mut reader = Reader::new(environment, file, &all_keys());
        let service = Service::read(&mut reader);
        let brand = Brand::read(&mut reader);
        let listen = Listen::read(&mut reader);
        let database = Database::read(&mut reader);
        let keys = Keys::read(&mut reader);
        let directory = Directory::read(&mut reader);
        let network = Network::read(&mut reader);
        let fleet = Fleet::read(&mut reader);
        let external = External::read(&mut reader);
        let sign_up = SignUp::read(&mut reader);
        let sessions = Sessions::read(&mut reader);
        let oauth = OAuth::read(&mut reader);
        let links = Links::read(&mut reader);
        let mail = Mail::read(&mut reader);
        let limits = Limits::read(&mut reader);
        let telemetry = Telemetry::read(&mut reader);

        let mut found = Findings::default();
        if let (Some(keys), Some(service)) = (&keys, &service) {
            keys.check_for(service, &mut found);
        }
        if let (Some(listen), Some(directory)) = (&listen, &directory) {
            listen.check_beside(directory, &mut found);
        }
        reader.add(found);

        let config = (|| {
            Some(Config {
                service: service?,
                brand: brand?,
                listen: listen?,
                database: database?,
                keys: keys?,
                directory: directory?,
                network: network?,
                fleet: fleet?,
                external: external?,
                sign_up: sign_up?,
                sessions: sessions?,
                oauth: oauth?,
                links: links?,
                mail: mail?,
                limits: limits?,
                telemetry: telemetry?,
            })
        })();
        let (shown, problems) = reader.finish();
        Self { config, shown, problems }
    }
}

/// The sections, in the order of the documentation.
fn sections() -> [(&'static str, &'static [&'static str], &'static [Key]); 16] {
    [
        Service::described(),
        Brand::described(),
        Listen::described(),
        Database::described(),
        Keys::described(),
        Directory::described(),
        Network::described(),
        Fleet::described(),
        External::described(),
        SignUp::described(),
        Sessions::described(),
        OAuth::described(),
        Links::described(),
        Mail::described(),
        Limits::described(),
        Telemetry::described(),
    ]
}

fn all_keys() -> Vec<&'static Key> {
    sections().into_iter().flat_map(|(_, _, keys)| keys).collect()
}

#[cfg(test)]
mod bad_configs;
