//! The comparison of the journal with the running system, which `network/soak/check.mjs` makes.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::load::settings;
use crate::command;
use crate::network::Network;
use crate::say::Step;

/// What the check found.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Checked {
    /// Acknowledged writes that are not there.
    pub(super) lost: Vec<String>,
    /// Sessions and grants whose last refresh token does not refresh.
    pub(super) logged_out: Vec<String>,
    /// Operations of the load that were refused, or that did not succeed for minutes.
    pub(super) refused: Vec<String>,
    /// How many things of each kind were looked at.
    #[serde(rename = "checked")]
    pub(super) totals: Value,
}

pub(super) fn run(network: &Network, folder: &Path) -> Result<Checked> {
    let step = Step::start("comparing the journal with the running system");
    let file = folder.join("check.json");
    fs::write(&file, settings(network, folder, 0).to_string())?;
    let said = command::run(&mut network.program("soak/check.mjs", &file)?)?;
    let checked: Checked = serde_json::from_str(&said).context("reading the check's output")?;
    step.done(&checked.totals.to_string());
    Ok(checked)
}

/// Adds rows to the journal that were never true, one of each kind that the check looks at.
pub(super) fn plant(folder: &Path) -> Result<()> {
    let journal = folder.join("journal.jsonl");
    let rows = made_up(&super::json_lines(&journal)?)?;
    let mut file = OpenOptions::new().append(true).open(journal)?;
    for row in rows {
        writeln!(file, "{row}")?;
    }
    Ok(())
}

fn made_up(journal: &[Value]) -> Result<Vec<Value>> {
    let of = |kind: &'static str| {
        journal.iter().filter(move |row| row.get("kind").is_some_and(|found| found == kind))
    };
    let deleted: Vec<&Value> = of("deleting").filter_map(|row| row.get("did")).collect();
    let mut living = of("account")
        .filter_map(|row| row.get("did")?.as_str())
        .filter(|did| !deleted.iter().any(|gone| gone == did));
    let (one, other) =
        (living.next().context("an account lives")?, living.next().context("two accounts live")?);
    let mut rows = vec![
        json!({ "kind": "account", "did": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "handle": "missing.test", "password": "missing" }),
        json!({ "kind": "post", "did": one, "cid": "bafyreimissing", "uri": format!("at://{one}/app.bsky.feed.post/3aaaaaaaaaaaa") }),
        json!({ "kind": "session", "id": "missing", "did": one, "refresh": "not.a.token" }),
        // The check looks at nothing else of an account that was deleted, so it is another account.
        json!({ "kind": "deleted", "did": other }),
        json!({ "kind": "browser", "id": "missing", "did": one, "agent": "", "cookies": [] }),
    ];
    if let Some(grant) = of("grant").next() {
        rows.push(changed(grant, &[("/id", "missing"), ("/did", one), ("/app/refresh", "ref-missing")]));
    }
    // Endings that never were, of a session and a grant that can still be refreshed.
    for (kind, ending, ended) in
        [("session", "session-ending", "session-ended"), ("grant", "grant-ending", "grant-ended")]
    {
        let has_ended = |id: &Value| of(ending).any(|row| row.get("id") == Some(id));
        let last = of(kind).rfind(|row| {
            row.get("did").is_some_and(|did| !deleted.contains(&did))
                && row.get("id").is_some_and(|id| !has_ended(id))
        });
        if let Some(row) = last {
            rows.push(changed(row, &[("/kind", ending)]));
            rows.push(changed(row, &[("/kind", ended)]));
        }
    }
    Ok(rows)
}

/// A copy of a row with some fields changed.
fn changed(row: &Value, fields: &[(&str, &str)]) -> Value {
    let mut row = row.clone();
    for (name, value) in fields {
        if let Some(field) = row.pointer_mut(name) {
            *field = (*value).into();
        }
    }
    row
}
