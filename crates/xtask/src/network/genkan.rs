//! Genkan in the network: its settings, its process and its command line.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::hosts::Host;
use super::member::{Ready, Spec};
use super::state::State;
use crate::provision::cluster::Programs;
use crate::say::Step;
use crate::{command, workspace};

/// The options of a Genkan in the network.
#[derive(Debug, Clone)]
pub struct GenkanOptions {
    pub binary: PathBuf,
    /// A PostgreSQL database. Without one, SQLite in the data directory.
    pub database_url: Option<String>,
    /// Further settings, which replace those of the network.
    pub settings: Vec<(String, String)>,
    /// Several processes behind a load balancer. Without it, one process.
    pub replicas: Option<Replicas>,
    /// Further origins on private addresses to which Genkan may connect.
    pub private_origins: Vec<String>,
}

impl GenkanOptions {
    /// One process on SQLite, with the settings of the network.
    pub fn new(binary: PathBuf) -> Self {
        Self { binary, database_url: None, settings: Vec::new(), replicas: None, private_origins: Vec::new() }
    }
}

/// Several Genkans on one PostgreSQL database.
#[derive(Debug, Clone)]
pub struct Replicas {
    pub count: usize,
    pub balancer: Programs,
}

/// A Genkan with its ports and settings, running or not.
#[derive(Debug, Clone)]
pub struct Genkan {
    pub binary: PathBuf,
    pub url: String,
    pub did: String,
    pub operations_url: String,
    pub directory_front_url: String,
    pub admin_password: String,
    pub data: PathBuf,
    pub settings: Vec<(String, String)>,
    pub operations_port: u16,
    pub(super) listen_port: u16,
    pub(super) front_port: u16,
    name: &'static str,
}

/// The part that a Genkan plays in the network.
#[derive(Debug, Clone, Copy)]
pub struct Role<'a> {
    /// The name of the process.
    pub name: &'static str,
    /// The public URL, if Genkan is behind a TLS proxy.
    pub public_url: Option<&'a str>,
    pub handle_domain: &'a str,
}

/// The members of the network that a Genkan uses.
#[derive(Debug)]
pub struct Services<'a> {
    pub directory_url: &'a str,
    pub name_server: &'a str,
    pub private_origins: &'a [String],
    pub mail_url: &'a str,
    /// The certificate authority of this network's TLS servers.
    pub authority_file: &'a str,
}

impl Genkan {
    pub fn plan(
        state: &mut State,
        data: &Path,
        role: Role<'_>,
        options: GenkanOptions,
        services: &Services<'_>,
    ) -> Result<Self> {
        let name = role.name;
        let port = state.port(name)?;
        let operations_port = state.port(&format!("{name} operations"))?;
        let front_port = state.port(&format!("{name} directory front"))?;
        let admin_password = state.secret(&format!("{name} admin password"))?;
        let url = role.public_url.map_or_else(|| format!("http://localhost:{port}"), str::to_owned);
        let directory_front_url = format!("http://localhost:{front_port}");
        let data = data.join(name);
        let mut settings: Vec<(String, String)> = [
            ("GENKAN_PUBLIC_URL", url.clone()),
            ("GENKAN_LISTEN", format!("127.0.0.1:{port}")),
            ("GENKAN_OPS_LISTEN", format!("127.0.0.1:{operations_port}")),
            ("GENKAN_DATA_DIR", data.to_string_lossy().into_owned()),
            ("GENKAN_HANDLE_DOMAINS", role.handle_domain.to_owned()),
            ("GENKAN_DIRECTORY_URL", services.directory_url.to_owned()),
            ("GENKAN_DIRECTORY_FRONT_LISTEN", format!("127.0.0.1:{front_port}")),
            ("GENKAN_DIRECTORY_FRONT_URL", directory_front_url.clone()),
            ("GENKAN_PRIVATE_ORIGINS", services.private_origins.join(",")),
            ("GENKAN_EXTRA_CA_FILE", services.authority_file.to_owned()),
            ("GENKAN_ADMIN_PASSWORD", admin_password.clone()),
            ("GENKAN_DNS_SERVERS", services.name_server.to_owned()),
            ("GENKAN_INVITE_REQUIRED", "false".to_owned()),
            ("GENKAN_MAIL_SMTP_URL", services.mail_url.to_owned()),
            ("GENKAN_MAIL_FROM", "post@genkan.test".to_owned()),
            ("GENKAN_DEVELOPMENT", "true".to_owned()),
            // No load balancer has to notice that it stops, and no client waits for a last answer.
            ("GENKAN_SHUTDOWN_LAG", "0s".to_owned()),
            ("GENKAN_SHUTDOWN_GRACE", "3s".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        // Only behind the TLS proxy: without it, any client could claim another address.
        let proxies = role.public_url.map(|_| ("GENKAN_TRUSTED_PROXIES".to_owned(), "127.0.0.1".to_owned()));
        settings.extend(proxies);
        settings.extend(options.database_url.map(|url| ("GENKAN_DATABASE_URL".to_owned(), url)));
        // Later settings replace earlier ones of the same name, so the options come last.
        settings.extend(options.settings);
        let authority = url.split_once("://").map_or(&*url, |(_, authority)| authority);
        // A port in a `did:web` is percent-encoded.
        let did = format!("did:web:{}", authority.replace(':', "%3A"));
        let binary = options.binary;
        Ok(Self {
            binary,
            url,
            did,
            operations_url: format!("http://localhost:{operations_port}"),
            directory_front_url,
            admin_password,
            data,
            settings,
            operations_port,
            listen_port: port,
            front_port,
            name,
        })
    }

    /// The name of the process.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The port of the process itself, which differs from that of its URL behind a balancer.
    pub fn listen_port(&self) -> u16 {
        self.listen_port
    }

    /// Returns how `genkan serve` is started.
    pub fn spec(&self, logs: &Path) -> Spec {
        Spec {
            program: self.binary.clone(),
            arguments: vec!["serve".to_owned()],
            environment: self.settings.clone(),
            configuration: None,
            ready: Ready::Http { port: self.operations_port, path: "/readyz".to_owned() },
            log: logs.join(format!("{}.log", self.name)),
        }
    }

    /// Runs Genkan's command line once, on the same data, and returns its output.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let mut call = Command::new(&self.binary);
        call.args(arguments).envs(self.settings.iter().cloned()).current_dir(workspace::root());
        command::run(&mut call)
    }

    /// Returns the `PDS_*` settings that a host needs. Prepares the host if Genkan does not know it
    /// yet, which makes its signing key.
    pub fn settings_for(&self, host: &Host) -> Result<Vec<(String, String)>> {
        // `env` fails for a host that Genkan does not know yet.
        let printed = self.cli(&["host", "env", &host.name, "--json"]).or_else(|_| {
            self.cli(&["host", "prepare", "--name", &host.name, "--url", &host.url, "--json"])
        })?;
        let printed: Value = serde_json::from_str(&printed).context("reading the settings for a host")?;
        let settings = printed.get("settings").or_else(|| printed.get("env")).unwrap_or(&printed);
        let settings = settings.as_object().context("the settings for a host are an object")?;
        let wanted = settings.iter().filter(|(name, _)| name.starts_with("PDS_"));
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Ok(wanted.map(|(name, value)| (name.clone(), text(value))).collect())
    }

    /// Returns the names of the hosts that were added. A host that is only prepared is not among
    /// them.
    pub fn host_names(&self) -> Result<Vec<String>> {
        let listed: Value = serde_json::from_str(&self.cli(&["host", "list", "--json"])?)?;
        let hosts = listed.get("hosts").unwrap_or(&listed).as_array().cloned().unwrap_or_default();
        let added = hosts.iter().filter(|host| host.get("state").and_then(Value::as_str) != Some("prepared"));
        Ok(added.filter_map(|host| host.get("name")?.as_str().map(str::to_owned)).collect())
    }

    /// Adds a host that is running. Returns when the running Genkan places accounts there.
    pub fn add(&self, host: &Host) -> Result<()> {
        let password_file = self.data.join(format!("{}.admin-password", host.name));
        // Genkan refuses secrets that others can read.
        let mut options = OpenOptions::new();
        let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(&password_file)?;
        file.write_all(host.admin_password.as_bytes())?;
        let password = password_file.to_string_lossy();
        let added =
            self.cli(&["host", "add", &host.url, "--name", &host.name, "--admin-password-file", &password]);
        // Removed before the result is looked at, so that a failure leaves no secret behind.
        std::fs::remove_file(&password_file)?;
        added.map(drop)
    }
}

/// Compiles Genkan alone and returns the binary, wherever cargo is told to put it.
pub fn build() -> Result<PathBuf> {
    build_with(&["--package", "genkan", "--bin", "genkan"], "genkan")
}

/// Compiles Genkan together with all tests and returns the binary. Its dependencies then have the
/// features that they have in tests, and nothing is compiled twice.
pub fn build_beside_tests() -> Result<PathBuf> {
    build_with(&["--workspace", "--all-targets"], "genkan")
}

/// Builds the program that replays the fuzz corpus, with everything that tests need as well: built
/// alone it would have other features, and Genkan would be compiled once more.
pub fn build_fuzz_replay_beside_tests() -> Result<PathBuf> {
    build_with(&["--workspace", "--all-targets"], "genkan-fuzz-targets")
}

fn build_with(what: &[&str], binary: &str) -> Result<PathBuf> {
    let step = Step::start("compiling Genkan");
    let mut compile = workspace::cargo();
    compile.args(["build", "--quiet"]).args(what);
    compile.args(["--message-format=json-render-diagnostics"]).stdin(Stdio::null()).stderr(Stdio::inherit());
    let built = compile.output().context("starting cargo")?;
    // Cargo's own messages name the binary's path, which depends on the target directory and
    // profile.
    anyhow::ensure!(built.status.success(), "Genkan does not compile");
    let said = String::from_utf8_lossy(&built.stdout);
    let messages = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_wanted = |message: &Value| {
        message.pointer("/target/name").is_some_and(|name| name == binary)
            && message.pointer("/target/kind/0").is_some_and(|kind| kind == "bin")
            // The test build of the same program has the same name and kind.
            && message.pointer("/profile/test").is_some_and(|test| test == false)
    };
    let binary = messages
        .into_iter()
        .find(is_wanted)
        .and_then(|message| message.get("executable")?.as_str().map(PathBuf::from));
    let binary = binary.context("cargo names the binary it made")?;
    step.done("");
    Ok(binary)
}
