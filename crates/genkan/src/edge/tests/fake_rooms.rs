//! Fixed answers for what the edge asks of other rooms.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::accounts::{Home, Standing};
use crate::base::{Origin, Timestamp};
use crate::fleet::{Host, HostId};
use crate::forward::{
    Callers, ExternalAccounts, FleetHosts, LinkCredential, LinkError, LinkNonce, OwnServer, Signed, Signer,
    TokenError, Unavailable,
};
use crate::identity::{self, Freshness, PdsLocation, PdsLocationError};
use crate::limits::{ClientNetwork, OverLimit};
use crate::oauth::{AccessError, Call, GrantCaller, GrantId, Onward};
use crate::routing::PresentedToken;
use crate::routing::target::Target;
use crate::sessions::Caller;
use genkan_protocol::jwt::session::Scope;
use genkan_protocol::syntax::Did;

impl std::fmt::Debug for ExternalState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExternalState")
    }
}

/// Fixed answers: Alice's account is on the host `one` and Bob's on `two`. No other account is
/// here.
#[derive(Clone, Debug)]
pub(super) struct FakeRooms {
    pub(super) hosts: Arc<[Arc<Host>]>,
    /// Whether the caches know the answers. Otherwise they come after a lookup.
    pub(super) remembers: bool,
    /// The nonce that a host gave last.
    pub(super) heard: Arc<Mutex<String>>,
    /// How often a host refused Genkan's token.
    pub(super) forgotten: Arc<AtomicUsize>,
    pub(super) external: Arc<Mutex<ExternalState>>,
}

/// Accounts on external PDSes.
#[derive(Default)]
pub(super) struct ExternalState {
    /// The locations by DID or handle, as a lookup finds them.
    pub(super) locations: HashMap<String, Result<PdsLocation, PdsLocationError>>,
    /// The locations that a fresh lookup finds.
    pub(super) moved: HashMap<String, PdsLocation>,
    /// The number of fresh lookups.
    pub(super) asked_again: usize,
    /// The number of lookups of any kind.
    pub(super) looked_up: usize,
    /// The PDS of Zoe's session, and the version of its tokens.
    pub(super) link: Option<(Origin, i64)>,
    /// Where the next renewal of Zoe's session finds her account, if it has moved.
    pub(super) link_moves_to: Option<Origin>,
    pub(super) link_error: Option<LinkError>,
    pub(super) link_refused: usize,
    /// The last nonce of her PDS, and its age.
    pub(super) link_nonce: Option<LinkNonce>,
}

/// Signs with a token that names its version, and a proof that names its request.
struct FakeSigner(Origin, i64);

impl Signer for FakeSigner {
    fn pds(&self) -> &Origin {
        &self.0
    }

    fn version(&self) -> i64 {
        self.1
    }

    fn sign(&self, method: &str, path: &str, nonce: Option<&str>) -> Signed {
        // Readable values, so that a test can tell from the request what was signed.
        let token = format!("opaque-{}", self.1).into();
        Signed::Link(LinkCredential { token, proof: format!("{method}!{path}!{}", nonce.unwrap_or("none")) })
    }
}

/// The scope that Zoe granted to her app.
pub(super) const ZOES_SCOPE: &str =
    "atproto repo:app.bsky.feed.post blob:*/* account:repo?action=manage rpc:*?aud=did:web:x.example%23y";

pub(super) const ALICE: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
pub(super) const BOB: &str = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb";
pub(super) const NOBODY: &str = "did:plc:nnnnnnnnnnnnnnnnnnnnnnnn";

impl FakeRooms {
    fn caller(token: &str) -> Result<Arc<Caller>, TokenError> {
        let caller = |did: &str, audience: &str| {
            Ok(Arc::new(Caller {
                did: did.parse().unwrap(),
                audience: audience.into(),
                scope: Scope::Access,
                session: "s".into(),
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
            "garbled" => Err(TokenError::Unknown),
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

/// Returns Zoe, who has an account on an external PDS, with this scope or with [`ZOES_SCOPE`].
fn zoe(scope: &str) -> GrantCaller {
    let mut caller = GrantCaller::for_tests(super::external_reads::ZOE, "none");
    caller.place = crate::oauth::CallerPlace::Link;
    caller.scope = crate::oauth::ExpandedScope::for_tests(&if scope.is_empty() {
        ZOES_SCOPE.to_owned()
    } else {
        scope.replace('+', " ")
    });
    caller
}

impl FakeRooms {
    fn link(&self, grant: &GrantId) -> Result<Arc<dyn Signer>, LinkError> {
        assert_eq!(grant.as_str(), "0".repeat(24), "a link's id is the grant's");
        let external = self.external.lock().unwrap();
        match (&external.link, external.link_error) {
            (_, Some(error)) => Err(error),
            (Some((pds, version)), None) => Ok(Arc::new(FakeSigner(pds.clone(), *version))),
            (None, None) => Err(LinkError::Gone),
        }
    }

    fn place(&self, account: &Target<'_>) -> Result<PdsLocation, PdsLocationError> {
        let mut external = self.external.lock().unwrap();
        external.looked_up += 1;
        let known = external.locations.get(name_of(account)).cloned();
        known.unwrap_or_else(|| Err(identity::Error::NotFound("account").into()))
    }
}

impl Callers for FakeRooms {
    fn recall_caller(&self, token: &str) -> Option<Result<Arc<Caller>, TokenError>> {
        self.remembers.then(|| Self::caller(token))
    }

    async fn check_caller(&self, token: &str) -> Result<Arc<Caller>, TokenError> {
        // A lookup never answers at once. The yield lets other tasks of the worker run in between,
        // as the database would.
        tokio::task::yield_now().await;
        Self::caller(token)
    }

    fn recall_account(&self, shown: PresentedToken<'_>) -> Option<Did> {
        let (PresentedToken::Bearer(token) | PresentedToken::Dpop(token)) = shown;
        Self::caller(token).ok().map(|caller| caller.did.clone())
    }

    /// Accepts the proof `good`. The proof `stale` has an old nonce.
    async fn check_grant(&self, token: &str, call: &Call<'_>) -> Result<Arc<GrantCaller>, AccessError> {
        tokio::task::yield_now().await;
        if let Some(scope) = token.strip_prefix("zoe") {
            return match &*call.proofs {
                ["good"] => Ok(Arc::new(zoe(scope))),
                _ => Err(AccessError::NoProof),
            };
        }
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

    fn is_bearer_grant(&self, token: &str) -> bool {
        token.starts_with("bearer-")
    }

    async fn check_bearer_grant(&self, token: &str) -> Result<Arc<GrantCaller>, AccessError> {
        tokio::task::yield_now().await;
        match token {
            "bearer-zoe" => Ok(Arc::new(zoe(""))),
            "bearer-alice" => Ok(Arc::new(GrantCaller::for_tests(ALICE, "one"))),
            "bearer-unchecked" => Err(AccessError::Unavailable),
            _ => Err(AccessError::Token("the token has expired")),
        }
    }

    fn nonce(&self) -> String {
        "our-nonce".to_owned()
    }

    fn count(&self, _: IpAddr, _: Option<&str>) -> Result<(), OverLimit> {
        Ok(())
    }
}

impl FleetHosts for FakeRooms {
    fn recall_home(&self, account: &Target<'_>) -> Option<Option<Arc<Home>>> {
        self.remembers.then(|| Self::home(account))
    }

    async fn find_home(&self, account: &Target<'_>) -> Result<Option<Arc<Home>>, Unavailable> {
        tokio::task::yield_now().await;
        Ok(Self::home(account))
    }

    fn host(&self, id: &HostId) -> Option<Arc<Host>> {
        self.hosts.iter().find(|host| host.id == *id).cloned()
    }

    /// Signs with a proof that names its request.
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
}

impl ExternalAccounts for FakeRooms {
    fn recall_pds_location(&self, account: &Target<'_>) -> Option<Result<PdsLocation, PdsLocationError>> {
        self.remembers.then(|| self.place(account))
    }

    async fn find_pds_location(
        &self,
        account: &Target<'_>,
        freshness: Freshness,
        _: ClientNetwork,
    ) -> Result<PdsLocation, PdsLocationError> {
        tokio::task::yield_now().await;
        if freshness == Freshness::Asked {
            let mut external = self.external.lock().unwrap();
            external.asked_again += 1;
            if let Some(now) = external.moved.get(name_of(account)).cloned() {
                return Ok(now);
            }
        }
        self.place(account)
    }

    fn own_server(&self, origin: &Origin) -> Option<OwnServer> {
        if origin.host() == "genkan.example.com" {
            return Some(OwnServer::Genkan);
        }
        self.hosts.iter().any(|host| host.origin == *origin).then_some(OwnServer::Host)
    }

    fn is_own_handle(&self, handle: &str) -> bool {
        handle.ends_with(".example")
    }

    fn recall_link(&self, grant: &GrantId) -> Option<Arc<dyn Signer>> {
        if self.remembers { self.link(grant).ok() } else { None }
    }

    async fn find_link(&self, grant: &GrantId) -> Result<Arc<dyn Signer>, LinkError> {
        tokio::task::yield_now().await;
        self.link(grant)
    }

    async fn renew_link(&self, grant: &GrantId, version: i64) -> Result<Arc<dyn Signer>, LinkError> {
        tokio::task::yield_now().await;
        {
            let mut external = self.external.lock().unwrap();
            let moved = external.link_moves_to.take();
            if let Some((pds, newest)) = &mut external.link {
                assert_eq!(*newest, version, "only a version that was used is renewed");
                *newest += 1;
                if let Some(moved) = moved {
                    *pds = moved;
                }
            }
        }
        self.link(grant)
    }

    async fn link_refused(&self, _: &GrantId, _: i64) -> LinkError {
        tokio::task::yield_now().await;
        self.external.lock().unwrap().link_refused += 1;
        LinkError::Gone
    }

    fn link_nonce(&self, _: &GrantId, _: &Origin) -> Option<LinkNonce> {
        self.external.lock().unwrap().link_nonce.clone()
    }

    fn hear_link_nonce(&self, _: &GrantId, _: &Origin, nonce: &str) {
        self.external.lock().unwrap().link_nonce =
            Some(LinkNonce { nonce: nonce.into(), age: std::time::Duration::ZERO });
    }
}
