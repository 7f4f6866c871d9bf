//! What can go wrong with the fleet.

use super::HostId;

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
    Sealed { id: HostId, cause: String },
    #[error(transparent)]
    Keys(#[from] crate::keys::Error),
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}
