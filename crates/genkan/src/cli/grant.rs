//! `genkan grant …`: what accounts have allowed apps.

use std::fmt::Write as _;

use clap::Subcommand;
use genkan_protocol::syntax::Did;
use serde::Serialize;

use super::{Context, Failure};
use crate::oauth::{Grant, GrantsOf};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List grants, newest first.
    List {
        /// List only grants of the account with this DID.
        #[arg(long, value_name = "DID")]
        account: Option<Did>,
        /// List only grants to the app with this client id.
        #[arg(long, value_name = "CLIENT_ID")]
        client: Option<String>,
        /// How many grants to list at most, 1 to 10,000.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
    /// Revoke a grant. The app gets no new tokens; hosts accept its last access token until that
    /// expires.
    Revoke {
        /// The grant's id, from `genkan grant list`.
        id: String,
    },
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
            id: grant.id.to_string(),
            account: grant.did.to_string(),
            client_id: grant.client_id,
            scope: grant.scope.to_string(),
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
                let whose = match (&account, &client) {
                    (None, None) => GrantsOf::Everybody,
                    (Some(account), None) => GrantsOf::Account(account),
                    (None, Some(client)) => GrantsOf::Client(client),
                    (Some(account), Some(client)) => GrantsOf::Both(account, client),
                };
                let found = oauth.list(whose, limit).await;
                let shown: Vec<GrantView> =
                    found.map_err(anyhow::Error::from)?.into_iter().map(GrantView::from).collect();
                Ok(context.output.print(&shown, |shown| table(shown))?)
            }
            Command::Revoke { id } => {
                if !oauth.end_by_operator(&id.as_str().into()).await.map_err(anyhow::Error::from)? {
                    let hint = "no live grant has this id; `genkan grant list` shows them";
                    return Err(anyhow::anyhow!("{id}: {hint}").into());
                }
                let done = serde_json::json!({ "id": id, "ended": true });
                Ok(context.output.print(&done, |_| format!("The grant {id} is revoked."))?)
            }
        }
    })
}

fn table(shown: &[GrantView]) -> String {
    if shown.is_empty() {
        return "There are no such grants.".to_owned();
    }
    let mut out = format!("{:<24}  {:<24}  {:<32}  CLIENT\n", "ID", "CREATED", "ACCOUNT");
    for one in shown {
        let _ = writeln!(out, "{:<24}  {}  {:<32}  {}", one.id, one.created, one.account, one.client_id);
    }
    out
}
