//! The services that the steps of a handle change use.

use crate::accounts::Accounts;
use crate::base::Clock;
use crate::db::Db;
use crate::fleet::{Fleet, HostClient};
use crate::identity::{Directory, HandlePolicy, Handles};
use crate::keys::Ring;

/// The services that handle changes use.
#[derive(Clone, Debug)]
pub(crate) struct Dependencies {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) accounts: Accounts,
    pub(crate) ring: Ring,
    pub(crate) fleet: Fleet,
    pub(crate) hosts: HostClient,
    pub(crate) directory: Directory,
    pub(crate) handles: Handles,
    pub(crate) policy: HandlePolicy,
}

/// The services of handle changes, and the name of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) with: Dependencies,
    /// The holder name of this process in leases.
    pub(super) worker: String,
}
