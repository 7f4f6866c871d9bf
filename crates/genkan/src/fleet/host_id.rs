//! The names of hosts.

use std::fmt;
use std::sync::Arc;

/// The operator's short name for a host. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostId(Arc<str>);

impl HostId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for HostId {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<&str> for HostId {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl std::borrow::Borrow<str> for HostId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
