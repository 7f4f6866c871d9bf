//! The kinds of change, and their listeners in this process.

use std::fmt;
use std::sync::{PoisonError, RwLock};

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    /// An account's home, handle or standing. The subject is its DID.
    Account,
    /// A session ended. The subject is its id.
    Session,
    /// An OAuth grant ended. The subject is its id.
    Grant,
    /// A session of a linked account ended. The subject is its id.
    Link,
    /// The fleet's hosts or keys changed. The subject is the host's id.
    Fleet,
}

impl Change {
    const ALL: [Self; 5] = [Self::Account, Self::Session, Self::Grant, Self::Link, Self::Fleet];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Session => "session",
            Self::Grant => "grant",
            Self::Link => "link",
            Self::Fleet => "fleet",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|change| change.as_str() == text)
    }
}

type Listener = Box<dyn Fn(&str) + Send + Sync>;
type GapListener = Box<dyn Fn() + Send + Sync>;

/// The listeners of one process. Every clone of its [`Db`](super::Db) shares them.
#[derive(Default)]
pub(super) struct Subscribers {
    listeners: RwLock<Vec<(Change, Listener)>>,
    gap_listeners: RwLock<Vec<GapListener>>,
}

impl Subscribers {
    pub(super) fn add(&self, change: Change, listener: Listener) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push((change, listener));
    }

    pub(super) fn add_for_gaps(&self, listener: GapListener) {
        self.gap_listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    pub(super) fn tell(&self, change: Change, subject: &str) {
        // The lock is held while listeners run, so a listener must not subscribe: it would wait for
        // itself.
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        for (_, listener) in listeners.iter().filter(|(wanted, _)| *wanted == change) {
            listener(subject);
        }
    }

    pub(super) fn tell_of_gap(&self) {
        for listener in self.gap_listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            listener();
        }
    }
}

impl fmt::Debug for Subscribers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribers").finish_non_exhaustive()
    }
}
