//! `genkan key …`: the public halves of the keys. Private halves are never printed.

use std::fmt::Write as _;

use clap::Subcommand;
use serde::Serialize;

use super::{Context, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The service DID, the PLC rotation key and the key of each host.
    Show,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    service_did: String,
    rotation_key: String,
    sealing_key_id: String,
    hosts: Vec<HostKeyShown>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostKeyShown {
    host: String,
    signing_key: String,
    public_key_hex: String,
}

pub(super) fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    context.block_on(async {
        let app = context.app().await?;
        let Command::Show = command;
        let hosts = app.ring.current_host_keys().into_iter().map(|key| HostKeyShown {
            host: key.host.clone(),
            signing_key: key.public.to_did_key(),
            public_key_hex: key.public.to_sec1_uncompressed_hex(),
        });
        let shown = Shown {
            service_did: app.config.service.did.to_string(),
            rotation_key: app.ring.rotation().public().to_did_key(),
            sealing_key_id: app.ring.sealer().key_id().to_owned(),
            hosts: hosts.collect(),
        };
        Ok(context.output.print(&shown, text)?)
    })
}

fn text(shown: &Shown) -> String {
    let mut out = format!(
        "service DID        {}\nPLC rotation key   {}\nsealing key        {} (its id; the key itself is never shown)\n",
        shown.service_did, shown.rotation_key, shown.sealing_key_id
    );
    for host in &shown.hosts {
        let _ = writeln!(out, "signs for {:<8} {}", host.host, host.signing_key);
    }
    out
}
