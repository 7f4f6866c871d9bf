//! Two accounts as witnesses to a limit that may be one account's alone.

use tokio::time::Instant;

use super::rules::CallClass;
use super::shares::OwnerKey;

/// The last doubtful report about one window, by the class of its account.
///
/// A PDS has limits for single accounts and methods besides those for an address, and not every
/// report tells them apart. If one report were enough, an account that runs into a limit of its own
/// would close its PDS to everyone. So a doubtful report counts for others only after a second
/// account has received it too.
#[derive(Debug, Default)]
pub(super) struct Witnesses {
    linked: Option<Testimony>,
    reads: Option<Testimony>,
}

/// What an account was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Testimony {
    pub(super) owner: OwnerKey,
    /// The limit, or `None` for a refusal.
    pub(super) limit: Option<u32>,
    /// How long it holds.
    pub(super) until: Instant,
}

impl Witnesses {
    /// Remembers a report, and returns whether another account has received it and it still holds.
    ///
    /// Reads are no witnesses for linked accounts, since anyone can cause reads.
    pub(super) fn agree(&mut self, class: CallClass, told: Testimony, now: Instant) -> bool {
        let last = match class {
            CallClass::Linked => &mut self.linked,
            CallClass::Read => &mut self.reads,
        };
        last.replace(told).is_some_and(|before| {
            before.owner != told.owner && before.limit == told.limit && before.until > now
        })
    }
}
