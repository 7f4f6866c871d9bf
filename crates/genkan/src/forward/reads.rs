//! Reads from external PDSes, without credentials. Anyone may ask for them.
//!
//! The account's DID document names the PDS. An answer may redirect for a few hops, and each hop is
//! checked like the first. A PDS that does not know the account may have lost it to another. In
//! that case the document is read again, and the new PDS is asked.

use std::rc::Rc;

use genkan_protocol::syntax::Did;
use http::{Method, Response, StatusCode, Uri};
use http_body::Body as _;
use http1::{Answerer, Permit};
use hyper::body::Incoming;

use super::answer::{AnswerBody, ForwardedBody};
use super::call::Call;
use super::engine::{Answer, Forwarder, response};
use super::error::{Cause, Error};
use super::error_body::{MAX_PEEK, is_small_json, names_error};
use super::external::{CallKind, CallOwner, REFUSED_AFTER, ReadPermit};
use super::headers::{Credentials, ForwardedHead, guard};
use super::rooms::ExternalAccounts;
use super::shares::Place;
use crate::base::{Origin, monotonic_now};
use crate::identity::{Freshness, PdsLocation};
use crate::limits;
use crate::routing::target::Target;

/// A read of an account on an external PDS, which its client's limits admitted.
#[derive(Debug)]
pub(crate) struct ReadDestination {
    pub(super) place: PdsLocation,
    pub(super) permit: Rc<ReadPermit>,
    /// The account whose known token came with the call. The place counts for it.
    pub(super) reader: Option<Did>,
    /// Whether that account is at the same PDS. Its reads then count as its other calls do, so that
    /// those of strangers do not make them wait.
    pub(super) lives_there: bool,
}

/// A read, independent of the PDS that answers it.
struct Read<'a> {
    call: &'a Call<'a>,
    /// The PDS of the reader, if it is the one that is read.
    readers_pds: Option<&'a Origin>,
    kind: CallKind,
    permit: Rc<ReadPermit>,
    reader: Option<&'a Did>,
}

impl Read<'_> {
    /// What the read is counted for at a server. A PDS may redirect it to one where the reader is a
    /// stranger.
    fn account(&self, origin: &Origin) -> CallOwner {
        match self.reader {
            Some(reader) if self.readers_pds == Some(origin) => CallOwner::Did(reader.clone()),
            _ => CallOwner::Client(limits::ClientNetwork::of(self.call.client.ip)),
        }
    }
}

/// The answer of a PDS.
struct PdsAnswer {
    response: Response<AnswerBody>,
    /// Whether the PDS does not have the account, or no longer has it.
    knows_no_account: bool,
}

impl<R: ExternalAccounts> Forwarder<R> {
    /// Sends a read to the PDS of the account that it is about.
    pub(super) async fn read_external(
        &self,
        destination: &ReadDestination,
        call: &Call<'_>,
        body: &Incoming,
    ) -> Result<Response<AnswerBody>, Error> {
        if !body.is_end_stream() {
            return Err(Error::UnexpectedBody);
        }
        let began = monotonic_now();
        let read = Read {
            call,
            readers_pds: destination.lives_there.then_some(&destination.place.pds),
            kind: CallKind::of(call.row.weight, &call.request.method),
            permit: Rc::clone(&destination.permit),
            reader: destination.reader.as_ref(),
        };
        let answer = self.ask(&destination.place, &read).await;
        // As long as any other refusal takes, so that the time does not tell why (see
        // `REFUSED_AFTER`).
        if matches!(answer, Err(Error::NotAllowed)) {
            tokio::time::sleep_until(began + REFUSED_AFTER).await;
        }
        answer
    }

    async fn ask(&self, place: &PdsLocation, read: &Read<'_>) -> Result<Response<AnswerBody>, Error> {
        if self.external.is_blocked_account(&place.did) {
            return Err(Error::NotAllowed);
        }
        let heard = self.follow(&place.pds, read).await;
        let may_have_moved = match &heard {
            Ok(heard) => heard.knows_no_account,
            Err(error) => refuses_connections(error),
        };
        // The document was cached. Only a suspicion is worth another look at it, or a missing
        // record would cost a resolution.
        if may_have_moved {
            let account = Target::Did(place.did.as_str().into());
            let now =
                self.rooms.find_pds_location(&account, Freshness::Asked, read.call.client.network()).await;
            if let Ok(now) = now
                && now.pds != place.pds
                && self.rooms.own_server(&now.pds).is_none()
            {
                return self.follow(&now.pds, read).await.map(|heard| heard.response);
            }
        }
        heard.map(|heard| heard.response)
    }

    /// Asks a PDS and follows its redirects.
    async fn follow(&self, pds: &Origin, read: &Read<'_>) -> Result<PdsAnswer, Error> {
        let mut next = self.hop(pds, read.call.target(), read, read.call.answerer()).await?;
        for _ in 0..MOST_HOPS {
            let (origin, target) = match next {
                Hop::Answer(heard) => return Ok(*heard),
                Hop::On(origin, target) => (origin, target),
            };
            // An external PDS must not direct Genkan's reads at the operator's own servers.
            if self.rooms.own_server(&origin).is_some() {
                return Err(Error::Unreachable(Cause::Redirect));
            }
            // A PDS could otherwise close any other server to everyone, by directing reads to where
            // that server is slow.
            let next_hop = self.hop(&origin, &target, read, Answerer::Behind).await;
            next = next_hop.map_err(|error| match error {
                // The client asked for an account and not for this address, so it is the PDS's
                // fault.
                Error::NotAllowed => Error::Unreachable(Cause::Redirect),
                other => other,
            })?;
        }
        match next {
            Hop::Answer(heard) => Ok(*heard),
            Hop::On(..) => Err(Error::Unreachable(Cause::Redirect)),
        }
    }

    async fn hop(
        &self,
        origin: &Origin,
        target: &str,
        read: &Read<'_>,
        answerer: Answerer,
    ) -> Result<Hop, Error> {
        let addresses = self.external.addresses(origin).await?;
        let pool = self.pools.external(origin, &addresses)?;
        let account = read.account(origin);
        self.external.admit(origin, &account, read.kind).await?;
        let admitted = pool.admit(read.call.client.holder(read.reader), answerer)?;
        let head = ForwardedHead {
            request: read.call.request,
            target,
            credentials: Credentials::None,
            has_body: false,
            passes_service: false,
            client: None,
            via: &self.via,
            follows_redirects: true,
        };
        let answer = self.exchange(&head).send(&admitted.0, None).await?;
        let said = &answer.head;
        self.external.hear(origin, &account, read.kind, said.status, &said.headers);
        if said.status.is_redirection() && said.status != StatusCode::NOT_MODIFIED {
            let location = answer.fields.location.as_deref();
            let next = location.and_then(|location| next_hop(origin, location));
            return next
                .map(|(origin, target)| Hop::On(origin, target))
                .ok_or(Error::Unreachable(Cause::Redirect));
        }
        self.take_read(answer, admitted, read).await.map(|heard| Hop::Answer(Box::new(heard)))
    }

    async fn take_read(
        &self,
        answer: Answer,
        (permit, place): (Permit<Incoming>, Place),
        read: &Read<'_>,
    ) -> Result<PdsAnswer, Error> {
        // `HEAD` names the length of a body that never comes, so only other verbs are refused for
        // it.
        let (status, mut headers, body) = answer.into_parts(permit, self.limits.idle, self.limits.answer);
        if headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok())
            .is_some_and(|length| length > self.limits.answer && read.call.request.method != Method::HEAD)
        {
            return Err(Error::Unreachable(Cause::TooLong));
        }
        let mut body = ForwardedBody::new(body, place, Some(Rc::clone(&read.permit)));
        let mut knows_no_account = false;
        if matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) && is_small_json(&headers) {
            let said =
                body.peek(MAX_PEEK).await.map_err(|_| Error::Unreachable(http1::Cause::Closed.into()))?;
            knows_no_account =
                said.is_some_and(|said| NO_ACCOUNT.iter().any(|name| names_error(&said, name)));
        }
        guard(&mut headers, false, read.call.row.is_file);
        Ok(PdsAnswer { response: response(status, headers, body), knows_no_account })
    }
}

/// The outcome of one hop.
enum Hop {
    Answer(Box<PdsAnswer>),
    /// A redirect: the next origin, and path and query there.
    On(Origin, String),
}

/// Where a redirect leads: an absolute URL, or a path on the same origin.
fn next_hop(origin: &Origin, location: &str) -> Option<(Origin, String)> {
    let location = location.split('#').next().unwrap_or_default();
    // `//host/path` is a URL with another host (RFC 3986 §4.2), so it is parsed below.
    if location.starts_with('/') && !location.starts_with("//") {
        let path: Uri = location.parse().ok()?;
        return Some((origin.clone(), path.path_and_query()?.to_string()));
    }
    let url: Uri = location.parse().ok()?;
    let origin = format!("{}://{}", url.scheme_str()?, url.authority()?).parse().ok()?;
    Some((origin, url.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)))
}

/// Whether the server seems to have gone for good.
const fn refuses_connections(error: &Error) -> bool {
    matches!(
        error,
        Error::Unreachable(Cause::Connection(
            http1::Cause::Name(_) | http1::Cause::Connect(_) | http1::Cause::SlowConnect
        )) | Error::Resting
    )
}

const MOST_HOPS: usize = 3;
/// The errors by which a PDS says that it does not have an account.
const NO_ACCOUNT: [&str; 2] = ["RepoNotFound", "RepoDeactivated"];
