//! The services and rules that the steps of a sign-up use.

use super::request::Rules;
use crate::accounts::{Accounts, Passwords};
use crate::base::Clock;
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

/// The services and rules of sign-ups, and the name of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) with: Dependencies,
    pub(super) rules: Rules,
    /// The holder name of this process in leases.
    pub(super) worker: String,
}
