//! Sessions as people, pages and operators see them.

use std::time::Duration;

use genkan_protocol::syntax::Did;

use super::callback::{Arrival, arrival};
use super::error::Reason;
use super::id::LinkId;
use super::service::Links;
use super::sql::links::State;
use super::sql::{links, visits};
use crate::base::{Origin, Timestamp};
use crate::db;

/// A session, without its secrets.
#[derive(Clone, Debug)]
pub(crate) struct LinkView {
    pub(crate) id: LinkId,
    pub(crate) did: Did,
    pub(crate) handle: Option<String>,
    pub(crate) pds: Origin,
    pub(crate) issuer: String,
    pub(crate) scope: String,
    pub(crate) state: State,
    /// Why it ended, if it has.
    pub(crate) reason: Option<&'static str>,
    pub(crate) created_at: Timestamp,
    /// Updated at most twice a day.
    pub(crate) used_at: Timestamp,
}

/// A linked person who is signed in to a browser in order to manage their sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visitor {
    pub(crate) did: Did,
    pub(crate) handle: Option<String>,
}

impl Links {
    /// Returns the person who returned for this request in this browser and has not decided yet.
    pub(crate) async fn waiting(&self, request: &str, device: &str) -> db::Result<Option<Arrival>> {
        let now = self.inner.now();
        let row = links::waiting(&self.inner.db, request, device).await?;
        // A page that was left open must not approve a request much later.
        Ok(row.filter(|row| now.since(row.created_at) < DECIDES_WITHIN).map(arrival))
    }

    /// Ends a session whose person denied the app.
    pub(crate) async fn drop_waiting(&self, link: &LinkId) -> db::Result<bool> {
        self.end(link, Reason::Rejected).await
    }

    pub(crate) async fn find(&self, link: &LinkId) -> db::Result<Option<LinkView>> {
        Ok(links::find(&self.inner.db, link).await?.map(view))
    }

    /// Returns an account's usable sessions, the newest first.
    pub(crate) async fn of_account(&self, did: &Did) -> db::Result<Vec<LinkView>> {
        Ok(links::of_account(&self.inner.db, did).await?.into_iter().map(view).collect())
    }

    /// Starts a visit: a person who showed who they are may manage their sessions in this browser
    /// for an hour. The tokens of this sign-in are revoked at once.
    pub(crate) async fn start_visit(&self, arrival: &Arrival, device: &str) -> db::Result<()> {
        let inner = &self.inner;
        db::repeated(|| async {
            let mut tx = inner.db.begin().await?;
            let until = inner.now().plus(VISIT);
            // Only the identity is kept: the visit shows the account's grants and needs no tokens.
            visits::put(&mut tx, device, &arrival.did, arrival.handle.as_deref(), until).await?;
            tx.commit().await
        })
        .await?;
        // After the visit is stored. If this step fails, the job for undecided sessions ends the
        // link.
        self.end(&arrival.link, Reason::IdentityOnly).await?;
        Ok(())
    }

    /// Returns the visitors of this browser, the last one first.
    pub(crate) async fn visitors(&self, device: &str) -> db::Result<Vec<Visitor>> {
        let found = visits::of_device(&self.inner.db, device, self.inner.now()).await?;
        Ok(found.into_iter().map(|(did, handle)| Visitor { did, handle }).collect())
    }

    /// Ends a visit.
    pub(crate) async fn end_visit(&self, device: &str, did: &Did) -> db::Result<()> {
        db::repeated(|| async {
            let mut tx = self.inner.db.begin().await?;
            visits::remove(&mut tx, device, did).await?;
            tx.commit().await
        })
        .await
    }
}

fn view(row: links::Row) -> LinkView {
    LinkView {
        id: row.id,
        did: row.did,
        handle: row.handle,
        pds: row.pds,
        issuer: row.server.issuer,
        scope: row.scope,
        state: row.state,
        reason: row.reason.map(Reason::as_str),
        created_at: row.created_at,
        used_at: row.used_at,
    }
}

const DECIDES_WITHIN: Duration = Duration::from_mins(15);
const VISIT: Duration = Duration::from_hours(1);
