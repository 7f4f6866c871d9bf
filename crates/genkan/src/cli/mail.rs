//! `genkan mail …`: e-mails that could not be delivered.

use std::fmt::Write as _;

use clap::Subcommand;
use serde::Serialize;

use super::{Context, Failure};
use crate::mail::{Mail, UndeliveredEmail};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List e-mails that Genkan gave up in the last two weeks, newest first. Their texts are not
    /// kept.
    GivenUp {
        /// How many e-mails to list at most, 1 to 10,000.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
}

#[derive(Serialize)]
struct EmailView {
    id: String,
    account: String,
    kind: String,
    attempts: u32,
    why: String,
    created: String,
}

impl From<UndeliveredEmail> for EmailView {
    fn from(email: UndeliveredEmail) -> Self {
        Self {
            id: email.id,
            account: email.did.to_string(),
            kind: email.kind,
            attempts: email.attempts,
            why: email.why,
            created: email.created_at.rfc3339(),
        }
    }
}

pub(super) fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    context.block_on(async {
        let config = context.config()?;
        let db = context.database(&config).await?;
        let &Command::GivenUp { limit } = command;
        let found = Mail::given_up(&db, limit).await.map_err(anyhow::Error::from)?;
        let shown: Vec<EmailView> = found.into_iter().map(EmailView::from).collect();
        Ok(context.output.print(&shown, |shown| table(shown))?)
    })
}

fn table(shown: &[EmailView]) -> String {
    if shown.is_empty() {
        return "No e-mail was given up in the last two weeks.".to_owned();
    }
    let mut out = format!("{:<24}  {:<14}  TRIES  {:<32}  WHY\n", "CREATED", "KIND", "ACCOUNT");
    for one in shown {
        let EmailView { created, kind, attempts, account, why, .. } = one;
        let _ = writeln!(out, "{created:<24}  {kind:<14}  {attempts:>5}  {account:<32}  {why}");
    }
    out
}
