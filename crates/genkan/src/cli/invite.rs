//! `genkan invite …`: codes that let people in while invites are required.

use std::fmt::Write as _;

use clap::Subcommand;
use serde::Serialize;

use super::{Context, Failure};
use crate::accounts::{Invite, Invites, NewInvites};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create invite codes and print them.
    Create {
        /// How many sign-ups each code allows.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// How many codes to create, 1 to 1000.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
        /// The DID of the account that owns the codes and can see them. `admin` means no account.
        #[arg(long, value_name = "DID", default_value = "admin")]
        r#for: String,
    },
    /// List invite codes, newest first.
    List {
        /// How many codes to list at most, 1 to 10,000.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
    /// Disable a code. Accounts that were created with it stay.
    Disable {
        /// The invite code.
        code: String,
    },
}

#[derive(Serialize)]
struct InviteView {
    code: String,
    uses: u32,
    left: u32,
    #[serde(rename = "for")]
    for_account: String,
    created: String,
    disabled: bool,
}

impl From<Invite> for InviteView {
    fn from(invite: Invite) -> Self {
        Self {
            code: invite.code,
            uses: invite.uses,
            left: invite.left,
            for_account: invite.for_account,
            created: invite.created_at.rfc3339(),
            disabled: invite.disabled_at.is_some(),
        }
    }
}

pub(super) fn run(command: Command, context: &Context) -> Result<(), Failure> {
    context.block_on(async {
        let config = context.config()?;
        // Codes need the database only. So they can be created before the first host is added.
        let db = context.database(&config).await?;
        let clock = db.clock();
        let invites = Invites::new(db, clock, config.service.public_url.host());
        match command {
            Command::Create { uses, count, r#for } => {
                let new = NewInvites { for_account: &r#for, created_by: "operator", count, uses };
                let made = invites.create(new).await.map_err(anyhow::Error::from)?;
                let made: Vec<InviteView> = made.into_iter().map(InviteView::from).collect();
                let text = |made: &Vec<InviteView>| made.iter().map(|one| one.code.clone() + "\n").collect();
                Ok(context.output.print(&made, text)?)
            }
            Command::List { limit } => {
                let found = invites.list(limit).await.map_err(anyhow::Error::from)?;
                let shown: Vec<InviteView> = found.into_iter().map(InviteView::from).collect();
                Ok(context.output.print(&shown, |shown| table(shown))?)
            }
            Command::Disable { code } => {
                if !invites.disable(&code).await.map_err(anyhow::Error::from)? {
                    let hint = "no enabled code has this name; `genkan invite list` shows all codes";
                    return Err(anyhow::anyhow!("{code}: {hint}").into());
                }
                let done = serde_json::json!({ "code": code, "disabled": true });
                Ok(context.output.print(&done, |_| format!("{code} is disabled"))?)
            }
        }
    })
}

fn table(shown: &[InviteView]) -> String {
    if shown.is_empty() {
        return "There are no invite codes yet. `genkan invite create` creates one.".to_owned();
    }
    let width = shown.iter().map(|one| one.code.len()).max().unwrap_or(4).max(4);
    let mut out = format!("{:<width$}  LEFT  CREATED                   FOR\n", "CODE");
    for one in shown {
        let left = if one.disabled { "off".to_owned() } else { format!("{}/{}", one.left, one.uses) };
        let _ = writeln!(out, "{:<width$}  {left:<4}  {:<24}  {}", one.code, one.created, one.for_account);
    }
    out
}
