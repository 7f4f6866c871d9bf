//! Lists of scopes, and what they allow together.

use std::collections::HashSet;
use std::fmt;

use super::{AccountAction, AccountAttribute, Audience, Identity, Include, Repo, RepoAction, Rpc, Scope};

/// The scopes of a request or a session, each with the text by which it was requested.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Scopes(Vec<(Box<str>, Scope)>);

/// The first value of `requested` that is not in `declared`, compared byte by byte.
///
/// `repo:*` does not declare `repo:com.example.note`.
pub fn undeclared<'a>(requested: &'a str, declared: &str) -> Option<&'a str> {
    // Metadata can have many scopes and comes from outside. A set keeps this linear.
    let declared: HashSet<&str> = declared.split(' ').collect();
    requested.split(' ').find(|value| !value.is_empty() && !declared.contains(value))
}

impl Scopes {
    /// Reads a list separated by spaces (RFC 6749 §3.3). Unknown, invalid and repeated values are
    /// left out.
    pub fn parse(text: &str) -> Self {
        let mut seen = HashSet::new();
        let distinct = text.split(' ').filter(|value| seen.insert(*value));
        Self(distinct.filter_map(|value| Some((value.into(), value.parse().ok()?))).collect())
    }

    /// Each value as it was requested.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(text, _)| &**text)
    }

    /// Each value as it was requested, and its meaning.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Scope)> {
        self.0.iter().map(|(text, scope)| (&**text, scope))
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this text is one of the values, byte by byte.
    pub fn contains(&self, text: &str) -> bool {
        self.texts().any(|known| known == text)
    }

    /// Whether the other list has every value of this one, byte by byte.
    pub fn is_within(&self, other: &Self) -> bool {
        let others: HashSet<&str> = other.texts().collect();
        self.texts().all(|text| others.contains(text))
    }

    /// The values that the other list has as well, byte by byte.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let others: HashSet<&str> = other.texts().collect();
        Self(self.0.iter().filter(|(text, _)| others.contains(&**text)).cloned().collect())
    }

    /// The permission sets that the list includes.
    pub fn includes(&self) -> impl Iterator<Item = &Include> {
        self.0.iter().filter_map(|(_, scope)| match scope {
            Scope::Include(include) => Some(include),
            _ => None,
        })
    }

    /// The list with each `include:` replaced by the scopes that `expand` returns for it.
    #[must_use]
    pub fn expanded(&self, mut expand: impl FnMut(&Include) -> Vec<Scope>) -> Self {
        let mut seen = HashSet::new();
        let mut values = Vec::with_capacity(self.0.len());
        for (text, scope) in &self.0 {
            // Two sets may grant the same permission, so repetitions are left out across all of
            // them.
            let new = match scope {
                Scope::Include(include) => {
                    expand(include).into_iter().map(|scope| (scope.to_string().into(), scope)).collect()
                }
                _ => vec![(text.clone(), scope.clone())],
            };
            values.extend(new.into_iter().filter(|(text, _): &(Box<str>, _)| seen.insert(text.clone())));
        }
        Self(values)
    }

    /// Whether the list allows everything that this scope allows, however it is spelled.
    pub fn covers(&self, scope: &Scope) -> bool {
        // Equal scopes have equal values, whatever their spelling. The rest needs a comparison by
        // meaning.
        self.any(|own| own == scope)
            || match scope {
                Scope::Repo(Repo { collections, actions }) => collections
                    .texts()
                    .iter()
                    .all(|collection| actions.iter().all(|action| self.allows_repo(*action, collection))),
                Scope::Rpc(Rpc { methods, audience }) => {
                    // "*" equals no service, so that only a scope for any service covers it.
                    let audience = audience.as_ref().map_or("*", Audience::as_str);
                    methods.texts().iter().all(|method| self.allows_rpc(method, audience))
                }
                _ => false,
            }
    }

    /// Whether this action on a record of the collection is allowed.
    pub fn allows_repo(&self, action: RepoAction, collection: &str) -> bool {
        self.any(|scope| match scope {
            Scope::TransitionGeneric => true,
            Scope::Repo(repo) => repo.actions.contains(&action) && repo.collections.contains(collection),
            _ => false,
        })
    }

    /// Whether the method `lxm` of the service `aud` (`did#id`) may be called. A `lxm` of `*` asks
    /// for all methods.
    pub fn allows_rpc(&self, lxm: &str, aud: &str) -> bool {
        // Direct messages were left out of `transition:generic` on purpose (atproto OAuth,
        // "Scopes").
        let is_chat = lxm.starts_with("chat.bsky.");
        self.any(|scope| match scope {
            Scope::TransitionGeneric => !is_chat,
            Scope::TransitionChat => is_chat,
            Scope::Rpc(rpc) => {
                rpc.audience.as_ref().is_none_or(|service| service.as_str() == aud)
                    && rpc.methods.contains(lxm)
            }
            _ => false,
        })
    }

    /// Whether a file of this media type may be uploaded.
    pub fn allows_blob(&self, mime: &str) -> bool {
        self.any(|scope| match scope {
            Scope::TransitionGeneric => true,
            Scope::Blob(blob) => blob.includes(mime),
            _ => false,
        })
    }

    /// Whether this action on a setting of the account is allowed.
    pub fn allows_account(&self, attribute: AccountAttribute, action: AccountAction) -> bool {
        self.any(|scope| match scope {
            Scope::TransitionEmail => attribute == AccountAttribute::Email && action == AccountAction::Read,
            Scope::Account(account) => account.attribute == attribute && account.action >= action,
            _ => false,
        })
    }

    /// Whether the handle, or the whole DID document, may be changed.
    pub fn allows_identity(&self, attribute: Identity) -> bool {
        self.any(|scope| match scope {
            Scope::Identity(identity) => *identity == Identity::Any || *identity == attribute,
            _ => false,
        })
    }

    fn any(&self, allows: impl Fn(&Scope) -> bool) -> bool {
        self.0.iter().any(|(_, scope)| allows(scope))
    }
}

impl FromIterator<Scope> for Scopes {
    /// Collects scopes under their canonical texts; repeated ones are left out.
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let mut seen = HashSet::new();
        let named = scopes.into_iter().map(|scope| (scope.to_string().into_boxed_str(), scope));
        Self(named.filter(|(text, _)| seen.insert(text.clone())).collect())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, text) in self.texts().enumerate() {
            if number > 0 {
                formatter.write_str(" ")?;
            }
            formatter.write_str(text)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Scopes({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_covers_what_it_allows_in_other_words() {
        let covers = |list: &str, value: &str| Scopes::parse(list).covers(&value.parse().unwrap());
        for (list, value) in [
            ("repo:a.b.c repo:a.b.d", "repo?collection=a.b.c&collection=a.b.d"),
            ("repo:*", "repo:a.b.c?action=create"),
            ("repo:a.b.c?action=create repo:a.b.c?action=update repo:a.b.c?action=delete", "repo:a.b.c"),
            ("rpc:a.b.c?aud=*", "rpc:a.b.c?aud=did:web:x.example%23y"),
            ("transition:generic", "repo:*"),
            ("blob:*/*", "blob:*/*"),
        ] {
            assert!(covers(list, value), "{list}: {value}");
        }
        for (list, value) in [
            ("repo:a.b.c", "repo?collection=a.b.c&collection=a.b.d"),
            ("repo:a.b.c", "repo:*"),
            ("repo:a.b.c?action=create", "repo:a.b.c"),
            ("rpc:a.b.c?aud=did:web:x.example%23y", "rpc:a.b.c?aud=*"),
            ("rpc:a.b.c?aud=*", "rpc:a.b.d?aud=*"),
            ("atproto", "blob:*/*"),
        ] {
            assert!(!covers(list, value), "{list}: {value}");
        }
    }
}
