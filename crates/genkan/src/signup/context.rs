//! The services and rules that the steps of a sign-up use.

use super::request::Rules;
use crate::accounts::{Accounts, Passwords};
use crate::base::{Clock, Timestamp, random};
use crate::db::Db;
use crate::fleet::{Fleet, HostClient};
use crate::identity::Directory;
use crate::keys::Ring;
use crate::sessions::Sessions;
use crate::signin::Attempts;

/// The services that sign-ups use.
#[derive(Clone, Debug)]
pub(crate) struct Dependencies {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) accounts: Accounts,
    pub(crate) passwords: Passwords,
    pub(crate) sessions: Sessions,
    pub(crate) ring: Ring,
    pub(crate) fleet: Fleet,
    pub(crate) hosts: HostClient,
    pub(crate) directory: Directory,
    pub(crate) attempts: Attempts,
}

/// The services and rules of sign-ups, and the name of one task. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) with: Dependencies,
    pub(super) rules: Rules,
    /// The holder's name in leases. Each task has its own (see [`Context::for_task`]).
    pub(super) worker: String,
}

impl Context {
    pub(super) fn new(with: Dependencies, rules: Rules) -> Self {
        Self { with, rules, worker: random::id() }
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
