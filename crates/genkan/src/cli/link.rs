//! `genkan link …`: the sessions that external servers gave Genkan for their accounts.

use std::fmt::Write as _;

use clap::Subcommand;
use genkan_protocol::syntax::Did;
use serde::Serialize;

use super::{Context, Failure};
use crate::links::{LinkView, Reason};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the links of an account on an external PDS, newest first. A link has the id of its
    /// grant.
    List {
        /// The account's DID.
        #[arg(value_name = "DID")]
        account: Did,
    },
    /// Show one link, its state, and why it ended.
    Show {
        /// The link's id, from `genkan link list`.
        id: String,
    },
    /// End a link and its grant: here at once, at the account's server within minutes. The app has
    /// to ask the person again.
    End {
        /// The link's id, from `genkan link list`.
        id: String,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkSummary {
    id: String,
    account: String,
    handle: Option<String>,
    pds: String,
    issuer: String,
    scope: String,
    state: &'static str,
    /// Why it ended.
    reason: Option<&'static str>,
    created: String,
    /// The day of the last use.
    used: String,
}

impl From<LinkView> for LinkSummary {
    fn from(link: LinkView) -> Self {
        Self {
            id: link.id.to_string(),
            account: link.did.to_string(),
            handle: link.handle,
            pds: link.pds.to_string(),
            issuer: link.issuer,
            scope: link.scope,
            state: link.state.as_str(),
            reason: link.reason,
            created: link.created_at.rfc3339(),
            used: link.used_at.rfc3339(),
        }
    }
}

pub(super) fn run(command: Command, context: &Context) -> Result<(), Failure> {
    context.block_on(async {
        let links = context.app().await?.links.clone();
        match command {
            Command::List { account } => {
                let found = links.of_account(&account).await.map_err(anyhow::Error::from)?;
                let shown: Vec<LinkSummary> = found.into_iter().map(LinkSummary::from).collect();
                Ok(context.output.print(&shown, |shown| table(shown))?)
            }
            Command::Show { id } => {
                let found = links.find(&id.as_str().into()).await.map_err(anyhow::Error::from)?;
                let shown = found.map(LinkSummary::from).ok_or_else(|| {
                    anyhow::anyhow!(
                        "{id}: no link has this id; `genkan link list DID` shows those of an account"
                    )
                })?;
                Ok(context.output.print(&shown, text)?)
            }
            Command::End { id } => {
                if !links.end(&id.as_str().into(), Reason::Operator).await.map_err(anyhow::Error::from)? {
                    return Err(anyhow::anyhow!(
                        "{id}: no live link has this id; `genkan link show {id}` tells whether it has ended"
                    )
                    .into());
                }
                let done = serde_json::json!({ "id": id, "ended": true });
                Ok(context.output.print(&done, |_| {
                    format!("The link {id} has ended. Its server is informed within minutes.")
                })?)
            }
        }
    })
}

fn table(shown: &[LinkSummary]) -> String {
    if shown.is_empty() {
        return "This account has no links.".to_owned();
    }
    let mut out = format!("{:<24}  {:<24}  {:<8}  SERVER\n", "ID", "CREATED", "STATE");
    for one in shown {
        let _ = writeln!(out, "{:<24}  {}  {:<8}  {}", one.id, one.created, one.state, one.issuer);
    }
    out
}

fn text(one: &LinkSummary) -> String {
    let reason = one.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let handle = one.handle.as_deref().unwrap_or("no confirmed handle");
    format!(
        "account  {} ({handle})\nstate    {}{reason}\nPDS      {}\nserver   {}\nscope    {}\ncreated  {}\nused     {}",
        one.account, one.state, one.pds, one.issuer, one.scope, one.created, one.used
    )
}
