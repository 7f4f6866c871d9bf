//! Jobs for linked accounts. They serve existing sessions even when no new ones are created.

use std::time::Duration;

use crate::app::App;
use crate::db;
use crate::keys::WebPurpose;
use crate::links::{self, EndedLink, LinkId};
use crate::oauth::{self, GrantId};

/// Finds links whose grant is over, and grants whose link is over, and ends what is left.
///
/// A link and its grant end in one transaction, and grants that ran out end by a job of their own. So
/// what this finds is one half of a pair from a database that was repaired by hand. It takes a few
/// pages each time: a walk over millions of links takes days and costs little.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// The last live link that was compared in this walk.
    after: Option<LinkId>,
    /// The newest end of a link that was compared.
    ended: Option<EndedLink>,
}

impl Comparison {
    /// Compares some more pages, and returns how many halves ended.
    pub(super) async fn go_on(&mut self, app: &App) -> anyhow::Result<u64> {
        Ok(self.compare_live(app).await? + self.compare_ended(app).await?)
    }

    async fn compare_live(&mut self, app: &App) -> anyhow::Result<u64> {
        let mut ended = 0;
        for _ in 0..PAGES {
            let page = app.links.live(self.after.as_ref()).await?;
            self.after = page.last().cloned();
            if page.is_empty() {
                break;
            }
            let grants: Vec<GrantId> = page.iter().map(GrantId::from).collect();
            for grant in &app.oauth.over_among(&grants).await? {
                match app.links.end(&grant.into(), links::Reason::GrantEnded).await {
                    Err(cause) if !cause.is_passing() => report_half(grant, &cause),
                    outcome => ended += u64::from(outcome?),
                }
            }
        }
        Ok(ended)
    }

    async fn compare_ended(&mut self, app: &App) -> anyhow::Result<u64> {
        let mut ended = 0;
        for _ in 0..PAGES {
            let page = app.links.ended_after(self.ended.as_ref()).await?;
            let Some(last) = page.last() else { break };
            self.ended = Some(last.clone());
            let grants: Vec<GrantId> = page.iter().map(|link| GrantId::from(&link.id)).collect();
            for grant in &app.oauth.alive_among(&grants).await? {
                match app.oauth.end_dead(grant).await {
                    Err(oauth::Error::Storage(cause)) if !cause.is_passing() => report_half(grant, &cause),
                    outcome => ended += u64::from(outcome?),
                }
            }
        }
        Ok(ended)
    }
}

/// Reports a half that does not end, for a reason that is not about the others.
fn report_half(grant: &GrantId, cause: &db::Error) {
    let cause = cause as &dyn std::error::Error;
    tracing::error!(cause, grant = grant.as_str(), "the rest of a linked session does not end");
}

/// Retires client keys that no session needs. A session at another server ends when its client key
/// is no longer published.
pub(super) async fn retire_client_keys(app: &App) -> anyhow::Result<u64> {
    let current = app.ring.web_key(WebPurpose::Client);
    // By now every sign-in that began with an older key has returned and is counted.
    if app.clock.now() < current.usable_from.plus(RETIRE_EVERY) {
        return Ok(0);
    }
    let mut retired = 0;
    for key in app.ring.web_keys(WebPurpose::Client) {
        if key.usable_from < current.usable_from && !app.links.is_client_key_in_use(&key.id).await? {
            retired += u64::from(app.ring.retire_web_key(&key.id).await?);
        }
    }
    Ok(retired)
}

/// Pages of 200 rows that a run compares.
const PAGES: usize = 5;
/// How often keys are retired. A sign-in takes less than this.
pub(super) const RETIRE_EVERY: Duration = Duration::from_hours(1);
