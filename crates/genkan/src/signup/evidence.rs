//! What the host and the directory know of a sign-up, which decides how it goes on.

use std::time::Duration;

use genkan_protocol::plc::Operation;
use genkan_protocol::syntax::Did;

use super::context::Context;
use super::sql::SignUp;
use crate::fleet::Host;
use crate::identity::DirectoryError;

/// What the host and the directory have of a sign-up.
pub(super) enum Evidence {
    /// The host has the account.
    Made,
    /// Neither of them has anything.
    Nothing,
    /// The directory has Genkan's operation, but the host has no account.
    OnlyPublished(Operation),
    /// The DID has a tombstone, or there is nothing left to wait for.
    Dead,
    /// One of them does not answer.
    Unclear(String),
}

/// Looks at the host and at the directory.
pub(super) async fn look(of: &Context, sign_up: &SignUp, did: &Did, host: &Host) -> Evidence {
    // The host is asked first: if it has the account, the directory does not matter.
    match of.with.hosts.account_info(host, did).await {
        Ok(Some(_)) => return Evidence::Made,
        Ok(None) => {}
        Err(cause) => {
            // A host that is away cannot tell. The wait ends after a while if nothing was
            // published, and after a longer while in any case.
            let waited = of.with.clock.now().since(sign_up.created_at);
            let over = waited > PATIENCE_PUBLISHED
                || waited > PATIENCE && matches!(of.with.directory.log_last(did).await, Ok(None));
            return if over { Evidence::Dead } else { Evidence::Unclear(cause.to_string()) };
        }
    }
    match of.with.directory.log_last(did).await {
        Ok(None) => Evidence::Nothing,
        // A DID with a tombstone is lost: no operation can follow it.
        Ok(Some(Operation::Tombstone(_))) | Err(DirectoryError::Ended) => Evidence::Dead,
        Ok(Some(last)) => Evidence::OnlyPublished(last),
        Err(cause) => Evidence::Unclear(cause.to_string()),
    }
}

/// Time after which a sign-up is undone if its host is away and nothing was published.
const PATIENCE: Duration = Duration::from_mins(10);
/// Time after which a sign-up is undone in any case if its host is away. It is longer than
/// [`PATIENCE`] because with a published operation the account is probably on the host.
const PATIENCE_PUBLISHED: Duration = Duration::from_hours(1);
