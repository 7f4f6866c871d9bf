//! `genkan client …`: apps, and what the operator thinks of them.

use std::fmt::Write as _;

use clap::Subcommand;
use serde::Serialize;

use super::{Context, Failure};
use crate::oauth::{ClientRow, ClientTrust};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The apps that have asked for a sign-in.
    List {
        /// Only the trusted, or only the blocked ones.
        #[arg(long, value_parser = ["known", "trusted", "blocked"])]
        standing: Option<String>,
    },
    /// What is known of an app, its own document included.
    Show { client_id: String },
    /// Vouch for an app: people see its name and logo, and need not agree again to what they agreed to before.
    Trust { client_id: String },
    /// Give an app nothing more, and end all that it has.
    Block { client_id: String },
    /// Treat an app as any other again.
    Reset { client_id: String },
    /// Let an app have plain Bearer tokens, bound to no key: whoever gets hold of one may use it. For back ends that
    /// cannot make DPoP proofs.
    Bearer {
        client_id: String,
        /// Bind what it gets from now on to its key again.
        #[arg(long)]
        off: bool,
    },
}

#[derive(Serialize)]
struct ClientView {
    client_id: String,
    standing: &'static str,
    /// `bearer` if the operator registered it for plain Bearer tokens, else `dpop`.
    tokens: &'static str,
    fetched: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<serde_json::Value>,
}

impl From<ClientRow> for ClientView {
    fn from(row: ClientRow) -> Self {
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
                let row = row.ok_or_else(|| anyhow::anyhow!("{client_id} has never asked for a sign-in"))?;
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
                    format!("{client_id} may have plain Bearer tokens; anybody who gets hold of one may use it until it ends")
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
    let ended = oauth.set_trust(&client_id, standing).await.map_err(anyhow::Error::from)?;
    let done =
        serde_json::json!({ "client_id": client_id, "standing": standing.as_str(), "grants_ended": ended });
    let text = match standing {
        ClientTrust::Blocked => format!("{client_id} is blocked; {ended} of its grants ended"),
        ClientTrust::Trusted => format!("{client_id} is trusted"),
        ClientTrust::Known => format!("{client_id} is as any other"),
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
