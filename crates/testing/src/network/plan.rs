//! The plan of a network, before it starts.

use std::fs::OpenOptions;
use std::future::{Future, IntoFuture};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Mutex;

use genkan_protocol::crypto::K256PrivateKey;
use sha2::{Digest, Sha256};

use super::TestNetwork;
use super::ports::Ports;
use super::running::{Genkan, run};
use crate::{FakeDirectory, FakeHost, FakePds};

/// The plan of a network. Awaiting it starts the network.
#[derive(Clone, Debug)]
pub struct Plan {
    program: PathBuf,
    hosts: usize,
    external_pdses: usize,
    settings: Vec<(String, String)>,
    listed: Vec<String>,
}

pub(super) const ADMIN_PASSWORD: &str = "the-operators-own-password";

impl Plan {
    /// One host behind the given `genkan` program, on an `SQLite` file.
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            hosts: 1,
            external_pdses: 0,
            settings: Vec::new(),
            listed: Vec::new(),
        }
    }

    /// Sets the number of hosts.
    #[must_use]
    pub fn hosts(mut self, count: usize) -> Self {
        self.hosts = count;
        self
    }

    /// Sets the number of external PDSes, which keep linked accounts.
    #[must_use]
    pub fn external_pds(mut self, count: usize) -> Self {
        self.external_pdses = count;
        self
    }

    /// Adds a setting of Genkan. Of several with one name, the last counts.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Genkan may call this origin, although it is on loopback.
    #[must_use]
    pub fn listing(mut self, origin: &str) -> Self {
        self.listed.push(origin.to_owned());
        self
    }

    /// Whether a setting of this name was made.
    pub fn is_set(&self, name: &str) -> bool {
        self.settings.iter().any(|(set, _)| set == name)
    }

    async fn start(self) -> TestNetwork {
        let folder = tempfile::tempdir().unwrap();
        let directory = FakeDirectory::start().await;
        let mut hosts = Vec::new();
        for index in 0..self.hosts {
            hosts.push(FakeHost::start(&format!("admin-password-of-host-{index}")).await);
        }
        let mut external_pdses = Vec::new();
        for _ in 0..self.external_pdses {
            external_pdses.push(FakePds::start().await);
        }
        let ports = Ports::free();
        // Derived from the port, so that parallel networks have different keys and one network has
        // the same after a restart.
        let rotation_key = key("rotation", ports.public);
        let mut variables = settings_of(ports, folder.path(), &directory, &rotation_key);
        let own = hosts.iter().map(FakeHost::url).chain(external_pdses.iter().map(FakePds::url));
        let origins: Vec<_> = own.chain(self.listed).collect();
        variables.push(("GENKAN_PRIVATE_ORIGINS".to_owned(), origins.join(",")));
        // Last, so that a test can override every setting.
        variables.extend(self.settings);

        let host_keys: Vec<_> =
            (0..self.hosts).map(|index| key(&format!("host {index}"), ports.public)).collect();
        let command_variables = [variables.clone(), ports.variables()].concat();
        for (index, (host, signing_key)) in hosts.iter().zip(&host_keys).enumerate() {
            register(&self.program, &command_variables, index, host, signing_key, folder.path()).await;
        }
        let genkan = Genkan::start(&self.program, &variables, Some(ports), &[]).await;
        let net = TestNetwork {
            directory,
            hosts,
            external_pdses,
            genkan,
            program: self.program,
            variables: command_variables,
            host_keys,
            rotation_key,
            past: Mutex::default(),
            folder,
        };
        // The journals start empty, so that a test counts only its own calls.
        net.directory.forget();
        for host in &net.hosts {
            host.forget();
        }
        net
    }
}

impl IntoFuture for Plan {
    type Output = TestNetwork;
    type IntoFuture = Pin<Box<dyn Future<Output = TestNetwork> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

/// The settings of Genkan, unless the plan overrides them.
fn settings_of(
    ports: Ports,
    folder: &Path,
    directory: &FakeDirectory,
    rotation_key: &K256PrivateKey,
) -> Vec<(String, String)> {
    let public = ports.public;
    let hex = |key: &K256PrivateKey| data_encoding::HEXLOWER.encode(&*key.to_bytes());
    [
        ("GENKAN_PUBLIC_URL", format!("http://localhost:{public}")),
        ("GENKAN_SERVICE_DID", format!("did:web:localhost%3A{public}")),
        ("GENKAN_DEVELOPMENT", "true".to_owned()),
        ("GENKAN_HANDLE_DOMAINS", ".genkan.test".to_owned()),
        ("GENKAN_DATA_DIR", folder.join("data").to_string_lossy().into_owned()),
        ("GENKAN_DIRECTORY_URL", directory.url()),
        ("GENKAN_DIRECTORY_FRONT_URL", format!("http://localhost:{}", ports.front)),
        ("GENKAN_ADMIN_PASSWORD", ADMIN_PASSWORD.to_owned()),
        ("GENKAN_SEALING_KEY", hex(&key("sealing", public))),
        ("GENKAN_PLC_ROTATION_KEY", hex(rotation_key)),
        // All tests come from one address. Tests of the limits enable them.
        ("GENKAN_RATE_LIMITS_ENABLED", "false".to_owned()),
        ("GENKAN_SHUTDOWN_LAG", "0s".to_owned()),
        ("GENKAN_WORKERS", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// Registers a host as an operator does: asks Genkan for the host's settings, starts the host with
/// them, and adds it.
async fn register(
    program: &Path,
    variables: &[(String, String)],
    index: usize,
    host: &FakeHost,
    signing_key: &K256PrivateKey,
    folder: &Path,
) {
    let name = format!("host-{index}");
    let key_file =
        secret_file(folder, "signing-key", &data_encoding::HEXLOWER.encode(&*signing_key.to_bytes()));
    let prepare = ["host", "prepare", "--name", &name, "--url", &host.url(), "--signing-key-file", &key_file];
    // The command prints the host's settings, and the host takes them as an operator would set
    // them.
    host.configure(&run(program, &prepare, variables).await.ok());
    let password_file = secret_file(folder, "admin-password", &host.admin_password());
    let add = ["host", "add", &host.url(), "--name", &name, "--admin-password-file", &password_file];
    run(program, &add, variables).await.ok();
}

/// Genkan refuses secrets that others can read.
pub(super) fn secret_file(folder: &Path, name: &str, secret: &str) -> String {
    let path = folder.join(name);
    let mut options = OpenOptions::new();
    // Genkan refuses secrets that others can read.
    let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(&path).unwrap();
    file.write_all(secret.as_bytes()).unwrap();
    path.to_string_lossy().into_owned()
}

/// A key of this network, the same for the same port.
fn key(of: &str, port: u16) -> K256PrivateKey {
    let bytes: [u8; 32] = Sha256::digest(format!("{of} {port}")).into();
    K256PrivateKey::from_bytes(&bytes).expect("a hash is below the order of the curve, but for 1 in 2^128")
}
