//! `genkan key rotate-sealing`: another key for everything that is sealed.

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
    /// What other keys sealed and is left: nothing, unless rows are damaged.
    left: u64,
    /// Rows that do not open.
    unopened: Vec<String>,
    /// Where the older keys are now.
    put_aside: Vec<PathBuf>,
}

pub(super) async fn rotate(app: &App, only_reseal: bool, context: &Context) -> Result<(), Failure> {
    let by_file = app.config.keys.sealing_key.is_none();
    let file = app::sealing_key_path(&app.config);
    if !only_reseal && !by_file {
        return Err(anyhow::anyhow!(
            "the sealing key comes from GENKAN_SEALING_KEY. Make another with `openssl rand -hex 32`, give it to every Genkan as \
             GENKAN_SEALING_KEY and the one of now as GENKAN_SEALING_KEY_OLDER, restart them one after the other, and then run \
             `genkan key rotate-sealing --only-reseal`"
        )
        .into());
    }
    if !only_reseal && !app.db.is_embedded() {
        return Err(anyhow::anyhow!(
            "with PostgreSQL other machines may have a copy of {}. Put a fresh line from `openssl rand -hex 32` before the others \
             in every copy (running servers read it within {} s), and then run `genkan key rotate-sealing --only-reseal`",
            file.display(),
            FOLLOW_EVERY.as_secs()
        )
        .into());
    }
    if !only_reseal {
        let known = keys::sealing_key_file(&file).map_err(anyhow::Error::from)?;
        // A rotation that was broken off is gone on with.
        let both = if known.older.is_empty() {
            keys::add_sealing_key(&file).map_err(anyhow::Error::from)?
        } else {
            known
        };
        app.ring.sealer().replace(&both);
        say(context, "a new key is in place; giving running servers the time to take it up");
        // Twice what they need: nothing may be sealed with the old key after it was counted.
        tokio::time::sleep(FOLLOW_EVERY * 4).await;
    }
    let done = reseal(app, context).await?;
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
            "{left} secrets are still sealed with an older key, which has to stay; look at those that do not open, and run this again"
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
                say(context, &format!("{}: {count} of {all} sealed anew", column.table));
            }
            if !round.full {
                break;
            }
        }
        resealed += count;
    }
    let mut left = 0;
    for column in app::sealed_columns() {
        left += column.left(&app.db, sealer).await.map_err(anyhow::Error::from)?;
    }
    let sealing_key_id = sealer.key_id().to_string();
    Ok(Resealing { sealing_key_id, resealed, left, unopened, put_aside: Vec::new() })
}

/// Progress goes to the side: what is printed is for whoever reads on.
fn say(context: &Context, line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", context.output.faint(line));
}

fn text(done: &Resealing) -> String {
    let mut out = format!("sealed anew with key {}: {} secrets\n", done.sealing_key_id, done.resealed);
    for row in &done.unopened {
        let _ = writeln!(out, "does not open: {row}");
    }
    for file in &done.put_aside {
        let _ = writeln!(
            out,
            "the key from before is now {}; delete it when no backup from before today is kept any more",
            file.display()
        );
    }
    out
}
