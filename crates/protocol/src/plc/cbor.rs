//! As much of DAG-CBOR as operations need: null, text, lists, and maps in canonical order.

/// A value to be written.
pub(super) enum Value<'a> {
    Null,
    Text(&'a str),
    List(Vec<Self>),
    /// In any order; the members are sorted when written.
    Map(Vec<(&'a str, Self)>),
}

impl<'a> Value<'a> {
    pub(super) fn texts(texts: &'a [String]) -> Self {
        Self::List(texts.iter().map(|text| Self::Text(text)).collect())
    }

    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        self.write(&mut bytes);
        bytes
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(0xf6),
            Self::Text(text) => write_text(text, out),
            Self::List(items) => {
                write_head(4, items.len(), out);
                for item in items {
                    item.write(out);
                }
            }
            Self::Map(members) => {
                // The order of DAG-CBOR: shorter names first, equal lengths by their bytes.
                members.sort_by_key(|(name, _)| (name.len(), *name));
                write_head(5, members.len(), out);
                for (name, value) in members {
                    write_text(name, out);
                    value.write(out);
                }
            }
        }
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    write_head(3, text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

/// The major type and the length, in the fewest bytes.
fn write_head(major: u8, length: usize, out: &mut Vec<u8>) {
    let major = major << 5;
    if let Ok(short) = u8::try_from(length) {
        if short < 24 {
            out.push(major | short);
        } else {
            out.extend([major | 0x18, short]);
        }
    } else if let Ok(short) = u16::try_from(length) {
        out.push(major | 0x19);
        out.extend(short.to_be_bytes());
    } else if let Ok(short) = u32::try_from(length) {
        out.push(major | 0x1a);
        out.extend(short.to_be_bytes());
    } else {
        out.push(major | 0x1b);
        out.extend((length as u64).to_be_bytes());
    }
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
            let bytes = Value::Text(&text).into_bytes();
            assert_eq!(bytes, [head.as_slice(), text.as_bytes()].concat(), "{length}");
        }
    }

    #[test]
    fn members_stand_by_length_then_bytes() {
        let map = Value::Map(vec![
            ("bb", Value::Null),
            ("c", Value::List(vec![])),
            ("aa", Value::Null),
            ("b", Value::Null),
        ]);
        assert_eq!(map.into_bytes(), b"\xa4\x61b\xf6\x61c\x80\x62aa\xf6\x62bb\xf6");
    }
}
