//! `genkan key …`: public keys and rotations. Private keys are never printed.

use std::fmt::Write as _;

use clap::Subcommand;
use serde::Serialize;

use super::{Context, Failure};
use crate::keys::{Ring, WebKey, WebPurpose};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the service DID and every public key: PLC rotation key, hosts' signing keys, OAuth
    /// keys.
    Show,
    /// Create the next key with which Genkan authenticates as an OAuth client at external servers.
    ///
    /// The key is published now and used for new sign-ins after 15 minutes. Existing links keep the
    /// key that they began with.
    RotateClient,
    /// Create the next key that signs access tokens for Genkan itself.
    ///
    /// The key is published now and signs after 15 minutes. The previous key is retired when its
    /// last token has expired.
    RotateTokens,
    /// Seal every secret in the database with a new key while Genkan runs.
    ///
    /// With the key in the data directory's sealing.key, this command does everything: it creates a
    /// new key, waits until running servers have read it, seals all secrets with it, and keeps the
    /// previous key beside it for backups of its time. With several machines, or with the key in
    /// `GENKAN_SEALING_KEY`, first give every Genkan the new key and the previous one as
    /// `GENKAN_SEALING_KEY_OLDER`; then use --only-reseal.
    RotateSealing {
        /// Create no key; seal all secrets with the current one. Also continues an interrupted
        /// rotation.
        #[arg(long)]
        only_reseal: bool,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeysView {
    service_did: String,
    rotation_key: String,
    sealing_key_id: String,
    hosts: Vec<HostKeyView>,
    oauth: Vec<WebKeyView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WebKeyView {
    /// `tokens` or `client`.
    purpose: &'static str,
    kid: String,
    public_key: String,
    created: String,
    /// When the key begins to sign.
    signs: String,
}

impl WebKeyView {
    fn of(key: &WebKey) -> Self {
        Self {
            purpose: key.purpose.as_str(),
            kid: key.id.clone(),
            public_key: key.public.to_did_key(),
            created: key.created_at.rfc3339(),
            signs: key.usable_from.rfc3339(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostKeyView {
    host: String,
    signing_key: String,
    public_key_hex: String,
}

pub(super) fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    context.block_on(async {
        let app = context.app().await?;
        match command {
            Command::Show => {}
            Command::RotateClient => return rotate(&app.ring, WebPurpose::Client, context).await,
            Command::RotateSealing { only_reseal } => {
                return super::sealing::rotate(&app, *only_reseal, context).await;
            }
            Command::RotateTokens => return rotate(&app.ring, WebPurpose::Tokens, context).await,
        }
        let hosts = app.ring.current_host_keys().into_iter().map(|key| HostKeyView {
            host: key.host.clone(),
            signing_key: key.public.to_did_key(),
            public_key_hex: key.public.to_sec1_uncompressed_hex(),
        });
        let shown = KeysView {
            service_did: app.config.service.did.to_string(),
            rotation_key: app.ring.rotation().public().to_did_key(),
            sealing_key_id: app.ring.sealer().key_id().to_string(),
            hosts: hosts.collect(),
            oauth: [WebPurpose::Tokens, WebPurpose::Client]
                .into_iter()
                .flat_map(|purpose| app.ring.web_keys(purpose))
                .map(|key| WebKeyView::of(&key))
                .collect(),
        };
        Ok(context.output.print(&shown, text)?)
    })
}

async fn rotate(ring: &Ring, purpose: WebPurpose, context: &Context) -> Result<(), Failure> {
    let key = ring.rotate_web_key(purpose).await.map_err(anyhow::Error::from)?;
    let text = |shown: &WebKeyView| {
        format!("The key {} is published now and signs from {}.", shown.kid, shown.signs)
    };
    Ok(context.output.print(&WebKeyView::of(&key), text)?)
}

fn text(shown: &KeysView) -> String {
    let mut out = format!(
        "service DID        {}\nPLC rotation key   {}\nsealing key        {} (its id; the key itself is never shown)\n",
        shown.service_did, shown.rotation_key, shown.sealing_key_id
    );
    for host in &shown.hosts {
        let _ = writeln!(out, "signs for {:<8} {}", host.host, host.signing_key);
    }
    for key in &shown.oauth {
        let _ = writeln!(
            out,
            "OAuth {:<12} {} (kid {}, signs from {})",
            key.purpose, key.public_key, key.kid, key.signs
        );
    }
    out
}
