//! DAG-CBOR (RFC 8949 §4.2; atproto Data Model), read strictly.
//!
//! Each value has exactly one spelling, so that writing gives back the bytes that were read.
//! Signatures rely on it: the reader of a commit takes it apart, drops the signature, writes it
//! again and verifies those bytes.

use super::Cid;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Bytes(Vec<u8>),
    Text(String),
    List(Vec<Self>),
    /// Sorted by the length of the name, then by its bytes; no name twice.
    Map(Vec<(String, Self)>),
    Link(Cid),
}

impl Value {
    /// Reads a block that holds one value and nothing else. `None`: malformed, not canonical, more
    /// than [`MAX_DEPTH`] levels deep, or of more than [`MAX_VALUES`] values.
    pub(crate) fn read(block: &[u8]) -> Option<Self> {
        let (mut rest, mut left) = (block, MAX_VALUES);
        let value = read(&mut rest, MAX_DEPTH, &mut left)?;
        rest.is_empty().then_some(value)
    }

    /// A text.
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// A list of texts.
    pub(crate) fn texts(texts: &[String]) -> Self {
        Self::List(texts.iter().map(|text| Self::text(text)).collect())
    }

    /// A map of members in any order, whose names are distinct.
    pub(crate) fn map(members: Vec<(&str, Self)>) -> Self {
        let mut members: Vec<(String, Self)> =
            members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        // The order of DAG-CBOR: shorter names first, equal lengths by their bytes.
        members.sort_by(|(one, _), (other, _)| (one.len(), one).cmp(&(other.len(), other)));
        Self::Map(members)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        self.write(&mut bytes);
        bytes
    }

    /// A member of a map.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(members) => members.iter().find(|(known, _)| known == name).map(|(_, value)| value),
            _ => None,
        }
    }

    pub(crate) fn as_link(&self) -> Option<Cid> {
        match self {
            Self::Link(cid) => Some(*cid),
            _ => None,
        }
    }

    /// The data model in JSON: links and bytes as `$link` and `$bytes` (atproto Data Model).
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::json;
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => json!(value),
            Self::Int(value) => json!(value),
            Self::Float(value) => json!(value),
            Self::Bytes(bytes) => json!({ "$bytes": data_encoding::BASE64_NOPAD.encode(bytes) }),
            Self::Text(text) => json!(text),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Map(members) => {
                members.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
            }
            Self::Link(cid) => json!({ "$link": cid.to_string() }),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(0xf6),
            Self::Bool(value) => out.push(if *value { 0xf5 } else { 0xf4 }),
            // Major type 1 holds -1 - n (RFC 8949 §3.1), which is the complement of n in two's
            // complement.
            Self::Int(value) if *value < 0 => write_head(1, (!value).unsigned_abs(), out),
            Self::Int(value) => write_head(0, value.unsigned_abs(), out),
            Self::Float(value) => {
                out.push(0xfb);
                out.extend(value.to_be_bytes());
            }
            Self::Bytes(bytes) => {
                write_head(2, bytes.len() as u64, out);
                out.extend(bytes);
            }
            Self::Text(text) => write_text(text, out),
            Self::List(items) => {
                write_head(4, items.len() as u64, out);
                for item in items {
                    item.write(out);
                }
            }
            Self::Map(members) => {
                write_head(5, members.len() as u64, out);
                for (name, value) in members {
                    write_text(name, out);
                    value.write(out);
                }
            }
            Self::Link(cid) => {
                // Tag 42, a byte string of 37, and the zero byte that stands before a binary CID.
                out.extend([0xd8, 42, 0x58, 37, 0]);
                out.extend(cid.to_bytes());
            }
        }
    }
}

/// How deep values may nest. The reader recurses, so this bounds its stack.
const MAX_DEPTH: usize = 32;

/// How many values a block may have. A value of one byte takes some fifty in memory.
const MAX_VALUES: usize = 16_384;

fn write_text(text: &str, out: &mut Vec<u8>) {
    write_head(3, text.len() as u64, out);
    out.extend(text.as_bytes());
}

/// The major type and its number, in the fewest bytes.
fn write_head(major: u8, number: u64, out: &mut Vec<u8>) {
    let bytes = number.to_be_bytes();
    // DAG-CBOR has only the shortest form of a number (RFC 8949 §4.2.1). `skip` drops the leading
    // zero bytes.
    let (size, skip) = match number {
        0..24 => {
            out.push((major << 5) | bytes[7]);
            return;
        }
        24..0x100 => (24, 7),
        0x100..0x1_0000 => (25, 6),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 0),
    };
    out.push((major << 5) | size);
    out.extend(bytes.iter().skip(skip));
}

/// Reads a value of at most `depth` levels. `left` is how many values may follow.
fn read(rest: &mut &[u8], depth: usize, left: &mut usize) -> Option<Value> {
    // Checked before anything is read, so that deeply nested lists cannot exhaust the stack, nor
    // long ones the memory.
    let depth = depth.checked_sub(1)?;
    *left = left.checked_sub(1)?;
    let first = *rest.first()?;
    // Major type 7 has only these four: in the others the lower five bits are a number, here they
    // are the value.
    match first {
        0xf4..=0xf6 => {
            take(rest, 1)?;
            return Some(match first {
                0xf4 => Value::Bool(false),
                0xf5 => Value::Bool(true),
                _ => Value::Null,
            });
        }
        0xfb => {
            let bytes = take(rest, 9)?.get(1..)?;
            let float = f64::from_be_bytes(bytes.try_into().ok()?);
            // Infinities and NaN have no JSON form; DAG-CBOR forbids them.
            return float.is_finite().then_some(Value::Float(float));
        }
        _ => {}
    }
    let (major, number) = read_head(rest)?;
    let length = usize::try_from(number).ok()?;
    match major {
        // CBOR's integers reach from -2^64 to 2^64 - 1. The data model has those that fit into 64
        // bits with a sign.
        0 => i64::try_from(number).ok().map(Value::Int),
        1 => i64::try_from(number).ok().map(|number| Value::Int(!number)),
        2 => Some(Value::Bytes(take(rest, length)?.to_vec())),
        3 => read_text(rest, length).map(Value::Text),
        // Nothing is allocated by the announced length. Each item takes at least one byte, so a
        // false length ends where the block does.
        4 => (0..length).map(|_| read(rest, depth, left)).collect::<Option<_>>().map(Value::List),
        5 => read_map(rest, length, depth, left),
        // A link: the zero byte is the multibase prefix of a binary CID. Other tags are forbidden.
        6 if number == 42 => {
            let (major, length) = read_head(rest)?;
            let bytes = take(rest, usize::try_from(length).ok()?)?;
            (major == 2).then(|| Cid::from_bytes(bytes.strip_prefix(&[0])?)).flatten().map(Value::Link)
        }
        _ => None,
    }
}

fn read_map(rest: &mut &[u8], length: usize, depth: usize, left: &mut usize) -> Option<Value> {
    let mut members: Vec<(String, Value)> = Vec::new();
    for _ in 0..length {
        let (major, length) = read_head(rest)?;
        // The data model allows only text as keys.
        if major != 3 {
            return None;
        }
        let name = read_text(rest, usize::try_from(length).ok()?)?;
        // Sorted and distinct in one comparison with the key before.
        let in_order = members.last().is_none_or(|(last, _)| (last.len(), last) < (name.len(), &name));
        if !in_order {
            return None;
        }
        members.push((name, read(rest, depth, left)?));
    }
    Some(Value::Map(members))
}

fn read_text(rest: &mut &[u8], length: usize) -> Option<String> {
    String::from_utf8(take(rest, length)?.to_vec()).ok()
}

/// Reads a major type and its number (RFC 8949 §3). Refuses numbers that fit into fewer bytes, and
/// indefinite lengths.
fn read_head(rest: &mut &[u8]) -> Option<(u8, u64)> {
    let first = *take(rest, 1)?.first()?;
    let (size, least) = match first & 0x1f {
        short @ 0..24 => return Some((first >> 5, short.into())),
        // Each form has the least number that needs it. A smaller one in that form would be a
        // second spelling of the same value.
        24 => (1, 24),
        25 => (2, 0x100),
        26 => (4, 0x1_0000),
        27 => (8, 0x1_0000_0000),
        // 28 to 30 are reserved, and 31 is an indefinite length, which DAG-CBOR forbids.
        _ => return None,
    };
    let number = take(rest, size)?.iter().fold(0, |number: u64, byte| (number << 8) | u64::from(*byte));
    (number >= least).then_some((first >> 5, number))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_fewest_bytes() {
        for (length, head) in [
            (0, vec![0x60]),
            (23, vec![0x77]),
            (24, vec![0x78, 24]),
            (255, vec![0x78, 255]),
            (256, vec![0x79, 1, 0]),
            (65_535, vec![0x79, 255, 255]),
            (65_536, vec![0x7a, 0, 1, 0, 0]),
        ] {
            let text = "x".repeat(length);
            let bytes = Value::text(&text).to_bytes();
            assert_eq!(bytes, [head.as_slice(), text.as_bytes()].concat(), "{length}");
        }
    }

    #[test]
    fn a_block_has_only_so_many_values() {
        let list = |items: usize| Value::List(vec![Value::Null; items]).to_bytes();
        assert!(Value::read(&list(MAX_VALUES - 1)).is_some());
        assert_eq!(Value::read(&list(MAX_VALUES)), None);
    }

    #[test]
    fn members_stand_by_length_then_bytes() {
        let map = Value::map(vec![
            ("bb", Value::Null),
            ("c", Value::List(vec![])),
            ("aa", Value::Null),
            ("b", Value::Null),
        ]);
        assert_eq!(map.to_bytes(), b"\xa4\x61b\xf6\x61c\x80\x62aa\xf6\x62bb\xf6");
    }
}
