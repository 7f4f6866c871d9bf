//! Which headers cross in a forwarded call, in both directions. Each direction is a list of what may
//! cross; everything else stays behind.

mod answer;
mod request;

pub(super) use answer::{AnswerFilter, guard};
pub(super) use request::{Credentials, ForwardedHead, has_passed};
pub(crate) use request::{LinkSigned, Signed};
