//! Handles: domain names that stand for accounts (atproto Handle, "Handle Identifier Syntax").

use super::{Error, newtype::identifier};

/// A handle in lower case, 253 bytes at most: two or more labels of 1 to 63 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(Box<str>);

identifier!(Handle);

impl Handle {
    /// The placeholder for a handle that does not resolve to its account (atproto Handle, "Usage
    /// and Implementation Guidelines").
    pub const INVALID: &'static str = "handle.invalid";

    /// Checks a text, in either case, without making a [`Handle`] of it.
    pub fn check(text: &str) -> Result<(), Error> {
        if text.len() > MAX_LENGTH {
            return refuse("it is longer than 253 characters");
        }
        let mut labels = 0;
        let mut last = "";
        for label in text.split('.') {
            // An empty text has one empty label, so it fails here and needs no check of its own.
            check_label(label)?;
            labels += 1;
            last = label;
        }
        if labels < 2 {
            return refuse("it needs at least two parts with a dot between");
        }
        // A numeric last label would make `127.0.0.1` a handle.
        if !last.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return refuse("its last part must start with a letter");
        }
        Ok(())
    }

    /// Whether this is a name under `domain`, which may be written with its leading dot or without.
    pub fn is_under(&self, domain: &str) -> bool {
        self.name_under(domain).is_some()
    }

    /// The labels before `domain`, if this is a name under it.
    pub fn name_under(&self, domain: &str) -> Option<&str> {
        let domain = domain.strip_prefix('.').unwrap_or(domain);
        // A domain that is longer than the handle fails here: the handle cannot be under it.
        let (rest, end) = self.0.split_at_checked(self.0.len().checked_sub(domain.len())?)?;
        if domain.is_empty() || !end.eq_ignore_ascii_case(domain) {
            return None;
        }
        // Without the dot, `evilexample.com` would count as a name under `example.com`.
        rest.strip_suffix('.').filter(|name| !name.is_empty())
    }

    /// The label before the first dot.
    pub fn first_label(&self) -> &str {
        self.0.split_once('.').map_or(&self.0, |(first, _)| first)
    }

    /// The top-level domain, without its dot.
    pub fn tld(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(_, last)| last)
    }

    /// Whether the top-level domain cannot exist on the public internet, so that no account may
    /// have the handle (atproto Handle, "Additional Restrictions"). `.test` does not count: see
    /// [`Handle::is_test`].
    pub fn has_disallowed_tld(&self) -> bool {
        DISALLOWED_TLDS.contains(&self.tld())
    }

    /// Whether the handle ends in `.test`, the top-level domain for development (RFC 6761 §6.2).
    pub fn is_test(&self) -> bool {
        self.tld() == "test"
    }

    fn normal(mut text: String) -> Box<str> {
        // DNS names have no case. Equal handles must be equal bytes, also as keys of tables.
        text.make_ascii_lowercase();
        text.into_boxed_str()
    }
}

const MAX_LENGTH: usize = 253;

const DISALLOWED_TLDS: [&str; 8] =
    ["alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion"];

fn check_label(label: &str) -> Result<(), Error> {
    if label.is_empty() {
        return refuse("its parts cannot be empty");
    }
    // DNS stores the length of a label in six bits (RFC 1035 §3.1).
    if label.len() > 63 {
        return refuse("its parts can have 63 characters at most");
    }
    if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return refuse("only letters, digits, dashes and dots may be used");
    }
    if label.starts_with('-') || label.ends_with('-') {
        return refuse("its parts cannot start or end with a dash");
    }
    Ok(())
}

fn refuse(reason: &'static str) -> Result<(), Error> {
    Err(Error { kind: "handle", reason })
}
