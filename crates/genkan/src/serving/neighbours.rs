//! What the edge asks of the rooms that it does not know: callers, homes, hosts, limits.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::accounts::{Caller, Home, Homes};
use crate::app::App;
use crate::base::Clock;
use crate::fleet::{Fleet, Host, HostId};
use crate::forward::{Neighbours, OverLimit, TokenError, Unavailable};
use crate::limits::RateLimits;
use crate::oauth::{AccessError, Call, GrantCaller, OAuth, Onward};
use crate::routing::target::Target;
use crate::sessions::{self, Access};

/// Just what the way of a request needs. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Rooms {
    clock: Clock,
    access: Access,
    oauth: OAuth,
    homes: Homes,
    fleet: Fleet,
    limits: RateLimits,
    /// Where the database is asked: its connections must not depend on an edge thread's life.
    control: Handle,
}

impl Rooms {
    pub(super) fn of(app: &App) -> Self {
        Self {
            clock: app.clock.clone(),
            access: app.access.clone(),
            oauth: app.oauth.clone(),
            homes: app.accounts.homes().clone(),
            fleet: app.fleet.clone(),
            limits: app.limits.clone(),
            control: Handle::current(),
        }
    }
}

impl Neighbours for Rooms {
    fn recall_caller(&self, token: &str) -> Option<Result<Arc<Caller>, TokenError>> {
        Some(self.access.recall(token, self.clock.now())?.map_err(refused))
    }

    async fn check_caller(&self, token: &str) -> Result<Arc<Caller>, TokenError> {
        let (access, token, now) = (self.access.clone(), token.to_owned(), self.clock.now());
        let checking = self.control.spawn(async move { access.check(&token, now).await });
        checking.await.map_err(|_| TokenError::Unavailable)?.map_err(refused)
    }

    async fn check_grant(&self, token: &str, call: &Call<'_>) -> Result<Arc<GrantCaller>, AccessError> {
        let proof = self.oauth.check_proof(token, call)?;
        let caller = if let Some(known) = self.oauth.recall_caller(token) {
            known?
        } else {
            let (oauth, token) = (self.oauth.clone(), token.to_owned());
            let finding = self.control.spawn(async move { oauth.find_caller(&token).await });
            finding.await.map_err(|_| AccessError::Unavailable)??
        };
        self.oauth.bind(&proof, &caller).await?;
        Ok(caller)
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

    fn nonce(&self) -> String {
        self.oauth.nonce()
    }

    fn recall_home(&self, account: &Target<'_>) -> Option<Option<Arc<Home>>> {
        match account {
            Target::Did(did) => self.homes.recall(did),
            Target::Handle(handle) => self.homes.recall_handle(handle),
        }
    }

    async fn find_home(&self, account: &Target<'_>) -> Result<Option<Arc<Home>>, Unavailable> {
        let homes = self.homes.clone();
        let finding = match account {
            Target::Did(did) => {
                let did = did.clone().into_owned();
                self.control.spawn(async move { homes.find(&did).await })
            }
            Target::Handle(handle) => {
                let handle = handle.clone();
                self.control.spawn(async move { homes.find_by_handle(&handle).await })
            }
        };
        let found = finding.await.map_err(|_| Unavailable)?;
        found.map_err(|cause| {
            tracing::warn!(cause = &cause as &dyn std::error::Error, "a home could not be looked up");
            Unavailable
        })
    }

    fn host(&self, id: &HostId) -> Option<Arc<Host>> {
        self.fleet.host(id)
    }

    fn count(&self, client: IpAddr, host: Option<&str>) -> Result<(), OverLimit> {
        let now = self.clock.now();
        match self.limits.request(client, host, now) {
            Some(verdict) if !verdict.allowed => {
                Err(OverLimit { retry_after: verdict.retry_after(now), verdict })
            }
            _ => Ok(()),
        }
    }
}

fn refused(error: sessions::TokenError) -> TokenError {
    use sessions::TokenError as E;
    match error {
        E::Malformed | E::Invalid(_) => TokenError::Invalid,
        E::Expired | E::Revoked => TokenError::Expired,
        E::Storage(cause) => {
            tracing::warn!(cause = &cause as &dyn std::error::Error, "a token could not be checked");
            TokenError::Unavailable
        }
    }
}
