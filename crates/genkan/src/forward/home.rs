//! Calls that go to a host of the fleet.

use http::request::Parts;
use http::{Response, StatusCode};
use http1::{Exchange, Permit};
use hyper::body::Incoming;

use super::answer::{AnswerBody, ForwardedBody};
use super::destination::{By, HomeDestination, Visitor};
use super::engine::{Answer, Forwarder, Input, again, method_of, response, target_of};
use super::error::{Cause, Error};
use super::error_body::{MAX_PEEK, is_small_json, names_error};
use super::headers::{Credentials, ForwardedHead, Signed, guard};
use super::neighbours::Neighbours;

impl<N: Neighbours> Forwarder<N> {
    /// Sends a call to a host of the fleet.
    pub(super) async fn send_home(
        &self,
        destination: &HomeDestination,
        request: &Parts,
        body: Incoming,
        visitor: &Visitor,
    ) -> Result<Response<AnswerBody>, Error> {
        let permit = self.pools.host(&destination.host).admit()?;
        // Only a proof can be refused for its nonce, so only a body that goes with one is kept.
        let budget = matches!(destination.by, By::Grant(_)).then_some(&self.budget);
        let input = Input::of(request, body, &self.limits, budget)?;
        let sign = || self.sign_for_host(destination, request);
        let head = ForwardedHead {
            request,
            target: target_of(request),
            credentials: match destination.by {
                By::Nobody => Credentials::None,
                By::Session => Credentials::Callers,
                By::Grant(_) => Credentials::Genkans(&sign),
            },
            has_body: input.has_body(),
            client: Some(&visitor.address),
            via: &self.via,
            follows_redirects: false,
        };
        let Input { mut upload, kept, length, progress, answer_within } = input;
        let mut exchange = Exchange { length, progress, answer_within, ..self.exchange(&head) };
        let mut answer = exchange.send(&permit, upload).await?;
        if let By::Grant(caller) = &destination.by {
            if self.wants_other_nonce(destination, &answer) {
                // The rest of the body comes back when the connection ends.
                drop(answer);
                (upload, exchange.progress) = again(kept.as_ref(), exchange.progress.is_some())?;
                answer = exchange.send(&permit, upload).await?;
                if self.wants_other_nonce(destination, &answer) {
                    return Err(Error::UpstreamAuth);
                }
            }
            let said = &answer.fields;
            if said.names_dpop_error("invalid_token") || said.names_dpop_error("invalid_dpop_proof") {
                self.neighbours.forget_onward(caller);
                return Err(Error::UpstreamAuth);
            }
        }
        if let Some(kept) = &kept {
            kept.stop();
        }
        let is_blob = method_of(request).eq_ignore_ascii_case("com.atproto.sync.getBlob");
        self.take(answer, permit, destination, is_blob).await
    }

    fn sign_for_host(&self, destination: &HomeDestination, request: &Parts) -> Result<Signed, Error> {
        let By::Grant(caller) = &destination.by else { return Err(Error::UpstreamAuth) };
        let (verb, path) = (request.method.as_str(), request.uri.path());
        let signed = self.neighbours.sign_onward(caller, &destination.host, verb, path);
        signed.map(Signed::Host).ok_or(Error::UpstreamAuth)
    }

    /// Whether the host asks for a proof with another nonce. Genkan knows that nonce from here on.
    fn wants_other_nonce(&self, destination: &HomeDestination, answer: &Answer) -> bool {
        if let Some(nonce) = &answer.fields.nonce {
            self.neighbours.hear_nonce(&destination.host.id, nonce);
        }
        answer.head.status == StatusCode::UNAUTHORIZED && answer.fields.names_dpop_error("use_dpop_nonce")
    }

    /// Makes a host's answer one for the client.
    async fn take(
        &self,
        answer: Answer,
        permit: Permit<Incoming>,
        destination: &HomeDestination,
        is_blob: bool,
    ) -> Result<Response<AnswerBody>, Error> {
        let by_caller = destination.by_caller();
        permit.pool().judge(answer.head.status);
        let most = if by_caller { u64::MAX } else { self.limits.answer };
        let (status, mut headers, body) = answer.into_parts(permit, self.limits.idle, most);
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            return Err(Error::Unreachable(Cause::Redirect));
        }
        let mut body = ForwardedBody::new(body, None);
        // A host that the account has left says so in an error's body. The client is told what to do.
        if by_caller && status == StatusCode::FORBIDDEN && is_small_json(&headers) {
            let framing = http1::Cause::Framing;
            let said = body.peek(MAX_PEEK).await.map_err(|_| Error::Unreachable(framing.into()))?;
            if said.is_some_and(|said| names_error(&said, "AccountNotFound")) {
                return Err(destination.by.moved());
            }
        }
        guard(&mut headers, by_caller, is_blob);
        Ok(response(status, headers, body))
    }
}
