//! E-mail addresses: which ones are accepted, and when two are equal.

use std::fmt;
use std::str::FromStr;

/// An address that mail can be sent to. It prints as `[sealed]`, because addresses do not belong in
/// a log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Email {
    typed: String,
    key: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an e-mail address")]
pub(crate) struct EmailError;

impl Email {
    /// The address as its owner typed it.
    pub(crate) fn as_typed(&self) -> &str {
        &self.typed
    }

    /// The address in lower case. Two addresses with the same key belong to the same account.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn domain(&self) -> &str {
        self.key.rsplit_once('@').map_or("", |(_, domain)| domain)
    }

    /// Whether the domain, or one above it, is in `domains` (lower case).
    pub(crate) fn is_under(&self, domains: &std::collections::HashSet<String>) -> bool {
        let mut rest = self.domain();
        loop {
            if domains.contains(rest) {
                return true;
            }
            match rest.split_once('.') {
                Some((_, above)) => rest = above,
                None => return false,
            }
        }
    }
}

impl FromStr for Email {
    type Err = EmailError;

    /// The common part of RFC 5321 §4.1.2: a dot-atom, `@`, and a domain name of two labels or
    /// more.
    fn from_str(text: &str) -> Result<Self, EmailError> {
        let typed = text.trim_matches(' ');
        // A second `@` ends up in the domain, which cannot have one.
        let (local, domain) = typed.split_once('@').ok_or(EmailError)?;
        let fine = typed.len() <= 254 && is_dot_atom(local) && is_domain(domain);
        if !fine {
            return Err(EmailError);
        }
        // Mail is sent to the address as it was typed, because a server may tell cases apart. Two
        // accounts may not differ in case only.
        Ok(Self { typed: typed.to_owned(), key: typed.to_lowercase() })
    }
}

fn is_dot_atom(local: &str) -> bool {
    let is_atom_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&byte);
    !local.is_empty()
        // RFC 5321 §4.5.3.1.1 limits the local part to 64 bytes.
        && local.len() <= 64
        && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom_char))
}

fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let top_is_a_name =
        // An IPv4 address would otherwise be a domain.
        domain.rsplit('.').next().is_some_and(|top| !top.bytes().all(|byte| byte.is_ascii_digit()));
    domain.contains('.') && top_is_a_name && domain.split('.').all(is_label)
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealed]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_addresses_that_mail_can_reach() {
        for text in ["a@b.co", "First.Last+tag@Example.COM", "x_y-z@mail.example.museum", "o'neil@example.ie"]
        {
            assert!(text.parse::<Email>().is_ok(), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "@",
            "a@",
            "@b.co",
            "a@b",
            "a b@c.de",
            "a@b@c.de",
            "a@b..co",
            ".a@b.co",
            "a.@b.co",
            "a@-b.co",
            "a@b.co\r\nBcc: x@y.z",
            "a@b.co,c@d.ef",
            "a@127.0.0.1",
            "a@[127.0.0.1]",
            "\"a\"@b.co",
            "ä@b.co",
            "a@b.c_o",
        ] {
            assert!(text.parse::<Email>().is_err(), "{text:?}");
        }
        assert!(format!("{}@b.co", "a".repeat(65)).parse::<Email>().is_err());
    }

    #[test]
    fn two_spellings_are_one_address() {
        let (one, other): (Email, Email) =
            ("Ann@Example.com".parse().unwrap(), "ann@example.COM".parse().unwrap());
        assert_eq!(one.key(), other.key());
        assert_eq!(one.as_typed(), "Ann@Example.com");
        assert_eq!(format!("{one:?}"), "[sealed]");
    }

    #[test]
    fn blocked_domains_and_their_subdomains_are_recognised() {
        let blocked = std::collections::HashSet::from(["throwaway.example".to_owned()]);
        let is = |text: &str| text.parse::<Email>().unwrap().is_under(&blocked);
        assert!(is("a@throwaway.example") && is("a@mx.Throwaway.example"));
        assert!(!is("a@notthrowaway.example") && !is("a@example.org"));
    }
}
