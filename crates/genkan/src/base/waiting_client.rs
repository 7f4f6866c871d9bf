//! Whether the client of a request still waits for the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The client of a request, which may leave before the work for it ends.
///
/// Work goes on after its client has left, and a repeated request finds what it did. Some things
/// cannot be found: a password that is shown once, or what a code was used up for. They are
/// committed only for a client that still waits (`Tx::commit_for`).
#[derive(Clone, Debug, Default)]
pub(crate) struct WaitingClient {
    /// Without a state the client never leaves.
    state: Option<Arc<AtomicU8>>,
}

impl WaitingClient {
    /// A client that may leave.
    pub(crate) fn new() -> Self {
        Self { state: Some(Arc::new(AtomicU8::new(WAITING))) }
    }

    /// A client that never leaves.
    #[cfg(test)]
    pub(crate) const fn patient() -> Self {
        Self { state: None }
    }

    /// Has the client wait for the end of the work, and returns whether it does. It can leave no
    /// more.
    pub(crate) fn detain(&self) -> bool {
        self.change_to(DETAINED)
    }

    /// Lets the client go with another answer, and returns whether it may.
    pub(crate) fn leave(&self) -> bool {
        self.state.is_some() && self.change_to(GONE)
    }

    /// Whether the client has left, and so gets nothing of what the work does from now on.
    pub(crate) fn has_left(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.load(Ordering::Acquire) == GONE)
    }

    fn change_to(&self, to: u8) -> bool {
        // One step, because the client may be about to leave while the work is about to commit.
        self.state.as_ref().is_none_or(|state| {
            let before = state.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire);
            before.unwrap_or_else(|now| now) == WAITING || before == Err(to)
        })
    }
}

const WAITING: u8 = 0;
const DETAINED: u8 = 1;
const GONE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_waits_for_a_commit_or_is_gone_before_it() {
        let client = WaitingClient::new();
        let work = client.clone();
        assert!(work.detain() && work.detain());
        assert!(!client.leave() && !work.has_left());
        let client = WaitingClient::new();
        let work = client.clone();
        assert!(!work.has_left());
        assert!(client.leave() && client.leave());
        assert!(!work.detain() && work.has_left());
        assert!(WaitingClient::patient().detain() && !WaitingClient::patient().leave());
    }
}
