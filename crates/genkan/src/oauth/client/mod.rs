//! Clients: what they say of themselves, and what the operator says of them.

use serde::Deserialize;

use super::sql::clients;
use super::{ClientView, Error};
use crate::base::Clock;
use crate::db::Db;
use crate::db::audit::{self, Actor};

/// What the operator thinks of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing in particular.
    Known,
    /// Its name and logo are shown, and it is treated as one that proves who it is.
    Trusted,
    /// It gets nothing.
    Blocked,
}

impl Standing {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Trusted => "trusted",
            Self::Blocked => "blocked",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Known, Self::Trusted, Self::Blocked].into_iter().find(|one| one.as_str() == text)
    }
}

/// Looks clients up. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    db: Db,
    clock: Clock,
}

/// What a stored document may have people see.
#[derive(Default, Deserialize)]
struct Shown {
    client_name: Option<String>,
    client_uri: Option<String>,
    logo_uri: Option<String>,
    tos_uri: Option<String>,
    policy_uri: Option<String>,
}

impl Clients {
    pub(super) const fn new(db: Db, clock: Clock) -> Self {
        Self { db, clock }
    }

    /// As people may see a client whose metadata was read when it pushed its request.
    pub(super) async fn shown(&self, client_id: &str) -> crate::db::Result<ClientView> {
        let stored = clients::find(&self.db, client_id).await?;
        let trusted = stored.as_ref().is_some_and(|stored| stored.standing == Standing::Trusted);
        let shown: Shown = stored
            .and_then(|stored| stored.document)
            .and_then(|(document, _)| serde_json::from_str(&document).ok())
            .unwrap_or_default();
        let url = client_id.parse::<http::Uri>().ok();
        Ok(ClientView {
            id: client_id.to_owned(),
            host: url.as_ref().and_then(http::Uri::host).unwrap_or(client_id).to_owned(),
            trusted,
            development: is_development(client_id),
            name: shown.client_name.filter(|_| trusted),
            logo: shown.logo_uri.filter(|_| trusted),
            home: shown.client_uri.filter(|_| trusted),
            terms: shown.tos_uri,
            policy: shown.policy_uri,
        })
    }

    /// The operator's word. It counts from the client's next request; what it has is the caller's to end.
    pub(super) async fn set_standing(&self, client_id: &str, standing: Standing) -> Result<(), Error> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        clients::set_standing(&mut tx, client_id, standing, now).await?;
        audit::record(&mut tx, now, Actor::Operator, "oauth.client", client_id, standing.as_str()).await?;
        Ok(tx.commit().await?)
    }
}

/// The ids of apps under development are all the same client to us: nothing is remembered of them.
pub(super) fn is_development(client_id: &str) -> bool {
    client_id.starts_with("http://")
}
