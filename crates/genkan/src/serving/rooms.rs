//! The rooms that forwarding asks, behind its three traits. Nothing is decided here: each function
//! passes its question to the room that knows the answer, on the control runtime if that may wait
//! for the database.

use std::net::IpAddr;
use std::sync::Arc;

use genkan_protocol::syntax::{Did, Handle as AccountHandle};
use tokio::runtime::Handle;
use tokio::task::JoinError;

use super::signer::{self, LinkSigner};
use crate::accounts::{AccountHosts, Home};
use crate::app::App;
use crate::base::{Clock, Origin};
use crate::config::Config;
use crate::fleet::{Fleet, Host, HostId};
use crate::forward::{
    Callers, ExternalAccounts, FleetHosts, LinkError, LinkNonce, OwnServer, Signer, TokenError, Unavailable,
};
use crate::identity::{self, Freshness, PdsLocation, PdsLocationError, PdsLocations, is_given_out};
use crate::limits::{ClientNetwork, OverLimit, RateLimits};
use crate::links::{Credential, LinkId, Links, UseError};
use crate::oauth::{AccessError, Call, GrantCaller, GrantId, OAuth, Onward};
use crate::routing::PresentedToken;
use crate::routing::target::Target;
use crate::sessions::{self, AccessTokens, Caller};

/// The rooms that a forwarded request needs. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct AppRooms {
    clock: Clock,
    access: AccessTokens,
    oauth: OAuth,
    account_hosts: AccountHosts,
    fleet: Fleet,
    limits: RateLimits,
    pds_locations: PdsLocations,
    links: Links,
    config: Arc<Config>,
    /// The runtime on which the database is asked. The database's connections must not end with an
    /// edge thread.
    control: Handle,
}

impl AppRooms {
    pub(super) fn of(app: &App) -> Self {
        Self {
            clock: app.clock.clone(),
            access: app.access.clone(),
            oauth: app.oauth.clone(),
            account_hosts: app.accounts.account_hosts().clone(),
            fleet: app.fleet.clone(),
            limits: app.limits.clone(),
            pds_locations: PdsLocations::new(
                app.identity.documents.clone(),
                app.identity.handles.clone(),
                &app.config.network.private_origins,
                app.clock.clone(),
            ),
            links: app.links.clone(),
            config: Arc::clone(&app.config),
            control: Handle::current(),
        }
    }
}

impl AppRooms {
    fn opened(&self, credential: Arc<Credential>) -> Arc<dyn Signer> {
        Arc::new(LinkSigner { credential, clock: self.clock.clone() })
    }

    fn usable(
        &self,
        found: Result<Result<Arc<Credential>, UseError>, JoinError>,
    ) -> Result<Arc<dyn Signer>, LinkError> {
        let found = found.map_err(|_| LinkError::Broken)?;
        found.map(|credential| self.opened(credential)).map_err(|error| signer::link_error(&error))
    }
}

impl Callers for AppRooms {
    fn recall_caller(&self, token: &str) -> Option<Result<Arc<Caller>, TokenError>> {
        Some(self.access.recall(token, self.clock.now())?.map_err(refused))
    }

    async fn check_caller(&self, token: &str) -> Result<Arc<Caller>, TokenError> {
        let (access, token, now) = (self.access.clone(), token.to_owned(), self.clock.now());
        // The task continues when the client leaves, and its result is cached for the next request.
        let checking = self.control.spawn(async move { access.check(&token, now).await });
        checking.await.map_err(|_| TokenError::Unavailable)?.map_err(refused)
    }

    async fn check_grant(&self, token: &str, call: &Call<'_>) -> Result<Arc<GrantCaller>, AccessError> {
        self.oauth.check_access_on(&self.control, token, call).await
    }

    fn recall_account(&self, shown: PresentedToken<'_>) -> Option<Did> {
        match shown {
            PresentedToken::Dpop(token) => self.oauth.recall_account(token),
            PresentedToken::Bearer(token) => match self.access.recall(token, self.clock.now()) {
                Some(known) => Some(known.ok()?.did.clone()),
                // Of a client that gets Bearer tokens. Few tokens are.
                None if self.is_bearer_grant(token) => self.oauth.recall_account(token),
                None => None,
            },
        }
    }

    fn is_bearer_grant(&self, token: &str) -> bool {
        self.oauth.is_ours_by_grant(token)
    }

    async fn check_bearer_grant(&self, token: &str) -> Result<Arc<GrantCaller>, AccessError> {
        self.oauth.check_bearer_on(&self.control, token).await
    }

    fn nonce(&self) -> String {
        self.oauth.nonce()
    }

    fn count(&self, client: IpAddr, host: Option<&str>) -> Result<(), OverLimit> {
        let now = self.clock.now();
        // No verdict means that the operator disabled the limits.
        self.limits.request(client, host, now).map_or(Ok(()), |verdict| verdict.check(now))
    }
}

impl FleetHosts for AppRooms {
    fn recall_home(&self, account: &Target<'_>) -> Option<Option<Arc<Home>>> {
        match account {
            Target::Did(did) => self.account_hosts.recall(did),
            Target::Handle(handle) => self.account_hosts.recall_handle(handle),
        }
    }

    async fn find_home(&self, account: &Target<'_>) -> Result<Option<Arc<Home>>, Unavailable> {
        let account_hosts = self.account_hosts.clone();
        let finding = match account {
            Target::Did(did) => {
                let did = did.clone().into_owned();
                self.control.spawn(async move { account_hosts.find(&did).await })
            }
            Target::Handle(handle) => {
                let handle = handle.clone();
                self.control.spawn(async move { account_hosts.find_by_handle(&handle).await })
            }
        };
        // The task fails only if it panicked or the runtime is shutting down.
        let found = finding.await.map_err(|_| Unavailable)?;
        found.map_err(|cause| {
            tracing::warn!(cause = &cause as &dyn std::error::Error, "a home could not be looked up");
            Unavailable
        })
    }

    fn host(&self, id: &HostId) -> Option<Arc<Host>> {
        self.fleet.host(id)
    }

    fn sign_onward(&self, caller: &GrantCaller, host: &Host, method: &str, path: &str) -> Option<Onward> {
        self.oauth.sign_onward(caller, host, method, path)
    }

    fn hear_nonce(&self, host: &HostId, nonce: &str) {
        self.oauth.hear_nonce(host, nonce);
    }

    fn forget_onward(&self, caller: &GrantCaller) {
        caller.forget_onward();
    }
}

impl ExternalAccounts for AppRooms {
    fn recall_pds_location(&self, account: &Target<'_>) -> Option<Result<PdsLocation, PdsLocationError>> {
        match account {
            Target::Did(did) => self.pds_locations.recall(did),
            Target::Handle(handle) => self.pds_locations.recall_handle(handle),
        }
    }

    async fn find_pds_location(
        &self,
        account: &Target<'_>,
        freshness: Freshness,
        client: ClientNetwork,
    ) -> Result<PdsLocation, PdsLocationError> {
        let pds_locations = self.pds_locations.caused_by(client);
        let finding = match account {
            Target::Did(did) => {
                let did: Did = did.parse().map_err(|_| nowhere())?;
                self.control.spawn(async move { pds_locations.find(&did, freshness).await })
            }
            Target::Handle(handle) => {
                let handle: AccountHandle = handle.parse().map_err(|_| nowhere())?;
                self.control.spawn(async move { pds_locations.find_by_handle(&handle, freshness).await })
            }
        };
        finding.await.unwrap_or_else(|_| Err(nowhere()))
    }

    fn own_server(&self, origin: &Origin) -> Option<OwnServer> {
        if self.config.service.public_url.is_same_server(origin) {
            return Some(OwnServer::Genkan);
        }
        self.fleet.all().iter().any(|host| host.origin == *origin).then_some(OwnServer::Host)
    }

    fn is_own_handle(&self, handle: &str) -> bool {
        is_given_out(&self.config.service.handle_domains, handle)
    }

    fn recall_link(&self, grant: &GrantId) -> Option<Arc<dyn Signer>> {
        Some(self.opened(self.links.recall(&LinkId::from(grant))?))
    }

    async fn find_link(&self, grant: &GrantId) -> Result<Arc<dyn Signer>, LinkError> {
        let (links, link) = (self.links.clone(), LinkId::from(grant));
        // A refresh must not be cancelled: its token would be used up without an answer. A task of
        // its own is not.
        let finding = self.control.spawn(async move { Box::pin(links.credential(&link)).await });
        self.usable(finding.await)
    }

    async fn renew_link(&self, grant: &GrantId, version: i64) -> Result<Arc<dyn Signer>, LinkError> {
        let (links, link) = (self.links.clone(), LinkId::from(grant));
        let renewing = self.control.spawn(async move { Box::pin(links.renew(&link, version)).await });
        self.usable(renewing.await)
    }

    async fn link_refused(&self, grant: &GrantId, version: i64) -> LinkError {
        let (links, link) = (self.links.clone(), LinkId::from(grant));
        // A task of its own, which continues when the caller leaves.
        let refused = self.control.spawn(async move { links.refused(&link, version).await }).await;
        refused.map_or(LinkError::Broken, |error| signer::link_error(&error))
    }

    fn link_nonce(&self, grant: &GrantId, pds: &Origin) -> Option<LinkNonce> {
        let heard = self.links.nonce(&LinkId::from(grant), pds)?;
        Some(LinkNonce { nonce: heard.nonce, age: self.clock.now().since(heard.at) })
    }

    fn hear_link_nonce(&self, grant: &GrantId, pds: &Origin, nonce: &str) {
        self.links.hear_nonce(&LinkId::from(grant), pds, nonce);
    }
}

/// The error for a text that is no name, or for a cancelled lookup.
fn nowhere() -> PdsLocationError {
    identity::Error::Passing("it could not be looked up".into()).into()
}

fn refused(error: sessions::TokenError) -> TokenError {
    use sessions::TokenError as E;
    match error {
        E::Malformed | E::Unverified => TokenError::Unknown,
        E::WrongType | E::BadClaims | E::WrongAudience => TokenError::Invalid,
        E::Expired | E::Revoked => TokenError::Expired,
        E::Storage(cause) => {
            tracing::warn!(cause = &cause as &dyn std::error::Error, "a token could not be checked");
            TokenError::Unavailable
        }
    }
}

#[cfg(test)]
mod tests {
    use genkan_protocol::jwt::session::Scope;

    use super::*;
    use crate::app::testing::app_with_ann;
    use crate::db::testing::Fresh;

    #[tokio::test]
    async fn a_session_is_known_by_its_bearer_token_only() {
        let fresh = Fresh::sqlite().await;
        let (app, ann) = app_with_ann(fresh.db.clone()).await;
        let did = ann.did.clone();
        let session = app.sessions.open_for(ann, Scope::Access, None).await.unwrap();
        let (rooms, token) = (AppRooms::of(&app), session.tokens.access.expose());
        assert_eq!(rooms.recall_account(PresentedToken::Bearer(token)), None, "it was not checked yet");
        rooms.check_caller(token).await.unwrap();
        assert_eq!(rooms.recall_account(PresentedToken::Bearer(token)), Some(did));
        assert_eq!(rooms.recall_account(PresentedToken::Dpop(token)), None);
    }
}
