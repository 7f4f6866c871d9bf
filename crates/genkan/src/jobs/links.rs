//! Jobs for linked accounts. They serve existing sessions even when no new ones are created.

use std::time::Duration;

use crate::app::App;
use crate::keys::WebPurpose;
use crate::links;
use crate::oauth::GrantId;

/// Finds links whose grant is over, and grants whose link is over, and ends what is left.
///
/// A link and its grant end in one transaction. What is left is the link of a grant that ran out, of
/// a code that no app redeemed, or one half of a pair from a database that was repaired by hand.
pub(super) async fn compare_with_grants(app: &App) -> anyhow::Result<u64> {
    let (mut after, mut ended) = (None, 0);
    loop {
        let page = app.links.live(after.as_ref(), 200).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        let grants: Vec<GrantId> = page.iter().map(GrantId::from).collect();
        for grant in &app.oauth.over_among(&grants).await? {
            ended += u64::from(app.links.end(&grant.into(), links::Reason::GrantEnded).await?);
        }
    }
    for link in &app.links.ended_lately().await? {
        ended += u64::from(app.oauth.end_dead(&link.into()).await?);
    }
    Ok(ended)
}

/// Retires client keys that no session needs. A session at another server ends when its client key
/// is no longer published.
pub(super) async fn retire_client_keys(app: &App) -> anyhow::Result<u64> {
    let current = app.ring.web_key(WebPurpose::Client);
    // By now every sign-in that began with an older key has returned and is counted.
    if app.clock.now() < current.usable_from.plus(RETIRE_EVERY) {
        return Ok(0);
    }
    let needed = app.links.client_keys_in_use().await?;
    let mut retired = 0;
    for key in app.ring.web_keys(WebPurpose::Client) {
        if key.usable_from < current.usable_from && !needed.contains(&key.id) {
            retired += u64::from(app.ring.retire_web_key(&key.id).await?);
        }
    }
    Ok(retired)
}

/// How often keys are retired. A sign-in takes less than this.
pub(super) const RETIRE_EVERY: Duration = Duration::from_hours(1);
