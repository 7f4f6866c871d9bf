//! Values that several tests of this room start from.

use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::oauth::request::ResponseMode;

use super::grant::{Grant, GrantPlace};
use super::parameters::{ClientAuth, RequestParameters};
use super::scope::{ApprovedScope, RequestedScope};
use super::service::OAuth;
use crate::accounts::{Account, State};
use crate::base::fetch::GuardedClient;
use crate::base::{Secret, Timestamp};

impl OAuth {
    /// The client that fetches clients' documents.
    pub(crate) fn guarded(&self) -> &GuardedClient {
        self.clients.guarded()
    }
}

pub(super) fn pushed() -> RequestParameters {
    RequestParameters {
        redirect_uri: "https://app.example.com/back".to_owned(),
        scope: RequestedScope::of_request("atproto transition:generic"),
        state: "the state".to_owned(),
        code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned(),
        response_mode: ResponseMode::Query,
        prompt: None,
        login_hint: None,
        ui_locales: Vec::new(),
        dpop_key: Some("thumbprint".to_owned()),
        client_auth: ClientAuth::None,
        at: 0,
    }
}

pub(super) fn grant() -> Grant {
    Grant {
        id: "0123456789abcdef01234567".into(),
        did: "did:plc:ann".parse().unwrap(),
        client_id: "https://app.example.com/c.json".to_owned(),
        scope: ApprovedScope::stored("atproto".to_owned()),
        dpop_key: Some("thumbprint".to_owned()),
        client_auth: ClientAuth::None,
        device: "dev-1".into(),
        place: GrantPlace::Home,
        refreshable: true,
        generation: 0,
        rotated_at: Timestamp::from_millis(10),
        rotated_before_at: Timestamp::from_millis(10),
        idle_until: Timestamp::from_millis(2_000_000),
        expires_at: Timestamp::from_millis(3_000_000),
        created_at: Timestamp::from_millis(10),
        ended_at: None,
    }
}

pub(super) fn account() -> Account {
    let key = K256PrivateKey::from_bytes(&[7; 32]).unwrap();
    Account {
        did: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap(),
        handle: "ann.example.com".parse().unwrap(),
        email: None,
        email_confirmed_at: None,
        password_hash: Secret::new(String::new()),
        host: "oak".into(),
        host_key: key.public(),
        state: State::Open,
        deactivated_at: None,
        delete_after: None,
        taken_down_at: None,
        takedown_ref: None,
        created_at: Timestamp::from_millis(0),
    }
}
