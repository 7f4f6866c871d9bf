//! Waiting for the running servers. A script that continues after a command relies on its effect.

use std::time::Duration;

use crate::app::App;
use crate::cli::Failure;
use crate::db::feed::ChangeId;
use crate::db::replicas::Unread;
use crate::fleet::HostId;

/// Waits until every running server works with a change of the host `name`.
///
/// Preparing a host needs no wait, because servers do not use a host before it is added.
pub(super) async fn have_read(app: &App, name: &HostId, change: &ChangeId) -> Result<(), Failure> {
    match app.fleet.wait_until_read(change, READ_WITHIN).await {
        Ok(late) if late.is_empty() => Ok(()),
        Ok(late) => Err(Failure::Unread(message(name, &late))),
        Err(cause) => Err(Failure::Unread(format!(
            "the change of {name} is recorded, but whether the running servers have read it is not known ({cause}). \
             They read it within seconds while they reach the database."
        ))),
    }
}

fn message(name: &HostId, late: &[Unread]) -> String {
    let seen = |one: &Unread| format!("{} (last seen {} s ago)", one.name, one.silent_for.as_secs());
    let servers: Vec<String> = late.iter().map(seen).collect();
    format!(
        "the change of {name} is recorded, but these servers have not read it within {} s and go on without it: {}. \
         Each reads it as soon as it runs and reaches the database: look at its log, or restart it. \
         Do not run this command again.",
        READ_WITHIN.as_secs(),
        servers.join(", "),
    )
}

/// Servers read the feed each second. If one takes longer than this, it is in trouble.
const READ_WITHIN: Duration = Duration::from_secs(10);
