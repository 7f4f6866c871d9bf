//! The fleet: the PDS hosts that the operator runs.

mod host_id;

pub(crate) use host_id::HostId;
