//! The rules for calls to external PDSes: those that the operator does not run.
//!
//! A person whom the operator does not know chose the address of such a PDS, and that PDS answers.
//! `policy` says which PDSes are called and checks their addresses, `limits` bounds what one client
//! may read, and `budget` keeps Genkan's calls within the rate limits of each PDS: `host` has the
//! `window`s of one PDS and the `shares` of its accounts, `hosts` the PDSes that are known, and
//! `witness` decides whom a refusal concerns. `recent` says how fast calls come. When few calls are
//! left, accounts wait in a fair `queue`. `permission` says which calls the grant of a linked account
//! allows. `services` resolves the services that hosts are sent to.
//!
//! Nothing here sends a call: `forward::reads` and `forward::linked` do, by these rules.

mod budget;
#[cfg(test)]
mod guard_tests;
mod host;
mod hosts;
mod limits;
pub(super) mod permission;
mod policy;
mod queue;
mod recent;
mod rules;
mod services;
mod shares;
mod window;
mod witness;

#[cfg(test)]
pub(crate) use limits::ReadLimits;
pub(super) use limits::ReadPermit;
pub(super) use policy::REFUSED_AFTER;
pub(crate) use policy::{ExternalPdses, ExternalPolicy};
#[cfg(test)]
pub(crate) use rules::CallBudgetRules;
pub(super) use rules::{CallKind, CallOwner};
pub(super) use services::ServiceError;
#[cfg(test)]
pub(crate) use services::ServiceRules;
