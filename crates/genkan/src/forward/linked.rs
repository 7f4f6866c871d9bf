//! Calls of linked accounts to their own PDS, signed by Genkan.
//!
//! A PDS may demand another nonce or a fresher token. Genkan sends the call once more for each. A
//! body that is too large to keep for this goes out only after a small request has brought both up
//! to date. Nothing else is ever sent again, and no redirect is followed: a token goes only to the
//! one origin that was verified for it.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response, StatusCode};
use http1::{BodyLength, Exchange, KEPT_AT_MOST, Permit};
use hyper::body::Incoming;

use super::answer::{AnswerBody, ForwardedBody};
use super::call::Call;
use super::engine::{Answer, Forwarder, Input, KeptBody, Upload, again, response};
use super::error::{Cause, Error};
use super::external::{CallKind, CallOwner, REFUSED_AFTER};
use super::headers::{Credentials, ForwardedHead, Signed, guard};
use super::rooms::{ExternalAccounts, LinkError, OwnServer, Signer};
use super::shares::{Holder, Place};
use crate::base::{Origin, monotonic_now};
use crate::oauth::GrantCaller;

/// A call of a linked account.
pub(crate) struct LinkedDestination {
    pub(super) caller: Arc<GrantCaller>,
    /// Whether the client proves its key. A client that does not has plain Bearer tokens.
    pub(super) by_proof: bool,
    pub(super) signer: Arc<dyn Signer>,
}

impl fmt::Debug for LinkedDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkedDestination").field("caller", &self.caller.did).finish_non_exhaustive()
    }
}

impl LinkedDestination {
    pub(super) fn pds(&self) -> &Origin {
        self.signer.pds()
    }

    pub(super) fn error(error: LinkError, by_proof: bool) -> Error {
        match error {
            LinkError::Gone => Error::LinkGone { by_proof },
            LinkError::Unavailable { retry_after } => Error::LinkUnavailable { retry_after },
            LinkError::Storage => Error::Unavailable,
            LinkError::Broken => Error::Internal,
        }
    }
}

/// What all attempts of one call share.
struct Attempts<'a> {
    destination: &'a LinkedDestination,
    pds: &'a Origin,
    account: &'a CallOwner,
    kind: CallKind,
    permit: &'a Permit<Incoming>,
    signer: &'a RefCell<Arc<dyn Signer>>,
    may_renew: bool,
}

impl<R: ExternalAccounts> Forwarder<R> {
    /// Sends a call to the caller's own PDS.
    pub(super) async fn call_linked(
        &self,
        destination: &LinkedDestination,
        call: &Call<'_>,
        body: Incoming,
    ) -> Result<Response<AnswerBody>, Error> {
        let began = monotonic_now();
        let answer = self.call(destination, call, body).await;
        // As long as any other refusal takes, so that the time does not tell why (see
        // `REFUSED_AFTER`).
        if matches!(answer, Err(Error::NotAllowed)) {
            tokio::time::sleep_until(began + REFUSED_AFTER).await;
        }
        answer
    }

    async fn call(
        &self,
        destination: &LinkedDestination,
        call: &Call<'_>,
        body: Incoming,
    ) -> Result<Response<AnswerBody>, Error> {
        let (pds, request) = (destination.pds().clone(), call.request);
        if self.rooms.own_server(&pds) == Some(OwnServer::Genkan) {
            return Err(Error::Loop);
        }
        let mut input = Input::of(call, body, &self.limits)?;
        input.keep(&self.budget);
        let account = CallOwner::Did(destination.caller.did.clone());
        let kind = CallKind::of(call.row.weight, &request.method);
        // Checked again, unless the last check is seconds old: the name may point to another
        // address than at the sign-in.
        let addresses = self.external.addresses(&pds).await?;
        let pool = self.pools.external(&pds, &addresses)?;
        // Before the permit: a call that waits for its turn must not hold a slot of the pool.
        self.external.admit(&pds, &account, kind).await?;
        let holder = Holder::Account(&destination.caller.did);
        let (permit, place) = pool.admit(holder, call.answerer())?;
        let signer = RefCell::new(Arc::clone(&destination.signer));
        let mut attempts = Attempts {
            destination,
            pds: &pds,
            account: &account,
            kind,
            permit: &permit,
            signer: &signer,
            may_renew: true,
        };
        if input.has_body() && is_large(input.length) && !self.has_fresh_nonce(destination, &pds) {
            self.prime(&mut attempts).await?;
        }
        let sign = || Ok(self.sign(&signer, destination, &pds, request));
        let mut head = self.linked_head(request, call.target(), input.has_body(), &sign);
        head.passes_service = call.passes_service_to_external(self.external.names());
        let Input { upload, kept, length, progress, answer_within } = input;
        let mut exchange = Exchange { length, progress, answer_within, ..self.exchange(&head) };
        let answer = self.until_taken(&mut attempts, &mut exchange, upload, kept.as_ref()).await?;
        if let Some(kept) = &kept {
            kept.stop();
        }
        take_linked(answer, (permit, place), self.limits.idle, call.row.is_file)
    }

    fn linked_head<'a>(
        &'a self,
        request: &'a Parts,
        target: &'a str,
        has_body: bool,
        sign: &'a dyn Fn() -> Result<Signed, Error>,
    ) -> ForwardedHead<'a> {
        ForwardedHead {
            request,
            target,
            credentials: Credentials::Genkans(sign),
            has_body,
            passes_service: false,
            client: None,
            via: &self.via,
            follows_redirects: false,
        }
    }

    fn sign(
        &self,
        signer: &RefCell<Arc<dyn Signer>>,
        destination: &LinkedDestination,
        pds: &Origin,
        request: &Parts,
    ) -> Signed {
        // Cloned out of the cell: a renewal may replace the signer while a call is being sent.
        let signer = Arc::clone(&signer.borrow());
        let heard = self.rooms.link_nonce(&destination.caller.grant, pds);
        let nonce = heard.as_ref().map(|heard| &*heard.nonce);
        signer.sign(request.method.as_str(), request.uri.path(), nonce)
    }

    fn has_fresh_nonce(&self, destination: &LinkedDestination, pds: &Origin) -> bool {
        let heard = self.rooms.link_nonce(&destination.caller.grant, pds);
        heard.is_some_and(|heard| heard.age < NONCE_IS_FRESH)
    }

    /// Sends a small request, so that nonce and token are current when a large body goes out.
    async fn prime(&self, attempts: &mut Attempts<'_>) -> Result<(), Error> {
        let question = question()?;
        let (destination, pds, signer) = (attempts.destination, attempts.pds, attempts.signer);
        let sign = || Ok(self.sign(signer, destination, pds, &question));
        let head = self.linked_head(&question, QUESTION, false, &sign);
        let answer = self.until_taken(attempts, &mut self.exchange(&head), None, None).await?;
        // Nonce and token came with the head. The body does not matter.
        answer.discard(attempts.permit.pool(), None);
        Ok(())
    }

    /// Whether a PDS closed the connection during a large body because of its nonce, as some do. A
    /// small request finds out afterwards.
    async fn hung_up_over_a_nonce(&self, attempts: &Attempts<'_>) -> bool {
        let Ok(question) = question() else { return false };
        let (destination, pds, signer) = (attempts.destination, attempts.pds, attempts.signer);
        let sign = || Ok(self.sign(signer, destination, pds, &question));
        let head = self.linked_head(&question, QUESTION, false, &sign);
        let Ok(answer) = self.exchange(&head).send(attempts.permit, None).await else { return false };
        if let Some(nonce) = &answer.fields.nonce {
            self.rooms.hear_link_nonce(&destination.caller.grant, pds, nonce);
        }
        let wants_nonce = answer.head.status == StatusCode::UNAUTHORIZED
            && answer.fields.names_dpop_error("use_dpop_nonce");
        answer.discard(attempts.permit.pool(), None);
        wants_nonce
    }

    /// Sends the call until the PDS accepts nonce and token: once more for each at most.
    ///
    /// `home` has a shorter loop, since a host's token is never renewed, and `links::server_client`
    /// one for forms, which need no body to be kept. A shared loop would consist of their differences.
    async fn until_taken(
        &self,
        attempts: &mut Attempts<'_>,
        exchange: &mut Exchange<'_, ForwardedHead<'_>>,
        mut upload: Option<Upload>,
        kept: Option<&Rc<KeptBody>>,
    ) -> Result<Answer, Error> {
        let (grant, pds) = (&attempts.destination.caller.grant, attempts.pds);
        let mut may_challenge = true;
        loop {
            let sent = exchange.send(attempts.permit, upload.take()).await;
            if let Err(error) = &sent
                && hung_up(error)
                && is_large(exchange.length)
                && Box::pin(self.hung_up_over_a_nonce(attempts)).await
            {
                return Err(Error::NotReady);
            }
            let answer = sent?;
            let (head, said) = (&answer.head, &answer.fields);
            self.external.hear(pds, attempts.account, attempts.kind, head.status, &head.headers);
            if let Some(nonce) = &said.nonce {
                self.rooms.hear_link_nonce(grant, pds, nonce);
            }
            if head.status != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            if said.names_dpop_error("use_dpop_nonce") {
                // A second challenge in a row, or one without a nonce, would never end.
                if !std::mem::take(&mut may_challenge) || said.nonce.is_none() {
                    return Err(Error::LinkUnavailable { retry_after: SOON });
                }
            } else if said.names_error("invalid_token") {
                if !std::mem::take(&mut attempts.may_renew) {
                    if !said.names_dpop_error("invalid_token") {
                        // With another scheme the challenge may mean another token than Genkan's. A
                        // session must not end by that.
                        return Ok(answer);
                    }
                    let version = attempts.signer.borrow().version();
                    let error = self.rooms.link_refused(grant, version).await;
                    return Err(LinkedDestination::error(error, attempts.destination.by_proof));
                }
                // The version tells the renewal which token was refused. If another call has
                // renewed it meanwhile, that result is used.
                let version = attempts.signer.borrow().version();
                let renewed = self.rooms.renew_link(grant, version).await;
                let renewed = renewed
                    .map_err(|error| LinkedDestination::error(error, attempts.destination.by_proof))?;
                if renewed.pds() != pds {
                    // The account has moved meanwhile. The next call goes to its new PDS.
                    return Err(Error::NotReady);
                }
                *attempts.signer.borrow_mut() = renewed;
            } else {
                return Ok(answer);
            }
            // Only now: until here the answer might still have gone to the client.
            answer.discard(attempts.permit.pool(), exchange.progress.as_deref());
            (upload, exchange.progress) = again(kept, exchange.progress.is_some())?;
        }
    }
}

/// The small request. It changes nothing.
fn question() -> Result<Parts, Error> {
    let question = Request::get(QUESTION).body(());
    Ok(question.map_err(|_| Error::Internal)?.into_parts().0)
}

/// Whether the PDS closed the connection instead of answering.
const fn hung_up(error: &Error) -> bool {
    matches!(error, Error::Unreachable(Cause::Connection(http1::Cause::Broken(_) | http1::Cause::Closed)))
}

/// Turns a PDS's answer into the client's.
fn take_linked(
    answer: Answer,
    (permit, place): (Permit<Incoming>, Place),
    idle: Duration,
    is_file: bool,
) -> Result<Response<AnswerBody>, Error> {
    let (status, mut headers, body) = answer.into_parts(permit, idle, u64::MAX);
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        return Err(Error::Unreachable(Cause::Redirect));
    }
    guard(&mut headers, true, is_file);
    Ok(response(status, headers, ForwardedBody::new(body, place, None)))
}

/// Whether a body may be longer than what is kept for another try.
const fn is_large(length: BodyLength) -> bool {
    match length {
        BodyLength::None => false,
        BodyLength::Known(length) => length > KEPT_AT_MOST as u64,
        BodyLength::Chunked => true,
    }
}

/// The age up to which a nonce is used for a body that can be sent only once. An older nonce is
/// confirmed first by a small request, which costs nothing compared with the body. A burst of
/// bodies causes one such request.
const NONCE_IS_FRESH: Duration = Duration::from_secs(1);
/// The small request's target. The answer describes the session, and nothing changes.
const QUESTION: &str = "/xrpc/com.atproto.server.getSession";
const SOON: Duration = Duration::from_secs(5);
