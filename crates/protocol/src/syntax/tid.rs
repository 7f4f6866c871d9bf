//! Timestamp identifiers: record keys and revisions that sort by time (atproto Record Key, "Record
//! Key Type: tid").

use super::{Error, newtype::identifier};

/// A timestamp identifier, 13 characters of sortable base32.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(Box<str>);

identifier!(Tid);

impl Tid {
    /// Checks a text without making a [`Tid`] of it.
    pub fn check(text: &str) -> Result<(), Error> {
        if text.len() != 13 {
            return refuse("it must have 13 characters");
        }
        if !text.bytes().all(|byte| matches!(byte, b'2'..=b'7' | b'a'..=b'z')) {
            return refuse("only 2 to 7 and lower-case letters may be used");
        }
        // The top bit of the 65 that 13 characters hold is always zero.
        if !text.starts_with(|first| matches!(first, '2'..='7' | 'a'..='j')) {
            return refuse("its first character must be 2 to 7 or a to j");
        }
        Ok(())
    }

    fn normal(text: String) -> Box<str> {
        text.into_boxed_str()
    }
}

fn refuse(reason: &'static str) -> Result<(), Error> {
    Err(Error { kind: "TID", reason })
}
