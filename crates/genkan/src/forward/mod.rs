//! Carrying a request to the host that can answer it, and the answer back.
//!
//! One engine for every forwarded call, one instance of it on each edge thread: find the home, keep of the headers
//! what may cross, and stream. Bodies are never collected. `http1` holds the connections and streams; what may
//! cross is a list for each direction in `headers`; what can go wrong is [`Error`].
//!
//! `external` is the part about PDSes that the operator does not run.

mod answer;
mod destination;
mod engine;
mod error;
mod error_body;
mod external;
mod headers;
mod home;
mod limits;
mod neighbours;
mod pools;

pub(crate) use answer::AnswerBody;
pub(crate) use destination::{Destination, Visitor};
pub(crate) use engine::Forwarder;
pub(crate) use error::{Error, NOT_CARRIED};
#[cfg(test)]
pub(crate) use external::{CallBudgetRules, ReadLimits};
pub(crate) use external::{ExternalPdses, ExternalPolicy};
pub(crate) use headers::{LinkSigned, Signed};
pub(crate) use limits::Limits;
pub(crate) use neighbours::{
    HeardNonce, LinkError, Neighbours, Ours, OverLimit, Signer, TokenError, Unavailable,
};
pub(crate) use pools::{Breakers, breaker_rules};
