//! Genkan as it is shipped, with an account that signed up as any account does.
//!
//! Everything that is on by default is on: the PLC proxy, jobs, metrics, and rate limits. The
//! limits are so high that one client never reaches them, but each request is counted. Only the
//! request log is off, as nginx's is.
//!
//! A sign-up needs a directory and a host that know the protocol, which the stub does not.
//! So a fake host takes part in the sign-up, and the stub takes its port afterwards.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{PROXY_CORE, Running, Subject, folder, free_port, pinned, wait_for};
use crate::bench::measure;
use crate::say::Step;
use crate::{command, http, workspace};

/// A running Genkan with an account.
pub(in crate::bench) struct Account {
    pub(in crate::bench) token: String,
    pub(in crate::bench) did: String,
    pub(in crate::bench) subject: Subject,
    /// Resident memory before the first request, in bytes.
    pub(in crate::bench) at_rest: f64,
}

/// A rate limit that no client of a bench reaches.
const PLENTY: &str = "4000000000/5m";
const PLENTY_DAILY: &str = "4000000000/1d";

/// Starts Genkan, adds a host, and signs an account up. Returns the port that the host has left.
///
/// `name` is the folder of its data, which is emptied first.
pub(in crate::bench) fn sign_up(binary: &str, tool: &str, name: &str) -> Result<(Account, u16)> {
    let step = Step::start(format!("{name}: signing up"));
    let data = folder(name)?;
    let mut fakes = Command::new(tool);
    fakes.args(["fakes", PASSWORD]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut fakes = Running::start(&mut fakes)?;
    let urls = fakes.line()?;
    let (directory, host) = urls.split_once(' ').context("the fakes print where they are")?;
    let host_port: u16 =
        host.rsplit(':').next().and_then(|port| port.parse().ok()).context("a host has a port")?;
    let (port, operations, front) = (free_port()?, free_port()?, free_port()?);
    let settings = [
        ("GENKAN_PUBLIC_URL", format!("http://localhost:{port}")),
        ("GENKAN_LISTEN", format!("127.0.0.1:{port}")),
        ("GENKAN_OPS_LISTEN", format!("127.0.0.1:{operations}")),
        ("GENKAN_WORKERS", "1".to_owned()),
        ("GENKAN_DATA_DIR", data.display().to_string()),
        ("GENKAN_HANDLE_DOMAINS", ".test".to_owned()),
        ("GENKAN_DIRECTORY_URL", directory.to_owned()),
        ("GENKAN_DIRECTORY_FRONT_LISTEN", format!("127.0.0.1:{front}")),
        ("GENKAN_PRIVATE_ORIGINS", format!("{host},{directory}")),
        ("GENKAN_DEVELOPMENT", "true".to_owned()),
        ("GENKAN_REQUEST_LOG", "false".to_owned()),
        ("GENKAN_RATE_GLOBAL", PLENTY.to_owned()),
        ("GENKAN_HOST_CEILING", PLENTY.to_owned()),
        ("GENKAN_CONNECTIONS_PER_ADDRESS", "20000".to_owned()),
        ("GENKAN_RATE_CREATE_SESSION", PLENTY.to_owned()),
        ("GENKAN_RATE_CREATE_SESSION_DAILY", PLENTY_DAILY.to_owned()),
        ("GENKAN_RATE_SIGN_IN_ADDRESS", PLENTY.to_owned()),
        ("GENKAN_RATE_SIGN_IN_ACCOUNT", PLENTY.to_owned()),
        ("GENKAN_RATE_OAUTH_PAR", PLENTY.to_owned()),
        ("GENKAN_RATE_OAUTH_TOKEN", PLENTY.to_owned()),
    ];
    let settings = understood(binary, settings);
    let cli = |arguments: &[&str]| {
        let mut call = Command::new(binary);
        command::run(call.args(arguments).envs(settings.clone()).current_dir(workspace::root()))
    };
    let environment = cli(&["host", "prepare", "--name", "bench", "--url", host])?;
    let stdin = fakes.child.stdin.as_mut().context("the fakes read their standard input")?;
    writeln!(stdin, "{environment}\n.")?;
    anyhow::ensure!(fakes.line()? == "configured", "the fake host did not take its settings");
    let mut serve = pinned(PROXY_CORE, binary);
    serve.arg("serve").envs(settings.clone()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Running::start(&mut serve)?;
    wait_for(port)?;
    sleep(Duration::from_secs(2));
    let mut subject =
        Subject { name: name.to_owned(), address: format!("127.0.0.1:{port}"), fields: Vec::new(), process };
    let at_rest = measure::resident(&subject)?;
    let password_file = data.join("host-password");
    write_secret(&password_file)?;
    cli(&[
        "host",
        "add",
        host,
        "--name",
        "bench",
        "--admin-password-file",
        &password_file.display().to_string(),
    ])?;
    let body =
        serde_json::json!({ "handle": "bench.test", "email": "bench@example.com", "password": PASSWORD });
    let said = create_account(port, &body)?;
    let text = |name: &str| {
        said.get(name).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("it has {name}"))
    };
    let (token, did) = (text("accessJwt")?, text("did")?);
    drop(fakes);
    step.done(&did);
    subject.fields.push(format!("authorization: Bearer {token}"));
    Ok((Account { token, did, subject, at_rest }, host_port))
}

/// Signs up as soon as the running server places accounts. An older binary's `host add` does not
/// wait for that.
fn create_account(port: u16, body: &Value) -> Result<Value> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, said) =
            http::post_json(port, "/xrpc/com.atproto.server.createAccount", &body.to_string())?;
        match status {
            200 => return serde_json::from_str(&said).context("the answer to a sign-up is JSON"),
            503 if Instant::now() < until => sleep(Duration::from_millis(200)),
            _ => bail!("signing up was answered {status}: {said}"),
        }
    }
}

/// Leaves out the settings that a binary does not have, as an older one may not.
fn understood<const N: usize>(
    binary: &str,
    settings: [(&'static str, String); N],
) -> Vec<(&'static str, String)> {
    let known = command::run(Command::new(binary).args(["docs", "configuration"])).unwrap_or_default();
    settings.into_iter().filter(|(name, _)| known.is_empty() || known.contains(name)).collect()
}

/// Genkan refuses secrets that others can read.
fn write_secret(path: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(PASSWORD.as_bytes())?)
}

/// The password of the account and of the host, which live as long as a bench.
pub(in crate::bench) const PASSWORD: &str = "bench-bench-bench";
