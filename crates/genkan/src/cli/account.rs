//! `genkan account …`: showing accounts and changing their standing.

use std::fmt::Write as _;

use clap::Subcommand;
use serde::Serialize;

use super::{Context, Failure};
use crate::accounts::{Account, Requester};
use crate::app::App;
use crate::base::Secret;
use crate::db::audit::Actor;
use crate::standing::{Deletion, Told};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List accounts, newest first.
    List {
        /// How many accounts to list at most, 1 to 10,000.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
    /// Show one account, with its e-mail address.
    Show {
        /// The account's handle, DID or e-mail address.
        account: String,
    },
    /// Take an account down: hide it on its host, and end its sessions, sign-ins and grants. Its
    /// data stays.
    Takedown {
        /// The account's handle, DID or e-mail address.
        account: String,
        /// A note for your own records, kept with the takedown.
        #[arg(long, value_name = "TEXT", default_value = "operator")]
        reference: String,
    },
    /// Undo a takedown. The account is visible again, and its owner has to sign in again.
    Restore {
        /// The account's handle, DID or e-mail address.
        account: String,
    },
    /// Deactivate an account, as its owner could. It is hidden and its sessions end. Its owner can
    /// activate it again.
    Deactivate {
        /// The account's handle, DID or e-mail address.
        account: String,
    },
    /// Activate a deactivated account. A takedown stays.
    Activate {
        /// The account's handle, DID or e-mail address.
        account: String,
    },
    /// Delete an account and its data on its host. This cannot be undone.
    Delete {
        /// The account's handle, DID or e-mail address.
        account: String,
        /// Delete without asking for confirmation.
        #[arg(long)]
        yes: bool,
    },
    /// Set a new random password, print it once, and end every session, sign-in and grant of the
    /// account.
    ResetPassword {
        /// The account's handle, DID or e-mail address.
        account: String,
    },
    /// List interrupted sign-ups. Genkan finishes or undoes them automatically.
    Unfinished,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AccountView {
    did: String,
    handle: String,
    host: String,
    status: &'static str,
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    takedown_reference: Option<String>,
}

impl AccountView {
    fn of(account: Account, with_email: bool) -> Self {
        Self {
            status: account.standing().status().unwrap_or("active"),
            did: account.did.to_string(),
            handle: account.handle.to_string(),
            host: account.host.to_string(),
            created: account.created_at.rfc3339(),
            // A list often ends up in a chat or a ticket, so it has no addresses.
            email: account.email.filter(|_| with_email),
            delete_after: account.delete_after.map(crate::base::Timestamp::rfc3339),
            takedown_reference: account.takedown_ref,
        }
    }
}

pub(super) fn run(command: Command, context: &Context) -> Result<(), Failure> {
    context.block_on(async {
        let app = context.app().await?;
        match command {
            Command::List { limit } => {
                let accounts = app.accounts.list(limit, None).await.map_err(anyhow::Error::from)?;
                let shown: Vec<AccountView> =
                    accounts.into_iter().map(|account| AccountView::of(account, false)).collect();
                Ok(context.output.print(&shown, |shown| table(shown))?)
            }
            Command::Show { account } => {
                let shown = AccountView::of(find(&app, &account).await?, true);
                Ok(context.output.print(&shown, describe)?)
            }
            Command::Takedown { account, reference } => {
                let account = find(&app, &account).await?;
                let told = app.standings.take_down(&account.did, &reference, Actor::Operator).await;
                let text = match told.map_err(anyhow::Error::from)? {
                    Told::Now => "is taken down, and its sessions have ended",
                    Told::Later => {
                        "is taken down, and its sessions have ended. Its host did not answer yet and may still \
                         show it; a running Genkan tells the host until it accepts"
                    }
                };
                say(context, &account, "takendown", text)
            }
            Command::Restore { account } => {
                let account = find(&app, &account).await?;
                app.standings.restore(&account.did, Actor::Operator).await.map_err(anyhow::Error::from)?;
                say(context, &account, "restored", "is restored")
            }
            Command::Deactivate { account } => {
                let account = find(&app, &account).await?;
                app.standings
                    .deactivate(&account.did, Deletion::AsBefore, Actor::Operator)
                    .await
                    .map_err(anyhow::Error::from)?;
                say(context, &account, "deactivated", "is deactivated")
            }
            Command::Activate { account } => {
                let account = find(&app, &account).await?;
                app.standings.activate(&account.did, Actor::Operator).await.map_err(anyhow::Error::from)?;
                say(context, &account, "active", "is active")
            }
            Command::Delete { account, yes } => {
                let account = find(&app, &account).await?;
                if !yes && !confirmed(&account)? {
                    return Err(anyhow::anyhow!("nothing was deleted: the typed text is not the account's handle").into());
                }
                app.standings.delete(&account.did, Actor::Operator).await.map_err(anyhow::Error::from)?;
                say(context, &account, "deleted", "is deleted")
            }
            Command::ResetPassword { account } => reset_password(&app, context, &account).await,
            Command::Unfinished => unfinished(&app, context).await,
        }
    })
}

async fn find(app: &App, typed: &str) -> Result<Account, Failure> {
    let found = app.accounts.find_by_identifier(typed).await.map_err(anyhow::Error::from)?;
    let hint = "no account has this handle, DID or e-mail address; `genkan account list` shows accounts";
    Ok(found.ok_or_else(|| anyhow::anyhow!("{typed}: {hint}"))?)
}

async fn reset_password(app: &App, context: &Context, typed: &str) -> Result<(), Failure> {
    let account = find(app, typed).await?;
    // The operator passes the password on, so it is random and not chosen.
    let password = Secret::new(crate::base::random::id());
    let hash = app.passwords.hash(&password, Requester::TRUSTED).await.map_err(anyhow::Error::from)?;
    let did = account.did.as_str();
    app.standings
        .set_password_hash(&account.did, hash.expose(), Actor::Operator)
        .await
        .map_err(anyhow::Error::from)?;
    let done = serde_json::json!({ "did": did, "handle": account.handle, "password": password.expose() });
    let text = |_: &serde_json::Value| {
        format!(
            "The new password of {} is {}\nAll its sessions have ended. The password is not shown again.",
            account.handle,
            password.expose()
        )
    };
    Ok(context.output.print(&done, text)?)
}

async fn unfinished(app: &App, context: &Context) -> Result<(), Failure> {
    let found = app.sign_ups.unfinished().await.map_err(anyhow::Error::from)?;
    let rows: Vec<_> = found
        .into_iter()
        .map(
            |(did, since, error)| serde_json::json!({ "did": did, "since": since.rfc3339(), "error": error }),
        )
        .collect();
    Ok(context.output.print(&rows, |rows| {
        if rows.is_empty() {
            return "There are no unfinished sign-ups.".to_owned();
        }
        let line = |row: &serde_json::Value| {
            let text =
                |name: &str| row.get(name).and_then(serde_json::Value::as_str).unwrap_or("").to_owned();
            format!("{}  since {}  {}\n", text("did"), text("since"), text("error"))
        };
        rows.iter().map(line).collect()
    })?)
}

fn say(context: &Context, account: &Account, status: &str, words: &str) -> Result<(), Failure> {
    let done = serde_json::json!({ "did": account.did, "handle": account.handle, "status": status });
    Ok(context.output.print(&done, |_| format!("{} {words}", account.handle))?)
}

fn confirmed(account: &Account) -> Result<bool, Failure> {
    // On standard error: standard output is for the result, which a script may read.
    eprint!(
        "This deletes {} ({}) and all its data for good. Type its handle to confirm: ",
        account.handle, account.did
    );
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(anyhow::Error::from)?;
    Ok(line.trim() == account.handle.as_str())
}

fn table(shown: &[AccountView]) -> String {
    if shown.is_empty() {
        return "There are no accounts yet.".to_owned();
    }
    // Columns as wide as their longest value, and at least as wide as their title.
    let width = |field: fn(&AccountView) -> &str, least: usize| {
        shown.iter().map(|one| field(one).len()).max().unwrap_or(0).max(least)
    };
    let (handles, hosts) = (width(|one| &one.handle, 6), width(|one| &one.host, 4));
    let mut out =
        format!("{:<handles$}  {:<32}  {:<hosts$}  {:<11}  CREATED\n", "HANDLE", "DID", "HOST", "STATUS");
    for one in shown {
        let _ = writeln!(
            out,
            "{:<handles$}  {:<32}  {:<hosts$}  {:<11}  {}",
            one.handle, one.did, one.host, one.status, one.created
        );
    }
    out
}

fn describe(shown: &AccountView) -> String {
    let mut out = format!(
        "handle   {}\ndid      {}\nhost     {}\nstatus   {}\ncreated  {}\n",
        shown.handle, shown.did, shown.host, shown.status, shown.created
    );
    for (name, value) in [
        ("email", &shown.email),
        ("deleted after", &shown.delete_after),
        ("takedown", &shown.takedown_reference),
    ] {
        if let Some(value) = value {
            let _ = writeln!(out, "{name:<8} {value}");
        }
    }
    out
}
