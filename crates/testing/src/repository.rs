//! The proof of a record in a repository: what `com.atproto.sync.getRecord` answers.

use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::repo_proof::Cid;
use serde_json::Value;

/// Returns a CAR file with one record, in a repository of which it is the only one.
///
/// # Panics
///
/// If a number in the record is not a small one, or a text or list is longer than 255.
pub fn proof_of_record(
    did: &str,
    key: &K256PrivateKey,
    (collection, record_key): (&str, &str),
    record: &Value,
) -> Vec<u8> {
    let record = cbor(record);
    let path = format!("{collection}/{record_key}");
    let entry = map(vec![
        ("k", [head(2, path.len()), path.into_bytes()].concat()),
        ("p", head(0, 0)),
        ("t", vec![NULL]),
        ("v", link(Cid::of(&record))),
    ]);
    let tree = map(vec![("e", [head(4, 1), entry].concat()), ("l", vec![NULL])]);
    let members = vec![
        ("did", text(did)),
        ("rev", text("3jzfcijpj2z2a")),
        ("data", link(Cid::of(&tree))),
        ("prev", vec![NULL]),
        ("version", head(0, 3)),
    ];
    let signature = key.sign(&map(members.clone()));
    let signature = [head(2, signature.len()), signature.to_vec()].concat();
    let commit = map([members, vec![("sig", signature)]].concat());
    let roots = [head(4, 1), link(Cid::of(&commit))].concat();
    let mut file = section(&map(vec![("roots", roots), ("version", head(0, 1))]));
    for block in [commit, tree, record] {
        file.extend(section(&[binary(Cid::of(&block)), block].concat()));
    }
    file
}

/// Encodes a value in DAG-CBOR.
fn cbor(value: &Value) -> Vec<u8> {
    match value {
        Value::Null => vec![NULL],
        Value::Bool(value) => vec![0xf4 | u8::from(*value)],
        Value::Number(number) => head(0, usize::try_from(number.as_u64().unwrap()).unwrap()),
        Value::String(value) => text(value),
        Value::Array(items) => [head(4, items.len()), items.iter().flat_map(cbor).collect()].concat(),
        Value::Object(members) => {
            map(members.iter().map(|(name, value)| (name.as_str(), cbor(value))).collect())
        }
    }
}

/// The first bytes of an item: its major type, and a number.
fn head(major: u8, number: usize) -> Vec<u8> {
    let number = u8::try_from(number).unwrap();
    if number < 24 { vec![major << 5 | number] } else { vec![major << 5 | 0x18, number] }
}

fn text(value: &str) -> Vec<u8> {
    [head(3, value.len()), value.into()].concat()
}

fn map(mut members: Vec<(&str, Vec<u8>)>) -> Vec<u8> {
    // By length and then by bytes, which is the order of DAG-CBOR.
    members.sort_by_key(|(name, _)| (name.len(), *name));
    let mut out = head(5, members.len());
    for (name, value) in members {
        out.extend(text(name));
        out.extend(value);
    }
    out
}

fn link(cid: Cid) -> Vec<u8> {
    [vec![0xd8, 42, 0x58, 37, 0], binary(cid)].concat()
}

fn binary(cid: Cid) -> Vec<u8> {
    let text = cid.to_string().to_uppercase();
    // The first letter names the encoding.
    data_encoding::BASE32_NOPAD.decode(text.get(1..).unwrap().as_bytes()).unwrap()
}

fn section(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut length = content.len();
    // LEB128: seven bits in each byte, the lowest first.
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend(content);
    out
}

const NULL: u8 = 0xf6;
