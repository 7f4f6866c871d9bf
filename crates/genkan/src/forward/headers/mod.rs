//! The headers that cross in a forwarded call. Each direction has a list of what may cross; all
//! other headers are dropped.

mod answer;
mod request;

pub(super) use answer::{AnswerFilter, guard};
pub(super) use request::{Credentials, ForwardedHead, has_passed};
pub(crate) use request::{LinkCredential, Signed};
