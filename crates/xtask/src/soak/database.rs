//! PostgreSQL as a careful operator runs it: two nodes under Patroni with a synchronous standby, and
//! `HAProxy` in front, which follows the leader.
//!
//! sqlx connects to one address, so a URL with several hosts is no alternative to the proxy.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use serde_json::Value;

use crate::network::ports;
use crate::provision::{cluster, postgres};
use crate::say::Step;
use crate::{guard, http, workspace};

/// A running cluster with one role (`genkan`, no password) and one empty database.
#[derive(Debug)]
pub(super) struct Database {
    programs: cluster::Programs,
    user: Option<User>,
    folder: PathBuf,
    nodes: Vec<Node>,
    /// etcd, then the proxy.
    others: Vec<Child>,
    port: u16,
}

/// A PostgreSQL server and the Patroni that runs it.
#[derive(Debug)]
struct Node {
    name: String,
    api_port: u16,
    data: PathBuf,
    patroni: Option<Child>,
}

impl Database {
    /// Starts the cluster and returns when it has a leader and a synchronous standby.
    pub(super) fn start(programs: &cluster::Programs) -> Result<Self> {
        let server = postgres::programs()?;
        let step = Step::start("PostgreSQL: etcd, two nodes under Patroni, HAProxy");
        let user = postgres::unprivileged_user()?;
        let folder = std::env::temp_dir().join(format!("genkan-cluster-{}", workspace::random_hex(6)?));
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        if let Some(user) = &user {
            chown(&folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        let (etcd_port, peer_port) = (ports::free()?, ports::free()?);
        let mut database = Self {
            programs: programs.clone(),
            user,
            folder,
            nodes: Vec::new(),
            others: Vec::new(),
            port: ports::free()?,
        };
        let etcd = database.spawn_etcd(etcd_port, peer_port)?;
        database.others.push(etcd);
        let mut listeners = Vec::new();
        for name in ["north", "south"] {
            let (api_port, port) = (ports::free()?, ports::free()?);
            listeners.push((name, api_port, port));
            let data = database.folder.join(name);
            let text = node_settings(name, api_port, port, etcd_port, &server, &data);
            fs::write(database.settings_of(name), text)?;
            let patroni = Some(database.spawn_patroni(name)?);
            database.nodes.push(Node { name: name.to_owned(), api_port, data, patroni });
        }
        fs::write(database.folder.join("haproxy.cfg"), proxy_settings(database.port, &listeners))?;
        let proxy = database.spawn_proxy()?;
        database.others.push(proxy);
        database.wait_until_safe(Duration::from_mins(1))?;
        step.done(&format!("synchronous standby, logs in {}", database.folder.display()));
        Ok(database)
    }

    /// The URL at which the leader is found, whichever node that is.
    pub(super) fn url(&self) -> String {
        format!("postgres://genkan@127.0.0.1:{}/postgres", self.port)
    }

    /// Kills the leading server and its Patroni with SIGKILL, as the loss of a machine would. Returns
    /// the node's name.
    pub(super) fn kill_leader(&mut self) -> Result<String> {
        let name = self.leader().context("there is a leader to kill")?;
        let node = self.nodes.iter_mut().find(|node| node.name == name).context("a leader is a node")?;
        node.kill();
        Ok(name)
    }

    /// Starts a node that was killed, which joins as the standby.
    pub(super) fn restart(&mut self, name: &str) -> Result<()> {
        let patroni = self.spawn_patroni(name)?;
        let node = self.nodes.iter_mut().find(|node| node.name == name).context("the node exists")?;
        node.patroni = Some(patroni);
        Ok(())
    }

    /// Waits until there are a leader and a synchronous standby.
    pub(super) fn wait_until_safe(&self, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        while !self.is_safe() {
            if Instant::now() > until {
                bail!(
                    "no leader with a synchronous standby after {within:?}: {}",
                    self.folder.join("north.log").display()
                );
            }
            sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Waits until another node than `before` leads.
    pub(super) fn wait_for_new_leader(&self, before: &str, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        while self.leader().is_none_or(|leader| leader == before) {
            if Instant::now() > until {
                bail!("no other node than {before} leads after {within:?}");
            }
            sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Returns the node that says that it leads.
    pub(super) fn leader(&self) -> Option<String> {
        let leads =
            |node: &&Node| http::get(node.api_port, "/primary").is_ok_and(|(status, _)| status == 200);
        self.nodes.iter().find(leads).map(|node| node.name.clone())
    }

    fn is_safe(&self) -> bool {
        let members = self.nodes.iter().find_map(|node| {
            let (status, text) = http::get(node.api_port, "/cluster").ok()?;
            (status == 200).then(|| serde_json::from_str::<Value>(&text).ok())?
        });
        let has = |role: &str| {
            members.as_ref().and_then(|said| said.get("members")?.as_array()).is_some_and(|members| {
                members.iter().any(|member| {
                    member.get("role").is_some_and(|found| found == role)
                        && member.get("state").is_some_and(|state| state == "running" || state == "streaming")
                })
            })
        };
        has("leader") && has("sync_standby")
    }

    fn settings_of(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.yml"))
    }

    fn spawn_etcd(&self, port: u16, peer_port: u16) -> Result<Child> {
        let mut etcd = postgres::as_user(&self.programs.etcd(), self.user.as_ref(), &self.folder);
        let (here, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
        etcd.args(["--data-dir", "etcd", "--listen-client-urls", &here, "--advertise-client-urls", &here]);
        etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        etcd.args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"]);
        self.spawn(&mut etcd, "etcd")
    }

    fn spawn_patroni(&self, name: &str) -> Result<Child> {
        let (python, script) = self.programs.patroni();
        let mut patroni = postgres::as_user(&python, self.user.as_ref(), &self.folder);
        patroni.arg(script).arg(self.settings_of(name)).envs(self.programs.environment());
        self.spawn(&mut patroni, name)
    }

    fn spawn_proxy(&self) -> Result<Child> {
        let mut proxy = postgres::as_user(&self.programs.haproxy(), self.user.as_ref(), &self.folder);
        proxy.args(["-db", "-f"]).arg(self.folder.join("haproxy.cfg")).envs(self.programs.environment());
        self.spawn(&mut proxy, "haproxy")
    }

    fn spawn(&self, command: &mut Command, name: &str) -> Result<Child> {
        let file = self.folder.join(format!("{name}.log"));
        let log = fs::OpenOptions::new().create(true).append(true).open(file)?;
        // A process group of its own keeps Ctrl-C away. The guard ends it if this process dies.
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        guard::watch(child.id())?;
        Ok(child)
    }
}

impl Node {
    fn kill(&mut self) {
        // Patroni first, which would start the server again.
        if let Some(mut patroni) = self.patroni.take() {
            let _ = patroni.kill();
            reap(&mut patroni);
        }
        signal_server(&self.data, Signal::SIGKILL);
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The servers end at once, since their data is thrown away. What fails here only leaves files
        // in the temporary folder.
        for node in &mut self.nodes {
            if let Some(mut patroni) = node.patroni.take() {
                let _ = patroni.kill();
                reap(&mut patroni);
            }
            signal_server(&node.data, Signal::SIGQUIT);
        }
        for child in &mut self.others {
            let _ = child.kill();
            reap(child);
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn reap(child: &mut Child) {
    // Only after the wait is the id free for another process, so the guard forgets it last.
    let _ = child.wait();
    guard::forget(child.id());
}

/// Signals the server that runs on a data folder. Patroni starts it as a process of its own.
fn signal_server(data: &Path, signal: Signal) {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    if let Some(pid) = text.lines().next().and_then(|line| line.trim().parse().ok()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Short times, so that a failover takes seconds. The standby is synchronous, so what was
/// acknowledged is on both nodes.
fn node_settings(name: &str, api: u16, port: u16, etcd: u16, server: &Path, data: &Path) -> String {
    let (server, data) = (server.display(), data.display());
    format!(
        "scope: genkan
name: {name}
restapi: {{listen: '127.0.0.1:{api}', connect_address: '127.0.0.1:{api}'}}
etcd3: {{hosts: ['127.0.0.1:{etcd}']}}
bootstrap:
  dcs:
    ttl: 15
    loop_wait: 2
    retry_timeout: 5
    maximum_lag_on_failover: 1048576
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      parameters: {{max_connections: 300, wal_log_hints: 'on'}}
  initdb: [{{encoding: UTF8}}, {{locale: C}}, {{auth: trust}}]
  pg_hba:
    - host all all 127.0.0.1/32 trust
    - host replication all 127.0.0.1/32 trust
    - local all all trust
postgresql:
  listen: '127.0.0.1:{port}'
  connect_address: '127.0.0.1:{port}'
  data_dir: '{data}'
  bin_dir: '{server}'
  authentication:
    superuser: {{username: genkan}}
    replication: {{username: genkan}}
    rewind: {{username: genkan}}
  parameters: {{unix_socket_directories: ''}}
"
    )
}

/// Checks twice a second which node leads, by Patroni's own word. Connections to a node that leads no
/// longer are ended.
fn proxy_settings(port: u16, nodes: &[(&str, u16, u16)]) -> String {
    let mut text = format!(
        "global
    maxconn 2000
defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
listen leader
    bind 127.0.0.1:{port}
    option httpchk
    http-check send meth GET uri /primary
    http-check expect status 200
    default-server inter 500ms fastinter 250ms fall 2 rise 1 on-marked-down shutdown-sessions
"
    );
    for (name, api, port) in nodes {
        // Writing to a string never fails.
        let _ = writeln!(text, "    server {name} 127.0.0.1:{port} check port {api}");
    }
    text
}
