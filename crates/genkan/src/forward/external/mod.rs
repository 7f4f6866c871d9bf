//! Calls to external PDSes: those that the operator does not run.
//!
//! A person whom the operator does not know chose the address of such a PDS, and that PDS answers.
//! `policy` says which PDSes are called and checks their addresses, `limits` bounds what one client
//! may read, and `budget` keeps Genkan's calls within the rate limits of each PDS. When few calls
//! are left, accounts wait in a fair `queue`. `reads` sends public reads without credentials.
//! `linked` sends the calls of linked accounts, and `permission` says which of them.

mod budget;
#[cfg(test)]
mod guard_tests;
mod limits;
mod linked;
pub(super) mod permission;
mod policy;
mod queue;
mod reads;
mod window;

#[cfg(test)]
pub(crate) use budget::CallBudgetRules;
#[cfg(test)]
pub(crate) use limits::ReadLimits;
pub(super) use limits::ReadPermit;
pub(super) use linked::LinkedDestination;
pub(crate) use policy::{ExternalPdses, ExternalPolicy};
