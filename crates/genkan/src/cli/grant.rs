//! `genkan grant …`: what accounts have allowed apps.

use std::fmt::Write as _;

use clap::Subcommand;
use serde::Serialize;

use super::{Context, Failure};
use crate::oauth::Grant;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The newest grants first.
    List {
        /// Of this account (a DID).
        #[arg(long, value_name = "DID")]
        account: Option<String>,
        /// Of this app.
        #[arg(long, value_name = "CLIENT_ID")]
        client: Option<String>,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
    /// End a grant. Hosts serve its last access token until that expires.
    Revoke { id: String },
}

#[derive(Serialize)]
struct GrantView {
    id: String,
    account: String,
    client_id: String,
    scope: String,
    created: String,
    refreshed: String,
    ends: String,
}

impl From<Grant> for GrantView {
    fn from(grant: Grant) -> Self {
        Self {
            id: grant.id,
            account: grant.did,
            client_id: grant.client_id,
            scope: grant.scope,
            created: grant.created_at.rfc3339(),
            refreshed: grant.rotated_at.rfc3339(),
            ends: grant.idle_until.min(grant.expires_at).rfc3339(),
        }
    }
}

pub(super) fn run(command: Command, context: &Context) -> Result<(), Failure> {
    context.block_on(async {
        let oauth = context.app().await?.oauth.clone();
        match command {
            Command::List { account, client, limit } => {
                let found = oauth.list(account.as_deref(), client.as_deref(), limit).await;
                let shown: Vec<GrantView> =
                    found.map_err(anyhow::Error::from)?.into_iter().map(GrantView::from).collect();
                Ok(context.output.print(&shown, |shown| table(shown))?)
            }
            Command::Revoke { id } => {
                if !oauth.end_by_operator(&id).await.map_err(anyhow::Error::from)? {
                    let hint = "there is no such grant, or it is over; see genkan grant list";
                    return Err(anyhow::anyhow!("{id}: {hint}").into());
                }
                let done = serde_json::json!({ "id": id, "ended": true });
                Ok(context.output.print(&done, |_| format!("{id} has ended"))?)
            }
        }
    })
}

fn table(shown: &[GrantView]) -> String {
    if shown.is_empty() {
        return "No grants.".to_owned();
    }
    let mut out = format!("{:<24}  {:<24}  {:<32}  CLIENT\n", "ID", "CREATED", "ACCOUNT");
    for one in shown {
        let _ = writeln!(out, "{:<24}  {}  {:<32}  {}", one.id, one.created, one.account, one.client_id);
    }
    out
}
