//! A host as the rest of Genkan sees it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use genkan_protocol::syntax::Did;

use super::HostId;
use crate::base::{Origin, Secret, Timestamp};

/// One PDS of the fleet. This is a snapshot: a change creates a new one, but all snapshots share
/// the health.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) did: Did,
    pub(crate) origin: Origin,
    pub(crate) state: HostState,
    /// The share of new accounts, relative to the other hosts' weights. A host of weight 0 gets
    /// none.
    pub(crate) weight: u32,
    /// The most accounts it may hold. `None` means no limit.
    pub(crate) capacity: Option<u64>,
    pub(crate) region: String,
    pub(crate) sign_ups_per_hour: Option<u64>,
    pub(crate) admin_password: Secret<String>,
    pub(crate) version: Option<String>,
    /// The blob limit of the host, in bytes.
    pub(crate) blob_limit: Option<u64>,
    pub(crate) health: Arc<Health>,
}

/// The operator's setting for a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostState {
    /// The host is recorded with its key, but not added yet. It is never in a snapshot.
    Prepared,
    Enabled,
    /// The host serves its accounts and gets no new ones.
    Draining,
    /// As a draining host, but no longer probed.
    Retired,
}

impl HostState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Retired => "retired",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Prepared, Self::Enabled, Self::Draining, Self::Retired]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The result of the last probes. Shared by all snapshots of a host.
#[derive(Debug)]
pub(crate) struct Health {
    up: AtomicBool,
    since: AtomicI64,
    checked_at: AtomicI64,
    /// When it last left a sign-up unanswered.
    doubted_at: AtomicI64,
}

impl Health {
    pub(super) const fn new(up: bool, since: Timestamp, checked_at: Timestamp) -> Self {
        Self {
            up: AtomicBool::new(up),
            since: AtomicI64::new(since.as_millis()),
            checked_at: AtomicI64::new(checked_at.as_millis()),
            doubted_at: AtomicI64::new(i64::MIN),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    pub(crate) fn since(&self) -> Timestamp {
        Timestamp::from_millis(self.since.load(Ordering::Relaxed))
    }

    pub(crate) fn checked_at(&self) -> Timestamp {
        Timestamp::from_millis(self.checked_at.load(Ordering::Relaxed))
    }

    /// Whether the host left a sign-up unanswered a moment ago. The probes may not have noticed
    /// yet.
    pub(super) fn is_doubted(&self, now: Timestamp) -> bool {
        now.is_within(DOUBT, Timestamp::from_millis(self.doubted_at.load(Ordering::Relaxed)))
    }

    pub(super) fn doubt(&self, now: Timestamp) {
        self.doubted_at.store(now.as_millis(), Ordering::Relaxed);
    }

    pub(super) fn set(&self, up: bool, now: Timestamp) {
        // `since` is the time of the last change and not of the last probe.
        if self.up.swap(up, Ordering::Relaxed) != up {
            self.since.store(now.as_millis(), Ordering::Relaxed);
        }
        self.checked_at.store(now.as_millis(), Ordering::Relaxed);
    }
}

/// About one interval of probes. After that, their result is better evidence.
const DOUBT: std::time::Duration = std::time::Duration::from_secs(10);
