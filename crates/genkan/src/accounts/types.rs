//! The types of this room: accounts, app passwords and invite codes.

use genkan_protocol::crypto::PublicKey;
use genkan_protocol::jwt::session::Scope;
use genkan_protocol::syntax::{Did, Handle};

use super::Email;
use crate::base::{Secret, Timestamp};
use crate::fleet::HostId;

/// The state of an account's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Creating,
    Open,
    /// The account's deletion has begun and will be finished.
    Deleting,
}

/// Whether an account is active, deactivated or taken down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Active,
    Deactivated,
    TakenDown,
}

impl Standing {
    /// The lexicon's `status`; absent for active accounts.
    pub(crate) const fn status(self) -> Option<&'static str> {
        match self {
            Self::Active => None,
            Self::Deactivated => Some("deactivated"),
            Self::TakenDown => Some("takendown"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) did: Did,
    pub(crate) handle: Handle,
    pub(crate) email: Option<String>,
    pub(crate) email_confirmed_at: Option<Timestamp>,
    pub(crate) password_hash: Secret<String>,
    pub(crate) host: HostId,
    /// The key with which the host signs for this account. Genkan keeps it, because signatures must
    /// verify even after the DID document names another key.
    pub(crate) host_key: PublicKey,
    pub(crate) state: State,
    pub(crate) deactivated_at: Option<Timestamp>,
    pub(crate) delete_after: Option<Timestamp>,
    pub(crate) taken_down_at: Option<Timestamp>,
    pub(crate) takedown_ref: Option<String>,
    pub(crate) created_at: Timestamp,
}

impl Account {
    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    pub(crate) const fn standing(&self) -> Standing {
        if self.taken_down_at.is_some() {
            Standing::TakenDown
        } else if self.deactivated_at.is_some() {
            Standing::Deactivated
        } else {
            Standing::Active
        }
    }
}

/// The row that a sign-up records before it asks the host.
#[derive(Clone, Debug)]
pub(crate) struct NewAccount {
    pub(crate) did: Did,
    pub(crate) handle: Handle,
    pub(crate) email: Email,
    pub(crate) password_hash: Secret<String>,
    pub(crate) host: HostId,
    pub(crate) host_key: PublicKey,
    pub(crate) created_at: Timestamp,
}

/// An app password, without the password itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppPassword {
    pub(crate) name: String,
    /// Whether it may use the account's chats and migrate the account to another PDS.
    pub(crate) privileged: bool,
    pub(crate) created_at: Timestamp,
}

impl AppPassword {
    /// The scope of sessions that it opens.
    pub(crate) const fn scope(&self) -> Scope {
        if self.privileged { Scope::AppPassPrivileged } else { Scope::AppPass }
    }
}

/// An invite code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invite {
    pub(crate) code: String,
    pub(crate) uses: u32,
    /// How many uses are left.
    pub(crate) left: u32,
    /// The DID that it was created for, or `admin`.
    pub(crate) for_account: String,
    pub(crate) created_by: String,
    pub(crate) created_at: Timestamp,
    pub(crate) disabled_at: Option<Timestamp>,
}

/// One use of a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InviteUse {
    pub(crate) code: String,
    pub(crate) did: String,
    pub(crate) used_at: Timestamp,
}
