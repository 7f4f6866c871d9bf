//! Carrying a request to the host that can answer it, and the answer back.
//!
//! One engine for every forwarded call, one instance of it on each edge thread: find the home, keep of the headers
//! what may cross, and stream. Bodies are never collected. `http1` holds the connections and streams; what may
//! cross is a list for each direction in `headers`; what can go wrong is [`Error`].
//!
//! An account that lives elsewhere is carried to its PDS as well, where a stranger chose the address and a stranger answers:
//! `abroad` says where we connect to, `bounds` and `fair` how often, and `reads` is the way of such a request.

mod abroad;
mod aim;
mod answer;
mod bounds;
mod engine;
mod error;
mod fair;
#[cfg(test)]
mod guard_tests;
mod headers;
mod home;
mod inspect;
mod limits;
mod linked;
mod neighbours;
mod permission;
mod pools;
mod reads;
mod turns;
mod window;

pub(crate) use abroad::{Abroad, Manners};
pub(crate) use aim::{Aim, Visitor};
pub(crate) use answer::AnswerBody;
#[cfg(test)]
pub(crate) use bounds::ReadRules;
pub(crate) use engine::Forwarder;
pub(crate) use error::{Error, NOT_CARRIED};
#[cfg(test)]
pub(crate) use fair::FairRules;
pub(crate) use headers::{LinkSigned, Signed};
pub(crate) use limits::Limits;
pub(crate) use neighbours::{
    HeardNonce, LinkError, Neighbours, Ours, OverLimit, Signer, TokenError, Unavailable,
};
pub(crate) use pools::{Breakers, breaker_rules};
