//! `genkan client …`: OAuth apps, and how far the operator trusts each.

use std::fmt::Write as _;

use clap::Subcommand;
use serde::Serialize;

use super::{Context, Failure};
use crate::oauth::{ClientTrust, StoredClient};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the apps that have asked for a sign-in.
    List {
        /// List only apps with this standing. Apps that were neither trusted nor blocked are known.
        #[arg(long, value_name = "STANDING", value_parser = ["known", "trusted", "blocked"])]
        standing: Option<String>,
    },
    /// Show an app with its standing and the client metadata that it publishes.
    Show {
        /// The app's client id, a URL.
        client_id: String,
    },
    /// Trust an app: people see its name, and are not asked again for what they have approved
    /// before. Existing grants stay.
    Trust {
        /// The app's client id, a URL.
        client_id: String,
    },
    /// Block an app: end all its grants now, and refuse its requests from now on.
    Block {
        /// The app's client id, a URL.
        client_id: String,
    },
    /// Neither trust nor block an app. Grants that a block ended do not come back.
    Reset {
        /// The app's client id, a URL.
        client_id: String,
    },
    /// Allow an app plain Bearer tokens, for back ends that cannot make DPoP proofs. Anyone who
    /// obtains such a token can use it.
    Bearer {
        /// The app's client id, a URL.
        client_id: String,
        /// Withdraw the permission. New tokens are bound to the app's key again.
        #[arg(long)]
        off: bool,
    },
}

#[derive(Serialize)]
struct ClientView {
    client_id: String,
    standing: &'static str,
    /// `bearer` if the operator registered the app for plain Bearer tokens, otherwise `dpop`.
    tokens: &'static str,
    fetched: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<serde_json::Value>,
}

impl From<StoredClient> for ClientView {
    fn from(row: StoredClient) -> Self {
        Self {
            client_id: row.client_id,
            standing: row.trust.as_str(),
            tokens: if row.bearer { "bearer" } else { "dpop" },
            fetched: row.document.as_ref().map(|(_, at)| at.rfc3339()),
            document: None,
        }
    }
}

pub(super) fn run(command: Command, context: &Context) -> Result<(), Failure> {
    context.block_on(async {
        let oauth = context.app().await?.oauth.clone();
        match command {
            Command::List { standing } => {
                let standing = standing.as_deref().and_then(ClientTrust::parse);
                let rows = oauth.clients(standing).await.map_err(anyhow::Error::from)?;
                let shown: Vec<ClientView> = rows.into_iter().map(ClientView::from).collect();
                Ok(context.output.print(&shown, |shown| table(shown))?)
            }
            Command::Show { client_id } => {
                let row = oauth.client(&client_id).await.map_err(anyhow::Error::from)?;
                let row = row.ok_or_else(|| anyhow::anyhow!("{client_id} has never asked for a sign-in; `genkan client list` shows the apps that have"))?;
                let document =
                    row.document.as_ref().and_then(|(document, _)| serde_json::from_str(document).ok());
                let shown = ClientView { document, ..row.into() };
                let text = |shown: &ClientView| serde_json::to_string_pretty(shown).unwrap_or_default();
                Ok(context.output.print(&shown, text)?)
            }
            Command::Trust { client_id } => decide(&oauth, context, client_id, ClientTrust::Trusted).await,
            Command::Block { client_id } => decide(&oauth, context, client_id, ClientTrust::Blocked).await,
            Command::Reset { client_id } => decide(&oauth, context, client_id, ClientTrust::Known).await,
            Command::Bearer { client_id, off } => {
                oauth.set_bearer(&client_id, !off).await.map_err(anyhow::Error::from)?;
                let tokens = if off { "dpop" } else { "bearer" };
                let done = serde_json::json!({ "client_id": client_id, "tokens": tokens });
                let text = if off {
                    format!("{client_id} gets tokens bound to its key again")
                } else {
                    format!("{client_id} may have plain Bearer tokens; anyone who obtains one can use it until it expires")
                };
                Ok(context.output.print(&done, |_| text)?)
            }
        }
    })
}

async fn decide(
    oauth: &crate::oauth::OAuth,
    context: &Context,
    client_id: String,
    standing: ClientTrust,
) -> Result<(), Failure> {
    // A block revokes grants in the same call, so that no app keeps access between the two.
    let ended = oauth.set_trust(&client_id, standing).await.map_err(anyhow::Error::from)?;
    let done =
        serde_json::json!({ "client_id": client_id, "standing": standing.as_str(), "grants_ended": ended });
    let text = match standing {
        ClientTrust::Blocked => format!("{client_id} is blocked; {ended} of its grants were revoked"),
        ClientTrust::Trusted => format!("{client_id} is trusted"),
        ClientTrust::Known => format!("{client_id} is neither trusted nor blocked"),
    };
    Ok(context.output.print(&done, |_| text)?)
}

fn table(shown: &[ClientView]) -> String {
    if shown.is_empty() {
        return "No app has asked for a sign-in yet.".to_owned();
    }
    let mut out = format!("{:<8}  {:<6}  {:<24}  CLIENT\n", "STANDING", "TOKENS", "READ");
    for one in shown {
        let fetched = one.fetched.as_deref().unwrap_or("never");
        let _ = writeln!(out, "{:<8}  {:<6}  {fetched:<24}  {}", one.standing, one.tokens, one.client_id);
    }
    out
}
