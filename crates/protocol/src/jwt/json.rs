//! The JSON that tokens may hold: one object, bounded, without repeated members.
//!
//! RFC 7519 §4 leaves it to the reader whether a repeated claim is refused or the last one counts.
//! Two readers that choose differently see two different tokens under one signature, so a repeated
//! member is refused here.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Error;

/// Checks that the bytes are one JSON object in UTF-8: at most [`MAX_DEPTH`] brackets deep, with
/// [`MAX_MEMBERS`] members at most, none of them twice.
///
/// Members of objects inside it are not compared: the types that read those refuse repeated fields.
pub(super) fn check_object(bytes: &[u8]) -> Result<(), Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::Malformed)?;
    if is_deep(bytes) {
        return Err(Error::Malformed);
    }
    serde_json::from_str::<DistinctMembers>(text).map(drop).map_err(|_| Error::Malformed)
}

/// Reads a member that may be absent but not null.
pub(crate) fn present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

const MAX_DEPTH: usize = 16;
const MAX_MEMBERS: usize = 64;

/// Whether brackets nest further than any token needs. Looks at brackets outside of strings only.
///
/// The JSON reader recurses, so depth is checked before it runs. Broken JSON may be counted
/// wrongly; it is refused right after.
fn is_deep(bytes: &[u8]) -> bool {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in bytes {
        match byte {
            // The byte after a backslash never ends a string, whatever it is.
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// An object in which no member is repeated.
struct DistinctMembers;

impl<'de> Deserialize<'de> for DistinctMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = DistinctMembers;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DistinctMembers, A::Error> {
        let mut names: Vec<Cow<'de, str>> = Vec::with_capacity(8);
        while let Some(Name(name)) = map.next_key()? {
            // The search is linear, which the limit on members keeps short.
            if names.len() == MAX_MEMBERS || names.contains(&name) {
                return Err(A::Error::custom("a member is repeated, or there are too many"));
            }
            names.push(name);
            map.next_value::<IgnoredAny>()?;
        }
        Ok(DistinctMembers)
    }
}

/// A member's name, borrowed where the JSON spells it without escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, name: &'de str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_objects_pass() {
        for good in [r"{}", r#"{"a":1,"b":{"a":1,"a":2}}"#, " {\"[\":\"]{{{{{\\\"\"}\n"] {
            assert_eq!(check_object(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in ["", "null", "[]", "{", r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, "{}{}", r#"{"a":1,}"#]
        {
            assert_eq!(check_object(bad.as_bytes()), Err(Error::Malformed), "{bad}");
        }
        assert_eq!(check_object(b"{\"a\":\"\xff\"}"), Err(Error::Malformed));
    }

    #[test]
    fn depth_and_width_are_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert_eq!(check_object(nested(MAX_DEPTH).as_bytes()), Ok(()));
        assert_eq!(check_object(nested(MAX_DEPTH + 1).as_bytes()), Err(Error::Malformed));
        let wide = |count: usize| {
            let members: Vec<_> = (0..count).map(|number| format!("\"{number}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert_eq!(check_object(wide(MAX_MEMBERS).as_bytes()), Ok(()));
        assert_eq!(check_object(wide(MAX_MEMBERS + 1).as_bytes()), Err(Error::Malformed));
    }
}
