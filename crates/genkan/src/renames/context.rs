//! The services that the steps of a handle change use.

use crate::accounts::Accounts;
use crate::base::{Clock, Timestamp, random};
use crate::db::Db;
use crate::fleet::{Fleet, HostClient};
use crate::identity::{Directory, HandlePolicy, Handles, HomeDocuments};
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
    pub(crate) home_documents: HomeDocuments,
}

/// The services of handle changes, and the name of one task. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) with: Dependencies,
    /// The holder's name in leases. Each task has its own (see [`Context::for_task`]).
    pub(super) worker: String,
}

impl Context {
    pub(super) fn new(with: Dependencies) -> Self {
        Self { with, worker: random::id() }
    }

    /// Returns these services for another task, which has leases of its own.
    pub(super) fn for_task(&self) -> Self {
        Self { worker: random::id(), ..self.clone() }
    }

    /// The clock that replicas share, for everything that they compare.
    pub(super) fn now(&self) -> Timestamp {
        self.with.clock.now()
    }
}
