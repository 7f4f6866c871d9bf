//! Calls to a host of the fleet.

use std::sync::Arc;

use genkan_protocol::syntax::Did;
use http::{Response, StatusCode};
use http1::{Exchange, Permit};
use hyper::body::Incoming;

use super::addressee;
use super::answer::{AnswerBody, ForwardedBody};
use super::call::{Call, Client};
use super::engine::{Answer, Forwarder, Input, again, response};
use super::error::{Cause, Error};
use super::error_body::{MAX_PEEK, is_small_json, names_error};
use super::external::ServiceError;
use super::headers::{Credentials, ForwardedHead, Signed, guard};
use super::proxied_service::{self, WebName};
use super::rooms::FleetHosts;
use super::shares::{Holder, Place};
use crate::fleet::{Host, HostId};
use crate::oauth::{CallerPlace, GrantCaller};
use crate::routing::Handling;
use crate::sessions::Caller;

/// A host of the fleet, and the credential that a call carries to it.
#[derive(Debug)]
pub(crate) struct HomeDestination {
    pub(super) host: Arc<Host>,
    pub(super) credential: HomeCredential,
}

/// The credential that a call carries to a host.
#[derive(Debug)]
pub(super) enum HomeCredential {
    None {
        /// The account whose known token came with the call. The call counts for it.
        reader: Option<Did>,
    },
    /// The caller's own session token, as received.
    Session(Arc<Caller>),
    /// A token and a proof by Genkan, within the caller's grant.
    Grant(Arc<GrantCaller>),
}

impl HomeCredential {
    /// The account that the call speaks for, and the host that its token is for.
    pub(super) fn caller(&self) -> Option<(&Did, &HostId)> {
        match self {
            Self::None { .. } => None,
            Self::Session(caller) => Some((&caller.did, &caller.audience)),
            Self::Grant(caller) => match &caller.place {
                CallerPlace::Host(host) => Some((&caller.did, host)),
                CallerPlace::Link => None,
            },
        }
    }

    /// Who holds the call's place at the host.
    fn holder<'a>(&'a self, client: &Client) -> Holder<'a> {
        match self {
            Self::None { reader } => client.holder(reader.as_ref()),
            Self::Session(_) | Self::Grant(_) => client.holder(self.caller().map(|(did, _)| did)),
        }
    }

    /// The refusal when the account has moved away. A client with a session signs in again, and one
    /// with a grant refreshes.
    pub(super) fn moved(&self) -> Error {
        match self {
            Self::None { .. } | Self::Session(_) => Error::Moved,
            Self::Grant(_) => {
                Error::Grant { code: "invalid_token", why: "the token is for another host".to_owned() }
            }
        }
    }
}

impl<R: FleetHosts> Forwarder<R> {
    /// Sends a call to a host of the fleet.
    pub(super) async fn send_home(
        &self,
        destination: &HomeDestination,
        call: &Call<'_>,
        body: Incoming,
    ) -> Result<Response<AnswerBody>, Error> {
        let holder = destination.credential.holder(call.client);
        let (permit, place) = self.pools.host(&destination.host).admit(holder, call.answerer())?;
        let mut input = Input::of(call, body, &self.limits)?;
        if call.row.handling == Handling::Addressed {
            if input.has_body() {
                // The client decides how long its body takes, and could use up each trial of an open
                // breaker.
                permit.end_trial();
            }
            Box::pin(self.check_addressee(call, &destination.credential, &mut input)).await?;
        }
        // Only a proof can be refused for its nonce, so only a body that goes with a proof is kept.
        if matches!(destination.credential, HomeCredential::Grant(_)) {
            input.keep(&self.budget);
        }
        let sign = || self.sign_for_host(destination, call);
        let head = ForwardedHead {
            request: call.request,
            target: call.target(),
            credentials: match destination.credential {
                HomeCredential::None { .. } => Credentials::None,
                HomeCredential::Session(_) => Credentials::Callers,
                HomeCredential::Grant(_) => Credentials::Genkans(&sign),
            },
            has_body: input.has_body(),
            passes_service: call
                .passes_service(self.external.names(), |name| self.external.services().is_known_public(name)),
            client: Some(&call.client.address),
            via: &self.via,
            follows_redirects: false,
        };
        let Input { mut upload, kept, length, progress, answer_within } = input;
        let mut exchange = Exchange { length, progress, answer_within, ..self.exchange(&head) };
        let mut answer = exchange.send(&permit, upload).await?;
        if let HomeCredential::Grant(caller) = &destination.credential {
            if self.wants_other_nonce(destination, &answer) {
                // Dropping the answer closes its connection and returns the rest of the body.
                drop(answer);
                (upload, exchange.progress) = again(kept.as_ref(), exchange.progress.is_some())?;
                answer = Box::pin(exchange.send(&permit, upload)).await?;
                // Two refusals in a row mean that the nonces of host and Genkan disagree. A third
                // try would change nothing.
                if self.wants_other_nonce(destination, &answer) {
                    return Err(Error::UpstreamAuth);
                }
            }
            let said = &answer.fields;
            if said.names_dpop_error("invalid_token") || said.names_dpop_error("invalid_dpop_proof") {
                // The host refused the token. Left in the cache, it would go out with the next call
                // too.
                self.rooms.forget_onward(caller);
                return Err(Error::UpstreamAuth);
            }
        }
        if let Some(kept) = &kept {
            kept.stop();
        }
        self.take(answer, (permit, place), destination, call.row.is_file).await
    }

    /// Refuses a call whose input names a service that a host may not be sent to.
    async fn check_addressee(
        &self,
        call: &Call<'_>,
        credential: &HomeCredential,
        input: &mut Input,
    ) -> Result<(), Error> {
        // Without an input the host has no service to call.
        let Some(body) = input.read_ahead(&self.limits).await? else { return Ok(()) };
        let service = addressee::service(&call.request.headers, &body).map_err(Error::BadService)?;
        let Some(did) = service else { return Ok(()) };
        match proxied_service::check_did(&did, self.external.names()) {
            Ok(Some(name)) => self.check_service_name(name, credential, addressee::NOT_PUBLIC).await,
            Ok(None) => Ok(()),
            Err(_) => Err(Error::BadService(addressee::NOT_PUBLIC)),
        }
    }

    /// Refuses a call whose service has a name that does not lead to a public address, with this text.
    pub(super) async fn check_service_name(
        &self,
        WebName(name): WebName<'_>,
        credential: &HomeCredential,
        not_public: &'static str,
    ) -> Result<(), Error> {
        // A host passes on no call without a caller.
        let Some((account, _)) = credential.caller() else { return Ok(()) };
        self.external.services().check(name, account).await.map_err(|error| match error {
            ServiceError::NotPublic => Error::BadService(not_public),
            ServiceError::Unknown => Error::ServiceUnknown,
        })
    }

    fn sign_for_host(&self, destination: &HomeDestination, call: &Call<'_>) -> Result<Signed, Error> {
        let HomeCredential::Grant(caller) = &destination.credential else { return Err(Error::UpstreamAuth) };
        let (verb, path) = (call.request.method.as_str(), call.request.uri.path());
        let signed = self.rooms.sign_onward(caller, &destination.host, verb, path);
        signed.map(Signed::Host).ok_or(Error::UpstreamAuth)
    }

    /// Whether the host demands a proof with another nonce. That nonce is used from now on.
    fn wants_other_nonce(&self, destination: &HomeDestination, answer: &Answer) -> bool {
        if let Some(nonce) = &answer.fields.nonce {
            self.rooms.hear_nonce(&destination.host.id, nonce);
        }
        answer.head.status == StatusCode::UNAUTHORIZED && answer.fields.names_dpop_error("use_dpop_nonce")
    }

    /// Turns a host's answer into the client's.
    async fn take(
        &self,
        answer: Answer,
        (permit, place): (Permit<Incoming>, Place),
        destination: &HomeDestination,
        is_file: bool,
    ) -> Result<Response<AnswerBody>, Error> {
        let by_caller = !matches!(destination.credential, HomeCredential::None { .. });
        // Anyone may ask for an answer without credentials, so only that one is bounded.
        let most = if by_caller { u64::MAX } else { self.limits.answer };
        let (status, mut headers, body) = answer.into_parts(permit, self.limits.idle, most);
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            return Err(Error::Unreachable(Cause::Redirect));
        }
        let mut body = ForwardedBody::new(body, place, None);
        // A host that no longer has the account says so in an error's body. The client is told what
        // to do.
        if by_caller && status == StatusCode::FORBIDDEN && is_small_json(&headers) {
            let framing = http1::Cause::Framing;
            let said = body.peek(MAX_PEEK).await.map_err(|_| Error::Unreachable(framing.into()))?;
            if said.is_some_and(|said| names_error(&said, "AccountNotFound")) {
                return Err(destination.credential.moved());
            }
        }
        guard(&mut headers, by_caller, is_file);
        Ok(response(status, headers, body))
    }
}
