//! The fleet: the PDS hosts that the operator runs.
//!
//! A *host* is one PDS. *Placement* chooses the host of a new account. A *host check* proves that a
//! host accepts Genkan's keys and its admin password, and that it reaches the PLC directory through
//! Genkan. The *PLC proxy* is Genkan's listener in front of that directory.
//!
//! Hosts are rows. Every process has all of them in memory, and reads them again when the changes
//! feed reports a change. This room knows nothing of accounts: their room reports how many each
//! host holds.

mod error;
mod health;
mod host;
mod host_check;
mod host_client;
mod host_id;
mod placement;
pub(crate) mod plc_proxy;
mod register;
mod registry;
mod sql;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use error::Error;
pub(crate) use health::{LastProbe, ProbeSettings, watch};
pub(crate) use host::{Host, HostState};
pub(crate) use host_check::{Expected, Finding, HostCheck, HostChecker, Proof, Subject, Verdict};
pub(crate) use host_client::{HostClient, HostError, StatusChange};
pub(crate) use host_id::HostId;
pub(crate) use placement::Explanation;
pub(crate) use register::{Admission, HostChanges, PreparedHost};
pub(crate) use registry::{Fleet, SEALED_COLUMNS};
