//! The fleet: the PDS hosts that the operator runs.
//!
//! *Host* one PDS · *placement* choosing a host for a new account · *host check* proving that a host
//! accepts our keys and password and reaches the PLC directory through us · *PLC proxy* our own listener
//! before that directory. Hosts are rows, read into memory whole; every process reads them again when
//! the changes feed tells of one. This room never looks at accounts: how many a host holds is told to it.

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

pub(crate) use health::{LastProbe, ProbeSettings, watch};
pub(crate) use host::{Host, HostState};
pub(crate) use host_check::{Expected, Finding, HostCheck, HostChecker, Proof, Subject, Verdict};
pub(crate) use host_client::{HostClient, HostError, StatusChange};
pub(crate) use host_id::HostId;
pub(crate) use placement::Explanation;
pub(crate) use register::{Admission, HostChanges, PreparedHost};
pub(crate) use registry::{Fleet, SEALED_COLUMNS};

/// Why the fleet could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such host")]
    NotFound,
    #[error("a host with this name, URL or DID exists already")]
    NameTaken,
    #[error("a host's name is 1 to 32 of a-z, 0-9 and hyphens, and begins with no hyphen")]
    BadName,
    #[error("the host is prepared, but not added yet; `genkan host add` adds it")]
    OnlyPrepared,
    #[error("it holds {0} accounts")]
    HasAccounts(u64),
    #[error(
        "the sealed admin password of host {id} cannot be opened ({cause}); set it again with `genkan host set {id} --admin-password-file FILE`"
    )]
    Sealed { id: String, cause: String },
    #[error(transparent)]
    Keys(#[from] crate::keys::Error),
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}
