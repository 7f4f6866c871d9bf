//! Rate limits.
//!
//! This is a ground room because the edge, the handlers and the sweep job all use it. A *limit*
//! counts in fixed windows, which begin at multiples of their length since the Unix epoch, as those
//! of the reference PDS do. Frequent events (every request of a client address or a host) are
//! counted in the memory of this process. Rare and expensive ones (sign-ins, sign-ups, handle
//! changes) are counted in the database, so that all replicas count together. An attempt is counted
//! before its work, so that concurrent attempts cannot exceed the limit.

mod client;
mod error;
mod limit;
mod memory;
mod rate_limits;
mod shared;
mod storage;
mod verdict;

pub(crate) use client::{
    ClientNetwork, account_and_address, address, address_at_host, all_at_host, code_for, name_of, sites,
};
pub(crate) use error::AttemptError;
pub(crate) use limit::{Limit, OAuthEndpoint};
pub(crate) use rate_limits::RateLimits;
pub(crate) use storage::StorageBudget;
pub(crate) use verdict::{OverLimit, Verdict};
