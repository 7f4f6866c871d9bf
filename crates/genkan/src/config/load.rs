//! Reading the whole configuration.

use std::path::Path;

use super::brand::Brand;
use super::database::Database;
use super::directory::Directory;
use super::environment::Environment;
use super::external::External;
use super::fleet::Fleet;
use super::key::Key;
use super::keys::Keys;
use super::limits::Limits;
use super::links::Links;
use super::listen::Listen;
use super::mail::Mail;
use super::network::Network;
use super::oauth::OAuth;
use super::problem::{Findings, Problems};
use super::reader::{EffectiveSetting, Reader};
use super::service::Service;
use super::sessions::Sessions;
use super::sign_up::SignUp;
use super::telemetry::Telemetry;

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
        Self::for_tests_with(data_dir, &[])
    }

    /// Returns the configuration of [`Config::for_tests`] with these settings besides, or instead.
    pub fn for_tests_with(data_dir: &Path, more: &[(&str, &str)]) -> Self {
        let data_dir = data_dir.to_string_lossy();
        let settings = [
            ("GENKAN_PUBLIC_URL", "http://localhost:2583"),
            ("GENKAN_DEVELOPMENT", "true"),
            ("GENKAN_LISTEN", "127.0.0.1:0"),
            ("GENKAN_OPS_LISTEN", "127.0.0.1:0"),
            ("GENKAN_DIRECTORY_FRONT_LISTEN", "127.0.0.1:0"),
            ("GENKAN_DIRECTORY_FRONT_URL", "http://localhost:2585"),
            ("GENKAN_DATA_DIR", &*data_dir),
            ("GENKAN_SHUTDOWN_LAG", "0s"),
            ("GENKAN_WORKERS", "1"),
        ];
        let environment = Environment::from_pairs(settings.into_iter().chain(more.iter().copied()));
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
        // Every section is read before any problem is reported, so that one start shows all of
        // them.
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

        // Rules that concern two sections. Each runs only if both could be read.
        let mut found = Findings::default();
        if let (Some(keys), Some(service)) = (&keys, &service) {
            keys.check_for(service, &mut found);
        }
        if let (Some(listen), Some(directory)) = (&listen, &directory) {
            listen.check_beside(directory, &mut found);
        }
        reader.add(found);

        // A closure, so that `?` ends here: a section with a problem leaves no configuration.
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
pub(super) fn sections() -> [(&'static str, &'static [&'static str], &'static [Key]); 16] {
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

pub(super) fn all_keys() -> Vec<&'static Key> {
    sections().into_iter().flat_map(|(_, _, keys)| keys).collect()
}
