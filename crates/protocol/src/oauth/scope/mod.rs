//! What an app may do: the values of `scope` (atproto Permissions), their grammar, and what they allow.
//!
//! A value parses into a [`Scope`] and prints in its canonical form: defaults dropped, lists sorted, one spelling of
//! everything. [`Scopes`] is a list of them. What an app asks for is compared with what it declared by
//! string equality, see [`undeclared`]; none implies another.

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
    /// `atproto`, which every session has.
    Atproto,
    /// `transition:generic`: what app passwords may.
    TransitionGeneric,
    /// `transition:email`: reading the e-mail address.
    TransitionEmail,
    /// `transition:chat.bsky`: direct messages.
    TransitionChat,
    /// `repo:…`: writing records.
    Repo(Repo),
    /// `rpc:…`: calling services as the account.
    Rpc(Rpc),
    /// `blob:…`: uploading.
    Blob(Blob),
    /// `account:…`: the account's settings at its host.
    Account(Account),
    /// `identity:…`: its DID document and handle.
    Identity(Identity),
    /// `include:…`: what a published permission set says.
    Include(Include),
}

/// A text that is no scope of atproto.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a scope of atproto")]
pub struct ScopeError;

impl Scope {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "atproto" => return Some(Self::Atproto),
            "transition:generic" => return Some(Self::TransitionGeneric),
            "transition:email" => return Some(Self::TransitionEmail),
            "transition:chat.bsky" => return Some(Self::TransitionChat),
            _ => {}
        }
        let syntax = Syntax::parse(text)?;
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
