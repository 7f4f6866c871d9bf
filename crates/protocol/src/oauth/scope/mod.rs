//! Scopes, the permissions of apps: their grammar and what they allow (atproto Permission).
//!
//! A value parses into a [`Scope`] and prints in its canonical form: defaults dropped, lists
//! sorted, one spelling of everything. [`Scopes`] is a list of them. The scopes that an app
//! requests are compared with those that it declared byte by byte, see [`undeclared`]; no scope
//! implies another.
//!
//! ```
//! use genkan_protocol::oauth::scope::{RepoAction, Scope, Scopes};
//!
//! let scope: Scope = "repo?collection=com.example.note&action=update&action=create".parse()?;
//! assert_eq!(scope.to_string(), "repo:com.example.note?action=create&action=update");
//!
//! let scopes = Scopes::parse("atproto repo:com.example.note not-a-scope");
//! assert!(scopes.allows_repo(RepoAction::Delete, "com.example.note"));
//! assert!(!scopes.allows_repo(RepoAction::Create, "com.example.list"));
//! # Ok::<(), genkan_protocol::oauth::scope::ScopeError>(())
//! ```

mod permission;
mod scopes;
mod syntax;
mod target;

use std::fmt;
use std::str::FromStr;

pub use permission::{
    Account, AccountAction, AccountAttribute, Blob, Identity, Include, Repo, RepoAction, Rpc,
};
pub use scopes::{Scopes, undeclared};
use syntax::Syntax;
pub use target::{Audience, Names};

/// One value of `scope`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `atproto`, which every session must have.
    Atproto,
    /// `transition:generic`: the permissions of an app password.
    TransitionGeneric,
    /// `transition:email`: reading the e-mail address.
    TransitionEmail,
    /// `transition:chat.bsky`: direct messages.
    TransitionChat,
    /// `repo:…`: writing records.
    Repo(Repo),
    /// `rpc:…`: calling services as the account.
    Rpc(Rpc),
    /// `blob:…`: uploading files.
    Blob(Blob),
    /// `account:…`: the account's settings at its host.
    Account(Account),
    /// `identity:…`: its DID document and handle.
    Identity(Identity),
    /// `include:…`: the permissions of a published set.
    Include(Include),
}

/// A text that is not a scope of atproto.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a scope of atproto")]
pub struct ScopeError;

impl Scope {
    fn parse(text: &str) -> Option<Self> {
        // These have no grammar: `transition:generic?x=y` is not a scope.
        match text {
            "atproto" => return Some(Self::Atproto),
            "transition:generic" => return Some(Self::TransitionGeneric),
            "transition:email" => return Some(Self::TransitionEmail),
            "transition:chat.bsky" => return Some(Self::TransitionChat),
            _ => {}
        }
        let syntax = Syntax::parse(text)?;
        // An unknown name is not an error of the app: a newer version of the protocol may define
        // it. The caller leaves the value out.
        match syntax.name {
            "repo" => Repo::read(&syntax).map(Self::Repo),
            "rpc" => Rpc::read(&syntax).map(Self::Rpc),
            "blob" => Blob::read(&syntax).map(Self::Blob),
            "account" => Account::read(&syntax).map(Self::Account),
            "identity" => Identity::read(&syntax).map(Self::Identity),
            "include" => Include::read(&syntax).map(Self::Include),
            _ => None,
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        Self::parse(text).ok_or(ScopeError)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Atproto => formatter.write_str("atproto"),
            Self::TransitionGeneric => formatter.write_str("transition:generic"),
            Self::TransitionEmail => formatter.write_str("transition:email"),
            Self::TransitionChat => formatter.write_str("transition:chat.bsky"),
            Self::Repo(repo) => formatter.write_str(&repo.write()),
            Self::Rpc(rpc) => formatter.write_str(&rpc.write()),
            Self::Blob(blob) => formatter.write_str(&blob.write()),
            Self::Account(account) => formatter.write_str(&account.write()),
            Self::Identity(identity) => formatter.write_str(&identity.write()),
            Self::Include(include) => formatter.write_str(&include.write()),
        }
    }
}
