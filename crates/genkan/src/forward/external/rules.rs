//! The words of call budgets: what a call is counted for, how, and at which rates.

use std::time::Duration;

use genkan_protocol::syntax::Did;
use http::Method;

use crate::config::{Config, Rate};
use crate::limits;
use crate::routing::Weight;

/// The rates at which one PDS may be called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallBudgetRules {
    pub(crate) calls: Rate,
    pub(crate) repos: Rate,
    pub(crate) uploads: Rate,
    pub(crate) account_calls: Rate,
    pub(crate) account_writes: Rate,
    /// How long a call may wait for its turn.
    pub(crate) wait: Duration,
}

impl CallBudgetRules {
    pub(crate) const fn of(config: &Config) -> Self {
        let external = &config.external;
        Self {
            calls: external.calls,
            repos: external.repos,
            uploads: external.uploads,
            account_calls: external.account_calls,
            account_writes: external.account_writes,
            wait: external.wait,
        }
    }
}

/// What a call is counted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::forward) enum CallOwner {
    Did(Did),
    Client(limits::ClientNetwork),
}

impl CallOwner {
    /// Only linked accounts call by their DID. A read from elsewhere is counted for its client.
    pub(super) const fn class(&self) -> CallClass {
        match self {
            Self::Did(_) => CallClass::Linked,
            Self::Client(_) => CallClass::Read,
        }
    }
}

/// Whose call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::forward) enum CallClass {
    Linked,
    Read,
}

/// How a PDS counts a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::forward) enum CallKind {
    Read,
    Write,
    /// `uploadBlob`: counts as a write and against its own limit.
    Upload,
    /// `getRepo`: counts against its own limit only.
    Repo,
}

impl CallKind {
    /// How a PDS counts a call of this weight, made by this verb.
    pub(in crate::forward) fn of(weight: Weight, verb: &Method) -> Self {
        match weight {
            Weight::Upload => Self::Upload,
            Weight::Export => Self::Repo,
            Weight::ByVerb if verb == Method::POST => Self::Write,
            Weight::ByVerb => Self::Read,
        }
    }

    pub(super) const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Upload)
    }

    pub(super) const fn only_reads(self) -> bool {
        matches!(self, Self::Read | Self::Repo)
    }
}

/// The call cannot leave within the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BudgetError {
    pub(super) rate: Rate,
    pub(super) wait: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::table;

    #[test]
    fn methods_are_told_apart_in_any_letter_case() {
        for (method, is_write, kind) in [
            ("com.atproto.repo.uploadBlob", true, CallKind::Upload),
            ("COM.ATPROTO.REPO.UPLOADBLOB", true, CallKind::Upload),
            ("com.atproto.sync.getRepo", false, CallKind::Repo),
            ("com.atproto.repo.createRecord", true, CallKind::Write),
            ("com.atproto.repo.getRecord", false, CallKind::Read),
        ] {
            let verb = if is_write { Method::POST } else { Method::GET };
            assert_eq!(CallKind::of(table::row(method).weight, &verb), kind, "{method}");
        }
    }
}
