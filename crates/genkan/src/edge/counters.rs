//! One edge thread's counters. Only that thread writes them; the task that exports metrics reads
//! them.

use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

/// Counts of one thread since the server started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Forwarded requests, by the first digit of the answer's status.
    forwarded: [AtomicU64; 6],
    /// Requests that `http` answered, by the first digit of the answer's status.
    local: [AtomicU64; 6],
    /// Requests that the edge answered, by the first digit of the answer's status.
    refused: [AtomicU64; 6],
    /// Connections that were closed at once because of a limit.
    pub(super) turned_away: AtomicU64,
    /// Open connections.
    pub(super) open: AtomicU64,
}

/// Who answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Host,
    Genkan,
    Edge,
}

impl Counters {
    /// Requests by their answerer and by the first digit of the status, 1 to 5.
    pub(crate) fn answers(&self, by: By, class: usize) -> u64 {
        self.row(by).get(class).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(crate) fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self, by: By, status: StatusCode) {
        if let Some(count) = self.row(by).get(usize::from(status.as_u16() / 100)) {
            add(count, 1);
        }
    }

    const fn row(&self, by: By) -> &[AtomicU64; 6] {
        match by {
            By::Host => &self.forwarded,
            By::Genkan => &self.local,
            By::Edge => &self.refused,
        }
    }
}

/// Adds without a locked instruction. A counter has one writer, so no addition is lost.
pub(super) fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}
