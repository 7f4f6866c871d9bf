//! `genkan key rotate-sealing`: sealing every secret with another key.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::{Context, Failure};
use crate::app::{self, App};
use crate::keys::{self, FOLLOW_EVERY};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resealing {
    sealing_key_id: String,
    resealed: u64,
    /// How many secrets are still sealed by older keys. 0 unless rows are damaged.
    left: u64,
    /// Rows that cannot be opened.
    unopened: Vec<String>,
    /// The files that now hold the previous keys.
    put_aside: Vec<PathBuf>,
}

pub(super) async fn rotate(app: &App, only_reseal: bool, context: &Context) -> Result<(), Failure> {
    let by_file = app.config.keys.sealing_key.is_none();
    let file = app::sealing_key_path(&app.config);
    if !only_reseal && !by_file {
        return Err(anyhow::anyhow!(
            "the sealing key comes from GENKAN_SEALING_KEY, which this command cannot change. Create a \
             key with `openssl rand -hex 32`, set it as GENKAN_SEALING_KEY of every Genkan and the \
             current key as GENKAN_SEALING_KEY_OLDER, restart them one after the other, and then run \
             `genkan key rotate-sealing --only-reseal`"
        )
        .into());
    }
    if !only_reseal && !app.db.is_embedded() {
        return Err(anyhow::anyhow!(
            "with PostgreSQL, other machines may have a copy of {}, which this command cannot change. \
             Add a line from `openssl rand -hex 32` before the others in every copy (running servers \
             read it within {} s), and then run `genkan key rotate-sealing --only-reseal`",
            file.display(),
            FOLLOW_EVERY.as_secs()
        )
        .into());
    }
    if !only_reseal {
        let known = keys::sealing_key_file(&file).map_err(anyhow::Error::from)?;
        // Two keys in the file: an earlier rotation was interrupted, and this one continues it.
        let both = if known.older.is_empty() {
            keys::add_sealing_key(&file).map_err(anyhow::Error::from)?
        } else {
            known
        };
        app.ring.sealer().replace(&both);
        say(context, "created a new key; waiting until running servers have read it");
        // Servers read the file every FOLLOW_EVERY. The pause is four times that, because nothing
        // may be sealed with the old key after the rows were counted.
        tokio::time::sleep(FOLLOW_EVERY * 4).await;
    }
    let done = reseal(app, context).await?;
    // The old keys are dropped only when nothing needs them any more.
    let put_aside = if by_file && !only_reseal && done.left == 0 {
        keys::drop_older_sealing_keys(&file).map_err(anyhow::Error::from)?
    } else {
        Vec::new()
    };
    let done = Resealing { put_aside, ..done };
    let left = done.left;
    context.output.print(&done, text)?;
    if left > 0 {
        return Err(anyhow::anyhow!(
            "{left} secrets are still sealed with an older key, so keep that key. Look at the rows that do not open, then run this command again"
        )
        .into());
    }
    Ok(())
}

async fn reseal(app: &App, context: &Context) -> Result<Resealing, Failure> {
    let sealer = app.ring.sealer();
    let (mut resealed, mut unopened) = (0, Vec::new());
    for column in app::sealed_columns() {
        let all = column.left(&app.db, sealer).await.map_err(anyhow::Error::from)?;
        let (mut after, mut count) = (String::new(), 0);
        loop {
            let (round, last) = column.round(&app.db, sealer, &after).await.map_err(anyhow::Error::from)?;
            count += round.resealed;
            unopened.extend(round.unopened);
            after = last;
            if all > 0 {
                say(context, &format!("{}: sealed {count} of {all} with the new key", column.table));
            }
            if !round.full {
                break;
            }
        }
        resealed += count;
    }
    // Counted again, because rows may have been written since their column was sealed.
    let mut left = 0;
    for column in app::sealed_columns() {
        left += column.left(&app.db, sealer).await.map_err(anyhow::Error::from)?;
    }
    let sealing_key_id = sealer.key_id().to_string();
    Ok(Resealing { sealing_key_id, resealed, left, unopened, put_aside: Vec::new() })
}

/// Progress goes to standard error, so that standard output holds only the result.
fn say(context: &Context, line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", context.output.faint(line));
}

fn text(done: &Resealing) -> String {
    let mut out = format!("Sealed {1} secrets with the key {0}.\n", done.sealing_key_id, done.resealed);
    for row in &done.unopened {
        let _ = writeln!(out, "Cannot be opened: {row}");
    }
    for file in &done.put_aside {
        let _ = writeln!(
            out,
            "The previous key is kept in {}. Delete it when you no longer keep backups from before today.",
            file.display()
        );
    }
    out
}
