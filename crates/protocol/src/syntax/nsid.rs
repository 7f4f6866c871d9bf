//! Namespaced identifiers: the names of methods and record types (atproto NSID, "NSID Syntax").

use super::{Error, newtype::identifier};

/// The name of a method or record type, such as `com.atproto.server.createSession`; 317 bytes at
/// most.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nsid(Box<str>);

identifier!(Nsid);

impl Nsid {
    /// Checks a text without making an [`Nsid`] of it. Allocates nothing: the edge calls this for
    /// every request.
    pub fn check(text: &str) -> Result<(), Error> {
        if text.len() > MAX_LENGTH {
            return refuse("it is longer than 317 characters");
        }
        let mut segments = 0;
        let mut last: &[u8] = &[];
        // Bytes and not characters: this runs for every request, and a search for characters costs
        // several times as much.
        for segment in text.as_bytes().split(|&byte| byte == b'.') {
            check_segment(segment)?;
            // Only the first and the last segment need a letter at the start: those between may
            // begin with a digit, as domain labels do.
            if segments == 0 && !starts_with_letter(segment) {
                return refuse("its first part must start with a letter");
            }
            segments += 1;
            last = segment;
        }
        if segments < 3 {
            return refuse("it needs at least three parts with dots between");
        }
        if !starts_with_letter(last) || last.contains(&b'-') {
            return refuse("its last part must be letters and digits and start with a letter");
        }
        Ok(())
    }

    /// The last segment, such as `createSession`.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(_, name)| name)
    }

    fn normal(text: String) -> Box<str> {
        text.into_boxed_str()
    }
}

// A domain name of 253 characters, a dot, and a name of 63.
const MAX_LENGTH: usize = 253 + 1 + 63;

fn check_segment(segment: &[u8]) -> Result<(), Error> {
    if segment.is_empty() {
        return refuse("its parts cannot be empty");
    }
    if segment.len() > 63 {
        return refuse("its parts can have 63 characters at most");
    }
    if !segment.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') {
        return refuse("only letters, digits, dashes and dots may be used");
    }
    if segment.starts_with(b"-") || segment.ends_with(b"-") {
        return refuse("its parts cannot start or end with a dash");
    }
    Ok(())
}

fn starts_with_letter(segment: &[u8]) -> bool {
    segment.first().is_some_and(u8::is_ascii_alphabetic)
}

fn refuse(reason: &'static str) -> Result<(), Error> {
    Err(Error { kind: "NSID", reason })
}
