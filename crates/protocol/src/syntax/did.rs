//! Decentralized identifiers (atproto DID, "DID Syntax").

use super::{Error, Handle, newtype::identifier};

/// A DID of any method, 2048 bytes at most, without fragment, path or query.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Did(Box<str>);

identifier!(Did);

impl Did {
    /// Checks a text without making a [`Did`] of it.
    pub fn check(text: &str) -> Result<(), Error> {
        // The length is compared first, so that the loops below run over a bounded text.
        if text.len() > MAX_LENGTH {
            return refuse("it is longer than 2048 characters");
        }
        let Some(rest) = text.strip_prefix("did:") else {
            return refuse("it must start with \"did:\"");
        };
        let Some((method, identifier)) = rest.split_once(':') else {
            return refuse("it needs a method and an identifier");
        };
        // The W3C's grammar also allows digits in a method. atproto does not.
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return refuse("the method must be lower-case letters");
        }
        if !identifier.bytes().all(is_allowed) {
            return refuse("only letters, digits and . _ : % - may be used");
        }
        match identifier.bytes().last() {
            None => refuse("the identifier is empty"),
            // An ending `:` would leave an empty last part, and an ending `%` a cut
            // percent-encoding.
            Some(b':' | b'%') => refuse("it cannot end with \":\" or \"%\""),
            Some(_) => Ok(()),
        }
    }

    /// The method, such as `plc` or `web`.
    pub fn method(&self) -> &str {
        self.parts().0
    }

    /// The part after the method and its colon; percent-encoding is kept.
    pub fn identifier(&self) -> &str {
        self.parts().1
    }

    /// Whether this is a `did:plc` as the directory makes them: 24 characters of base32 (did:plc,
    /// "Identifier Syntax").
    pub fn is_plc(&self) -> bool {
        is_plc(self.parts())
    }

    /// Whether a text is a DID that an account can have: a `did:plc` of the directory's form, or a
    /// `did:web` of a whole host, without port or path (atproto DID, "Blessed DID Methods").
    ///
    /// Makes no [`Did`], so that it can look at every request.
    pub fn is_of_account(text: &str) -> bool {
        match parts(text) {
            ("web", host) => Handle::check(host).is_ok(),
            plc => is_plc(plc),
        }
    }

    /// Whether the method is `web`. Only the resolver checks that the identifier names a host.
    pub fn is_web(&self) -> bool {
        self.method() == "web"
    }

    fn parts(&self) -> (&str, &str) {
        parts(&self.0)
    }

    fn normal(text: String) -> Box<str> {
        // DIDs are compared byte by byte, so the text is kept in its own case.
        text.into_boxed_str()
    }
}

const MAX_LENGTH: usize = 2048;

/// Method and identifier; both empty when the text is no DID.
fn parts(text: &str) -> (&str, &str) {
    text.strip_prefix("did:").and_then(|rest| rest.split_once(':')).unwrap_or_default()
}

fn is_plc((method, identifier): (&str, &str)) -> bool {
    method == "plc"
        && identifier.len() == 24
        // Base32 of RFC 4648 in lower case has no 0, 1, 8 or 9.
        && identifier.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'%' | b'-')
}

fn refuse(reason: &'static str) -> Result<(), Error> {
    Err(Error { kind: "DID", reason })
}
