//! The four meanings of a scope string, a type for each.
//!
//! A [`RequestedScope`] is what a client requests, an [`ApprovedScope`] the part of it that the
//! account allowed, an [`ExpandedScope`] the approved scope with permission sets replaced by their
//! contents, and a [`TokenScope`] what is written into a token. Each is made from the one before
//! it, or read back from where it was stored.

use std::fmt;
use std::sync::Arc;

use genkan_protocol::oauth::access_token;
use genkan_protocol::oauth::scope::{Include, Scope, Scopes};
use serde::{Deserialize, Serialize};

use crate::base::Weigh;

/// What a client requests: each known value once, separated by single spaces, with permission sets
/// by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RequestedScope(String);

impl RequestedScope {
    /// Reads the scope of a pushed request. Unknown and repeated values are left out.
    pub(super) fn of_request(parameter: &str) -> Self {
        let mut values: Vec<&str> = Vec::new();
        for value in parameter.split(' ').filter(|value| !value.is_empty()) {
            // Unknown values are dropped and not refused: an app may ask for what a newer server
            // knows (RFC 6749 §3.3).
            if !values.contains(&value) && value.parse::<Scope>().is_ok() {
                values.push(value);
            }
        }
        Self(values.join(" "))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.split(' ')
    }

    /// Returns the part that an account allows.
    pub(super) fn approve(&self, allows: impl Fn(&str) -> bool) -> ApprovedScope {
        ApprovedScope(self.values().filter(|value| allows(value)).collect::<Vec<_>>().join(" "))
    }
}

/// What an account allows a client. Permission sets stay as names, so that a new version of a set
/// takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApprovedScope(String);

impl ApprovedScope {
    /// A scope of values that an external authorization server granted.
    pub(super) fn of_values(values: &[String]) -> Self {
        Self(values.join(" "))
    }

    /// A scope as a row has it.
    pub(super) const fn stored(column: String) -> Self {
        Self(column)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.split(' ')
    }

    /// Whether `atproto` is present. Without it no tokens are issued.
    pub(super) fn has_atproto(&self) -> bool {
        self.values().any(|value| value == "atproto")
    }

    /// Replaces each permission set by the values that `expand` returns for it.
    pub(super) fn expanded(&self, expand: impl FnMut(&Include) -> Vec<Scope>) -> ExpandedScope {
        ExpandedScope(Scopes::parse(&self.0).expanded(expand).to_string().into())
    }
}

/// What a token allows, with permission sets replaced by their contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExpandedScope(Arc<str>);

impl ExpandedScope {
    /// A scope as a row has it.
    pub(super) fn stored(column: String) -> Self {
        Self(column.into())
    }

    /// A scope that an external authorization server granted. Servers answer with the contents of a
    /// permission set and not with its name.
    pub(crate) fn granted_externally(scope: String) -> Self {
        Self(scope.into())
    }

    #[cfg(test)]
    pub(crate) fn for_tests(scope: &str) -> Self {
        Self(scope.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The `scope` claim: the scope itself, or a reference if that would be too long.
    pub(super) fn written(&self) -> TokenScope {
        // Proxies in front of a host often limit all headers to 8 KiB, and the token is one of
        // them.
        if self.0.len() > LONGEST {
            TokenScope(access_token::scope_reference(&self.0).into())
        } else {
            TokenScope(Arc::clone(&self.0))
        }
    }
}

/// The `scope` claim of a token: an expanded scope, or a reference to one (`ref:` and a hash).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenScope(Arc<str>);

impl TokenScope {
    /// The claim of a verified token.
    pub(super) fn of_claim(claim: &str) -> Self {
        Self(claim.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_reference(&self) -> bool {
        self.0.starts_with("ref:")
    }

    /// The scope in the token itself. `None` if the token has a reference.
    pub(super) fn inline(&self) -> Option<ExpandedScope> {
        (!self.is_reference()).then(|| ExpandedScope(Arc::clone(&self.0)))
    }
}

impl Weigh for ExpandedScope {
    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

impl Weigh for TokenScope {
    /// A scope that stands in the token itself is shared with the expanded one and counts there.
    fn heap_bytes(&self) -> usize {
        if self.is_reference() { self.0.heap_bytes() } else { 0 }
    }
}

impl fmt::Display for ApprovedScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ExpandedScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The most bytes of a scope that a token contains.
const LONGEST: usize = 3 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_goes_from_the_request_into_the_token() {
        let requested =
            RequestedScope::of_request("atproto  include:org.example.set nonsense atproto blob:*/*");
        assert_eq!(requested.as_str(), "atproto include:org.example.set blob:*/*");
        let approved = requested.approve(|value| value != "blob:*/*");
        assert_eq!(approved.as_str(), "atproto include:org.example.set");
        assert!(approved.has_atproto() && !requested.approve(|value| value != "atproto").has_atproto());
        let expanded = approved.expanded(|_| vec!["repo:org.example.note".parse().unwrap()]);
        assert_eq!(expanded.as_str(), "atproto repo:org.example.note");
        assert_eq!(expanded.written().inline(), Some(expanded));
    }

    #[test]
    fn a_long_scope_is_written_as_a_reference() {
        let long = ExpandedScope::stored("x".repeat(LONGEST + 1));
        assert!(long.written().is_reference() && long.written().inline().is_none());
        assert!(!ExpandedScope::stored("x".repeat(LONGEST)).written().is_reference());
    }
}
