//! Targets of permissions: methods, collections and services.

use std::fmt;
use std::str::FromStr;

use super::ScopeError;
use crate::syntax::{Did, Nsid};

/// Methods or collections by name, or all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Names {
    /// `*`.
    Any,
    /// At least one, sorted, without repetition.
    These(Vec<Nsid>),
}

impl Names {
    /// Reads a list that is not empty. `*` stands for all names, so others beside it are dropped
    /// once they are valid.
    pub(in crate::oauth) fn read<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut any = false;
        let mut names: Vec<Nsid> = Vec::new();
        for text in texts {
            if text == "*" {
                any = true;
            } else {
                // One invalid name makes the whole value invalid. Leaving it out would change what
                // the person approves.
                names.push(text.parse().ok()?);
            }
        }
        if any {
            return Some(Self::Any);
        }
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then_some(Self::These(names))
    }

    /// Whether the name is among these.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(names) => names.binary_search_by(|known| known.as_str().cmp(name)).is_ok(),
        }
    }

    pub(super) fn texts(&self) -> Vec<&str> {
        match self {
            Self::Any => vec!["*"],
            Self::These(names) => names.iter().map(Nsid::as_str).collect(),
        }
    }
}

/// A service: a `did:plc` or `did:web`, `#`, and the id of the service in that DID's document
/// (atproto Permission, "rpc").
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Audience(Box<str>);

impl Audience {
    /// The service as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Audience {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        // Without the fragment, a grant would cover every service of the DID.
        let (did, fragment) = text.split_once('#').ok_or(ScopeError)?;
        let did: Did = did.parse().map_err(|_| ScopeError)?;
        if (did.is_plc() || is_web_of_a_host(&did)) && !fragment.is_empty() && is_fragment(fragment) {
            Ok(Self(text.into()))
        } else {
            Err(ScopeError)
        }
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl fmt::Debug for Audience {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Audience({self})")
    }
}

/// Whether a `did:web` stands for a whole host: atproto does not allow paths (atproto DID, "Blessed
/// DID Methods").
fn is_web_of_a_host(did: &Did) -> bool {
    did.is_web() && !did.identifier().contains(':')
}

/// Whether a text is a URI fragment (RFC 3986 §3.5).
fn is_fragment(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = match first {
            b'%' => match after.split_at_checked(2) {
                Some((digits, after)) if digits.iter().all(u8::is_ascii_hexdigit) => after,
                _ => return false,
            },
            _ if first.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&first) => after,
            _ => return false,
        };
    }
    true
}
