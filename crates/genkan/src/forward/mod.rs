//! Carrying a request to the host that can answer it, and the answer back.
//!
//! One engine for every forwarded call, one instance of it on each edge thread: find the home, keep of the headers
//! what may cross, and stream. Bodies are never collected; a body's permit and its connection are given back when
//! the body has ended, and never before. What may cross is a list in `request_head` and one in
//! `answer_headers`; what can go wrong is [`Error`].
//!
//! An account that lives elsewhere is carried to its PDS as well, where a stranger chose the address and a stranger answers:
//! `abroad` says where we connect to, `bounds` and `fair` how often, and `reads` is the way of such a request.
//!
//! Words: *link* = one connection to a host. *Upload* = a request's body on its way to a host. *Answer* = what goes
//! back to the client.

mod abroad;
mod aim;
mod answer;
mod answer_head;
mod answer_headers;
mod bounds;
mod breaker;
mod dial;
mod engine;
mod error;
mod exchange;
mod fair;
mod framing;
#[cfg(test)]
mod guard_tests;
mod inspect;
mod limits;
mod link;
mod linked;
mod neighbours;
mod permission;
mod pump;
mod reads;
mod request_head;
mod turns;
mod upload;
mod upstream;
mod vigil;
mod window;

pub(crate) use abroad::{Abroad, Manners};
pub(crate) use aim::{Aim, Visitor};
pub(crate) use answer::{AnswerBody, CutOff as Cut};
pub(crate) use answer_headers::EXPOSED;
#[cfg(test)]
pub(crate) use bounds::ReadRules;
pub(crate) use breaker::{BreakerRules, Breakers};
pub(crate) use dial::{Dialler, write_parts};
pub(crate) use engine::Forwarder;
pub(crate) use error::{Error, NOT_CARRIED};
#[cfg(test)]
pub(crate) use fair::FairRules;
pub(crate) use limits::Limits;
pub(crate) use neighbours::{
    HeardNonce, LinkError, Neighbours, Ours, OverLimit, Signer, TokenError, Unavailable,
};
pub(crate) use request_head::{LinkSigned, Signed};
