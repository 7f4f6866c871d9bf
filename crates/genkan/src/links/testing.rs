//! Links for the tests of other rooms.

use genkan_protocol::syntax::Did;

use super::discovery::Server;
use super::id::LinkId;
use super::service::Links;
use super::sql::links::{self, Row, State};
use crate::base::Timestamp;
use crate::db::{self, Db};

impl Links {
    /// Keeps a session in a transaction of its own.
    pub(crate) async fn keep(&self, link: &LinkId) -> db::Result<bool> {
        let mut tx = self.inner.db.begin().await?;
        let kept = super::keep(&mut tx, link, self.inner.now()).await?;
        tx.commit().await?;
        Ok(kept)
    }

    /// Whether a session is over, or never was.
    pub(crate) async fn is_over(&self, link: &LinkId) -> db::Result<bool> {
        Ok(!self.find(link).await?.is_some_and(|link| link.state.is_usable()))
    }
}

/// Stores a live link with this id, unless there is one. Its secrets do not open.
pub(crate) async fn insert_live(db: &Db, id: &LinkId, did: &Did, now: Timestamp) {
    insert(db, id, did, State::Live, now).await;
}

/// Stores a link whose person has returned and not decided yet, unless there is one.
pub(crate) async fn insert_waiting(db: &Db, id: &LinkId, did: &Did, now: Timestamp) {
    insert(db, id, did, State::Waiting, now).await;
}

async fn insert(db: &Db, id: &LinkId, did: &Did, state: State, now: Timestamp) {
    if links::find(db, id).await.unwrap().is_some() {
        return;
    }
    let at = |path: &str| format!("https://pds.example.com{path}");
    let row = Row {
        id: id.clone(),
        did: did.clone(),
        handle: None,
        pds: at("").parse().unwrap(),
        server: Server {
            issuer: at(""),
            authorize: at("/authorize"),
            push: at("/par"),
            token: at("/token"),
            revoke: None,
        },
        client_id: "https://genkan.example.com/oauth/client-metadata.json".to_owned(),
        client_key: None,
        scope: "atproto transition:generic".to_owned(),
        state,
        sealed: Some("sealed".to_owned()),
        version: 1,
        issued_at: now,
        expires_at: None,
        unanswered: 0,
        request: None,
        device: "dev-1".to_owned(),
        created_at: now,
        used_at: now,
        reason: None,
        revoke_attempts: 0,
    };
    let mut tx = db.begin().await.unwrap();
    links::insert(&mut tx, &row).await.unwrap();
    tx.commit().await.unwrap();
}
