//! Calls of accounts that live elsewhere, at their own PDS: signed there as nobody but Genkan can, and for them alone.
//!
//! A PDS may want another nonce, or a fresher token, and be asked once more for each. What cannot be sent twice is not
//! sent before a small question has brought both up to date. Nothing else is ever sent again, and no redirect followed: a
//! token goes to the one origin that was verified for it.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::abroad::Class;
use super::answer::{AnswerBody, Forwarded};
use super::answer_head::AnswerHead;
use super::answer_headers;
use super::engine::{Forwarder, Input, again, method_of, response, target_of};
use super::error::{Cause, Error};
use super::exchange::{Ours, Sending};
use super::fair::{Account, Kind};
use super::link::Link;
use super::neighbours::{LinkError, Neighbours, Ours as OurOwn, Signer};
use super::request_head::{Length, Signed};
use super::upload::{KEPT_AT_MOST, Kept, Progress, State, Upload};
use super::upstream::Permit;
use crate::base::Origin;
use crate::oauth::GrantCaller;

/// A call of an account that lives elsewhere.
pub(crate) struct LinkedAim {
    pub(super) caller: Arc<GrantCaller>,
    /// Its client proves its key; one that does not has plain Bearer tokens.
    pub(super) by_proof: bool,
    pub(super) signer: Arc<dyn Signer>,
}

impl fmt::Debug for LinkedAim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkedAim").field("caller", &self.caller.did).finish_non_exhaustive()
    }
}

impl LinkedAim {
    pub(super) fn pds(&self) -> &Origin {
        self.signer.pds()
    }

    /// The session there is over.
    fn gone(&self) -> Error {
        Error::LinkGone { by_proof: self.by_proof }
    }

    pub(super) fn trouble(error: LinkError, by_proof: bool) -> Error {
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
    aim: &'a LinkedAim,
    pds: &'a Origin,
    account: &'a Account,
    kind: Kind,
    permit: &'a Permit,
    signer: &'a RefCell<Arc<dyn Signer>>,
    may_renew: bool,
}

impl<N: Neighbours> Forwarder<N> {
    /// Carries a call to the caller's own PDS.
    pub(super) async fn call_linked(
        &self,
        aim: &LinkedAim,
        request: &Parts,
        body: Incoming,
    ) -> Result<Response<AnswerBody>, Error> {
        let began = Instant::now();
        let answer = self.call(aim, request, body).await;
        if matches!(answer, Err(Error::NotAllowed)) {
            tokio::time::sleep_until(began + super::reads::REFUSED_AFTER).await;
        }
        answer
    }

    async fn call(
        &self,
        aim: &LinkedAim,
        request: &Parts,
        body: Incoming,
    ) -> Result<Response<AnswerBody>, Error> {
        let (pds, method) = (aim.pds().clone(), method_of(request));
        if self.neighbours.ours(&pds) == Some(OurOwn::Genkan) {
            return Err(Error::Loop);
        }
        let input = Input::of(request, body, &self.limits, Some(&self.budget))?;
        let account = Account::Did(aim.caller.did.clone());
        let kind = Kind::of(method, request.method == Method::POST);
        let addresses = self.abroad.addresses(&pds).await?;
        let upstream = self.upstreams.elsewhere(&pds, &addresses)?;
        self.abroad.admit(&pds, &account, kind, Class::Linked).await?;
        let permit = upstream.admit()?;
        let signer = RefCell::new(Arc::clone(&aim.signer));
        let mut attempts = Attempts {
            aim,
            pds: &pds,
            account: &account,
            kind,
            permit: &permit,
            signer: &signer,
            may_renew: true,
        };
        if input.upload.is_some() && is_large(input.length) && !self.has_fresh_nonce(aim, &pds) {
            self.prime(&mut attempts).await?;
        }
        let sign = || Ok(Some(self.sign(&attempts_signer(&signer), aim, &pds, request)));
        let mut sending = self.sending(&permit, request, target_of(request), &sign);
        (sending.length, sending.patience) = (input.length, input.patience);
        sending.progress = input.progress;
        let kept = input.kept;
        let (head, link) = self.until_taken(&mut attempts, &mut sending, input.upload, kept.as_ref()).await?;
        if let Some(kept) = &kept {
            kept.stop();
        }
        let is_blob = method.eq_ignore_ascii_case("com.atproto.sync.getBlob");
        drop(sending);
        take_linked(head, link, permit, self.limits.idle, is_blob)
    }

    fn sending<'a>(
        &'a self,
        permit: &'a Permit,
        request: &'a Parts,
        target: &'a str,
        sign: &'a dyn Fn() -> Result<Option<Signed>, Error>,
    ) -> Sending<'a> {
        Sending {
            vigil: &self.vigil,
            limits: &self.limits,
            request,
            target,
            ours: Ours {
                by_caller: true,
                sign,
                host: &permit.upstream().authority,
                client: None,
                via: &self.via,
            },
            length: Length::None,
            progress: None,
            follows: false,
            patience: self.limits.answer_head,
        }
    }

    fn sign(&self, signer: &Arc<dyn Signer>, aim: &LinkedAim, pds: &Origin, request: &Parts) -> Signed {
        let heard = self.neighbours.link_nonce(&aim.caller.grant, pds);
        let nonce = heard.as_ref().map(|heard| &*heard.nonce);
        signer.sign(request.method.as_str(), request.uri.path(), nonce)
    }

    fn has_fresh_nonce(&self, aim: &LinkedAim, pds: &Origin) -> bool {
        let heard = self.neighbours.link_nonce(&aim.caller.grant, pds);
        heard.is_some_and(|heard| heard.age < NONCE_IS_FRESH)
    }

    /// Asks something small, so that nonce and token are good when something large goes.
    async fn prime(&self, attempts: &mut Attempts<'_>) -> Result<(), Error> {
        let question = question()?;
        let (aim, pds, signer) = (attempts.aim, attempts.pds, attempts.signer);
        let sign = || Ok(Some(self.sign(&attempts_signer(signer), aim, pds, &question)));
        let mut sending = self.sending(attempts.permit, &question, target_of(&question), &sign);
        let (head, link) = self.until_taken(attempts, &mut sending, None, None).await?;
        // Whatever it says: what counts came with the head.
        Self::put_back(attempts.permit, link, &head, None);
        Ok(())
    }

    /// Whether a PDS hung up on a large body for the sake of its nonce, as some do. It is known afterwards.
    async fn hung_up_over_a_nonce(&self, attempts: &Attempts<'_>) -> bool {
        let Ok(question) = question() else { return false };
        let (aim, pds, signer) = (attempts.aim, attempts.pds, attempts.signer);
        let sign = || Ok(Some(self.sign(&attempts_signer(signer), aim, pds, &question)));
        let sending = self.sending(attempts.permit, &question, target_of(&question), &sign);
        let Ok((head, link)) = sending.exchange(attempts.permit, None).await else { return false };
        if let Some(nonce) = &head.to_us.nonce {
            self.neighbours.hear_link_nonce(&aim.caller.grant, pds, nonce);
        }
        Self::put_back(attempts.permit, link, &head, None);
        head.status == StatusCode::UNAUTHORIZED && head.to_us.says("use_dpop_nonce")
    }

    /// Lets the next attempt use the connection, if this one is over on both sides. Otherwise it ends here, and what is
    /// left of the body comes back with it.
    fn put_back(permit: &Permit, mut link: Box<Link>, head: &AnswerHead, progress: Option<&Progress>) {
        let mut framing = head.framing;
        let has_gone = progress.is_none_or(|progress| progress.state.get() == State::Done);
        if has_gone && link.rest_at_hand(&mut framing).is_some() {
            permit.upstream().give_back(link, head.keep);
        }
    }

    /// Sends until the PDS takes nonce and token: once more for each at most.
    async fn until_taken(
        &self,
        attempts: &mut Attempts<'_>,
        sending: &mut Sending<'_>,
        mut upload: Option<Upload>,
        kept: Option<&Rc<Kept>>,
    ) -> Result<(AnswerHead, Box<Link>), Error> {
        let (link_id, pds) = (attempts.aim.caller.grant.as_str(), attempts.pds);
        let mut may_challenge = true;
        loop {
            let exchanged = sending.exchange(attempts.permit, upload.take()).await;
            if let Err(Error::Unreachable(Cause::Broken(_) | Cause::Closed)) = &exchanged
                && is_large(sending.length)
                && Box::pin(self.hung_up_over_a_nonce(attempts)).await
            {
                return Err(Error::NotReady);
            }
            let (head, link) = exchanged?;
            attempts.permit.upstream().judge(head.status);
            self.abroad.hear(pds, attempts.account, attempts.kind, head.status, &head.headers);
            if let Some(nonce) = &head.to_us.nonce {
                self.neighbours.hear_link_nonce(link_id, pds, nonce);
            }
            if head.status != StatusCode::UNAUTHORIZED {
                return Ok((head, link));
            }
            if head.to_us.says("use_dpop_nonce") {
                // A second one in a row, or one without a nonce: there is no end to it.
                if !std::mem::take(&mut may_challenge) || head.to_us.nonce.is_none() {
                    return Err(Error::LinkUnavailable { retry_after: SOON });
                }
            } else if head.to_us.names("invalid_token") {
                if !std::mem::take(&mut attempts.may_renew) {
                    if !head.to_us.says("invalid_token") {
                        // By another scheme it may speak of another token than ours, and a session does not end by that.
                        return Ok((head, link));
                    }
                    self.neighbours.link_refused(link_id).await;
                    return Err(attempts.aim.gone());
                }
                let version = attempts.signer.borrow().version();
                let renewed = self.neighbours.renew_link(link_id, version).await;
                let renewed = renewed.map_err(|error| LinkedAim::trouble(error, attempts.aim.by_proof))?;
                if renewed.pds() != pds {
                    // The account has moved meanwhile; the next call goes there.
                    return Err(Error::NotReady);
                }
                *attempts.signer.borrow_mut() = renewed;
            } else {
                return Ok((head, link));
            }
            Self::put_back(attempts.permit, link, &head, sending.progress.as_deref());
            (upload, sending.progress) = again(kept, sending.progress.is_some())?;
        }
    }
}

/// The small question: it changes nothing.
fn question() -> Result<Parts, Error> {
    let question = Request::get("/xrpc/com.atproto.server.getSession").body(());
    Ok(question.map_err(|_| Error::Internal)?.into_parts().0)
}

fn attempts_signer(signer: &RefCell<Arc<dyn Signer>>) -> Arc<dyn Signer> {
    Arc::clone(&signer.borrow())
}

/// Makes of a PDS's answer what a client gets.
fn take_linked(
    head: AnswerHead,
    link: Box<Link>,
    permit: Permit,
    idle: Duration,
    is_blob: bool,
) -> Result<Response<AnswerBody>, Error> {
    let AnswerHead { status, mut headers, framing, keep, to_us: _ } = head;
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        return Err(Error::Unreachable(Cause::Redirect));
    }
    let body = Forwarded::new(framing, link, permit, keep, idle, u64::MAX);
    answer_headers::guard(&mut headers, true, is_blob);
    Ok(response(status, headers, body))
}

/// Whether a body may be longer than what is kept for another try.
fn is_large(length: Length) -> bool {
    match length {
        Length::None => false,
        Length::Known(length) => length > KEPT_AT_MOST as u64,
        Length::Chunked { .. } => true,
    }
}

/// A nonce that was heard longer ago is asked about before a body that goes only once: a small question costs nothing
/// beside it, and a burst of bodies asks once.
const NONCE_IS_FRESH: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(5);
