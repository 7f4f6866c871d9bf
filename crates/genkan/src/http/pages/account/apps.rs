//! Apps with access to an account: listing and revoking.

use super::owner::owner;
use crate::base::Timestamp;
use crate::http::pages::Pages;
use crate::http::pages::call::{Call, Form};
use crate::http::pages::messages::Messages;
use crate::http::pages::permissions::lines;
use crate::http::pages::reply::Reply;
use crate::http::pages::trouble::Trouble;
use crate::oauth::GrantView;

/// An app on the account page.
pub(super) struct AppCard {
    pub(super) id: String,
    pub(super) host: String,
    pub(super) name: Option<String>,
    pub(super) since: String,
    pub(super) may: Vec<String>,
}

/// `POST /account/revoke`: an app loses its access.
pub(in crate::http::pages) async fn revoke(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let (_, did) = owner(&pages, &call, &form).await?;
    if !pages.app.oauth.end(&did, &form.text("grant").into()).await? {
        return Err(Trouble::NotFound);
    }
    pages.see_other(&format!("/account/u/{did}?done=revoked"))
}

pub(super) fn app_card(GrantView { grant, client }: GrantView, messages: &'static Messages) -> AppCard {
    let since = messages.with(messages.since, day(grant.created_at));
    let used = messages.with(messages.last_used, day(grant.rotated_at));
    AppCard {
        host: client.host,
        id: grant.id.to_string(),
        name: client.name,
        since: format!("{since}, {used}"),
        may: lines(grant.scope.as_str(), messages),
    }
}

fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}
