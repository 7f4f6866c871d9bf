//! Fixed answers for what the edge asks of other rooms.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::accounts::{Caller, Home, Standing};
use crate::base::{Origin, Timestamp};
use crate::fleet::{Host, HostId};
use crate::forward::{Neighbours, Ours, OverLimit, TokenError, Unavailable};
use crate::identity::{self, Freshness, Place, PlaceError};
use crate::oauth::{AccessError, Call, GrantCaller, Onward};
use crate::routing::target::Target;
use genkan_protocol::jwt::session::Scope;

/// Alice lives at the host `one`, Bob at `two`; nobody else lives here.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    pub(super) hosts: Arc<[Arc<Host>]>,
    /// Whether memory knows all this, or only the database does.
    pub(super) remembers: bool,
    /// The nonce that a host gave last.
    pub(super) heard: Arc<Mutex<String>>,
    /// How often a host did not take what was signed.
    pub(super) forgotten: Arc<AtomicUsize>,
    pub(super) world: Arc<Mutex<World>>,
}

/// Accounts that live elsewhere.
#[derive(Debug, Default)]
pub(super) struct World {
    /// By DID or handle, as far as was looked up.
    pub(super) places: HashMap<String, Result<Place, PlaceError>>,
    /// What looking anew finds out.
    pub(super) now: HashMap<String, Place>,
    /// How often that was done.
    pub(super) asked_anew: usize,
}

pub(super) const ALICE: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
pub(super) const BOB: &str = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb";
pub(super) const NOBODY: &str = "did:plc:nnnnnnnnnnnnnnnnnnnnnnnn";

impl Fixed {
    fn caller(token: &str) -> Result<Arc<Caller>, TokenError> {
        let caller = |did: &str, audience: &str| {
            Ok(Arc::new(Caller {
                did: did.parse().unwrap(),
                audience: audience.into(),
                scope: Scope::Access,
                session: "s".to_owned(),
                expires_at: Timestamp::from_millis(i64::MAX),
            }))
        };
        match token {
            "alice" => caller(ALICE, "one"),
            "bob" => caller(BOB, "two"),
            "alice-before-her-move" => caller(ALICE, "two"),
            "someone-gone" => caller(NOBODY, "one"),
            "expired" => Err(TokenError::Expired),
            "unchecked" => Err(TokenError::Unavailable),
            _ => Err(TokenError::Invalid),
        }
    }

    fn home(account: &Target<'_>) -> Option<Arc<Home>> {
        let home = |did: &str, host: &str| {
            Some(Arc::new(Home {
                did: did.parse().unwrap(),
                handle: "alice.example".parse().unwrap(),
                host: host.into(),
                standing: Standing::Active,
            }))
        };
        match account {
            Target::Did(did) if did == ALICE => home(ALICE, "one"),
            Target::Did(did) if did == BOB => home(BOB, "two"),
            Target::Handle(handle) if handle == "alice.example" => home(ALICE, "one"),
            _ => None,
        }
    }
}

fn name_of<'a>(account: &'a Target<'_>) -> &'a str {
    match account {
        Target::Did(did) => did,
        Target::Handle(handle) => handle,
    }
}

impl Fixed {
    fn place(&self, account: &Target<'_>) -> Result<Place, PlaceError> {
        let known = self.world.lock().unwrap().places.get(name_of(account)).cloned();
        known.unwrap_or_else(|| Err(identity::Error::NotFound("account").into()))
    }
}

impl Neighbours for Fixed {
    fn recall_caller(&self, token: &str) -> Option<Result<Arc<Caller>, TokenError>> {
        self.remembers.then(|| Self::caller(token))
    }

    async fn check_caller(&self, token: &str) -> Result<Arc<Caller>, TokenError> {
        tokio::task::yield_now().await;
        Self::caller(token)
    }

    /// The proof names itself: `good` is one, and `stale` has another nonce.
    async fn check_grant(&self, token: &str, call: &Call<'_>) -> Result<Arc<GrantCaller>, AccessError> {
        tokio::task::yield_now().await;
        let (did, audience) = match token {
            "alice" => (ALICE, "one"),
            "bob" => (BOB, "two"),
            "alice-before-her-move" => (ALICE, "two"),
            "unchecked" => return Err(AccessError::Unavailable),
            _ => return Err(AccessError::Token("the token could not be verified")),
        };
        match &*call.proofs {
            ["good"] => Ok(Arc::new(GrantCaller::for_tests(did, audience))),
            ["stale"] => Err(AccessError::Proof(genkan_protocol::oauth::dpop::Error::UseNonce)),
            _ => Err(AccessError::NoProof),
        }
    }

    /// The proof says what it is for.
    fn sign_onward(&self, caller: &GrantCaller, host: &Host, method: &str, path: &str) -> Option<Onward> {
        let nonce = self.heard.lock().unwrap().clone();
        let token = format!("ours-for-{}", caller.did);
        Some(Onward::for_tests(&token, &format!("{method}!{}!{path}!{nonce}", host.id)))
    }

    fn hear_nonce(&self, _: &HostId, nonce: &str) {
        nonce.clone_into(&mut self.heard.lock().unwrap());
    }

    fn forget_onward(&self, _: &GrantCaller) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }

    fn nonce(&self) -> String {
        "our-nonce".to_owned()
    }

    fn recall_home(&self, account: &Target<'_>) -> Option<Option<Arc<Home>>> {
        self.remembers.then(|| Self::home(account))
    }

    async fn find_home(&self, account: &Target<'_>) -> Result<Option<Arc<Home>>, Unavailable> {
        tokio::task::yield_now().await;
        Ok(Self::home(account))
    }

    fn recall_place(&self, account: &Target<'_>) -> Option<Result<Place, PlaceError>> {
        self.remembers.then(|| self.place(account))
    }

    async fn find_place(&self, account: &Target<'_>, freshness: Freshness) -> Result<Place, PlaceError> {
        tokio::task::yield_now().await;
        if freshness == Freshness::Asked {
            let mut world = self.world.lock().unwrap();
            world.asked_anew += 1;
            if let Some(now) = world.now.get(name_of(account)).cloned() {
                return Ok(now);
            }
        }
        self.place(account)
    }

    fn ours(&self, origin: &Origin) -> Option<Ours> {
        if origin.host() == "genkan.example.com" {
            return Some(Ours::Genkan);
        }
        self.hosts.iter().any(|host| host.origin == *origin).then_some(Ours::Host)
    }

    fn is_own_handle(&self, handle: &str) -> bool {
        handle.ends_with(".example")
    }

    fn host(&self, id: &HostId) -> Option<Arc<Host>> {
        self.hosts.iter().find(|host| host.id == *id).cloned()
    }

    fn count(&self, _: IpAddr, _: Option<&str>) -> Result<(), OverLimit> {
        Ok(())
    }
}
