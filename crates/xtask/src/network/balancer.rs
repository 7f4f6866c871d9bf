//! A load balancer in front of several Genkans: `HAProxy`, set up as `docs/operating.md` says.
//!
//! It takes a replica out as soon as `/readyz` is not 200. It repeats a request at another replica
//! only if no connection could be made, so no request reaches two replicas.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::genkan::Genkan;
use super::member::{Ready, Spec};
use crate::provision::cluster::Programs;

/// The address from which replicas see the balancer, and the only one whose `X-Forwarded-For` they
/// trust.
pub(super) const ADDRESS: &str = "127.0.0.9";

/// The ports of a balancer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    /// For clients and hosts.
    pub(super) service: u16,
    /// The directory front, for hosts.
    pub(super) front: u16,
    /// Answers 200 when the balancer runs.
    pub(super) monitor: u16,
}

/// Writes the balancer's settings and returns how it is started.
pub(super) fn spec(
    programs: &Programs,
    ports: Ports,
    replicas: &[Genkan],
    data: &Path,
    logs: &Path,
) -> Result<Spec> {
    let file = data.join("balancer.cfg");
    fs::write(&file, settings(ports, replicas))?;
    Ok(Spec {
        program: programs.haproxy(),
        arguments: vec!["-db".to_owned(), "-f".to_owned(), file.to_string_lossy().into_owned()],
        environment: programs.environment(),
        configuration: None,
        ready: Ready::Http { port: ports.monitor, path: "/".to_owned() },
        log: logs.join("balancer.log"),
    })
}

fn settings(ports: Ports, replicas: &[Genkan]) -> String {
    let Ports { service, front, monitor } = ports;
    let mut text = format!(
        "global
    maxconn 8000
defaults
    mode http
    timeout connect 2s
    timeout client 120s
    timeout server 120s
    timeout http-request 30s
    option forwardfor
    option redispatch 1
    retries 3
    retry-on conn-failure
frontend monitor
    bind 127.0.0.1:{monitor}
    monitor-uri /
"
    );
    for pool in ["genkan", "directory"] {
        let is_front = pool == "directory";
        let port = if is_front { front } else { service };
        // Writing to a string never fails.
        let _ = write!(
            text,
            "listen {pool}
    bind 127.0.0.1:{port}
    balance roundrobin
    option httpchk
    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host localhost
    http-check expect status 200
    default-server inter 500ms fastinter 100ms downinter 250ms fall 1 rise 1 source {ADDRESS}
"
        );
        for Genkan { listen_port, front_port, operations_port, .. } in replicas {
            let port = if is_front { front_port } else { listen_port };
            let _ = writeln!(text, "    server at-{port} 127.0.0.1:{port} check port {operations_port}");
        }
    }
    text
}
