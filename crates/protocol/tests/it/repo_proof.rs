use genkan_protocol::repo_proof::{Cid, Error, MAX_BLOCKS, verify_record};
use serde_json::json;

use crate::key;

const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

/// CBOR by hand, for short values.
fn text(value: &str) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap();
    let head = if length < 24 { vec![0x60 | length] } else { vec![0x78, length] };
    [head, value.into()].concat()
}

fn bytes(value: &[u8]) -> Vec<u8> {
    [vec![0x58, u8::try_from(value.len()).unwrap()], value.to_vec()].concat()
}

/// Encodes bytes. A length below 24 is part of the first byte.
fn short_bytes(value: &[u8]) -> Vec<u8> {
    if value.len() < 24 {
        [vec![0x40 | u8::try_from(value.len()).unwrap()], value.to_vec()].concat()
    } else {
        bytes(value)
    }
}

fn binary(cid: Cid) -> Vec<u8> {
    let text = cid.to_string().to_uppercase();
    data_encoding::BASE32_NOPAD.decode(&text.as_bytes()[1..]).unwrap()
}

fn link(cid: Cid) -> Vec<u8> {
    [vec![0xd8, 42, 0x58, 37, 0], binary(cid)].concat()
}

fn map(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![0xa0 | u8::try_from(members.len()).unwrap()];
    for (name, value) in members {
        out.extend(text(name));
        out.extend(value);
    }
    out
}

fn entry(shared: u8, suffix: &str, value: Cid, below: Option<Cid>) -> Vec<u8> {
    let below = below.map_or_else(|| vec![0xf6], link);
    map(&[("k", short_bytes(suffix.as_bytes())), ("p", vec![shared]), ("t", below), ("v", link(value))])
}

fn node(left: Option<Cid>, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut list = vec![0x80 | u8::try_from(entries.len()).unwrap()];
    list.extend(entries.concat());
    map(&[("e", list), ("l", left.map_or_else(|| vec![0xf6], link))])
}

fn commit(tree: Cid, signer: u8) -> Vec<u8> {
    let rest =
        [("rev", text("3jzfcijpj2z2a")), ("data", link(tree)), ("prev", vec![0xf6]), ("version", vec![3])];
    let did = ("did", text(DID));
    let [rev, data, prev, version] = rest;
    // Members by length and then by bytes, which is the order of DAG-CBOR.
    let unsigned = map(&[did.clone(), rev.clone(), data.clone(), prev.clone(), version.clone()]);
    let signature = ("sig", bytes(&key(signer).sign(&unsigned)));
    map(&[did, rev, signature, data, prev, version])
}

fn section(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut length = content.len();
    // LEB128: seven bits per byte, the lowest first.
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend(content);
    out
}

fn car(root: Cid, blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut file = section(&map(&[("roots", [vec![0x81], link(root)].concat()), ("version", vec![1])]));
    for block in blocks {
        file.extend(section(&[binary(Cid::of(block)), block.clone()].concat()));
    }
    file
}

struct Repository {
    record: Vec<u8>,
    leaf: Vec<u8>,
    tree: Vec<u8>,
    commit: Vec<u8>,
}

/// Two layers: `a.b.c/one` and `a.b.c/two` at the top, `a.b.c/three` between.
fn repository() -> Repository {
    let record = map(&[("id", text("a.b.c")), ("$type", text("x.y.z"))]);
    let other = Cid::of(b"another record");
    let leaf = node(None, &[entry(0, "a.b.c/three", Cid::of(&record), None)]);
    let tree =
        node(None, &[entry(0, "a.b.c/one", other, Some(Cid::of(&leaf))), entry(6, "two", other, None)]);
    let commit = commit(Cid::of(&tree), 1);
    Repository { record, leaf, tree, commit }
}

fn judge(file: &[u8], record_key: &str) -> Result<serde_json::Value, Error> {
    verify_record(file, &DID.parse().unwrap(), &key(1).public(), "a.b.c", record_key)
}

fn file() -> Vec<u8> {
    let Repository { record, leaf, tree, commit } = repository();
    car(Cid::of(&commit), &[commit, tree, leaf, record])
}

#[test]
fn a_record_is_found_and_proved() {
    assert_eq!(judge(&file(), "three"), Ok(json!({"$type": "x.y.z", "id": "a.b.c"})));
}

#[test]
fn what_is_not_there_is_not_proved() {
    assert_eq!(judge(&file(), "four"), Err(Error::NoRecord));
    assert_eq!(judge(&file(), "threes"), Err(Error::NoRecord));
    assert_eq!(judge(&file(), "zzz"), Err(Error::NoRecord));
    // The key is in the tree, but its record is not in the file. That proves nothing about the
    // record.
    assert_eq!(judge(&file(), "one"), Err(Error::MissingBlock));
}

#[test]
fn another_signer_or_account_is_refused() {
    let Repository { record, leaf, tree, .. } = repository();
    // The same tree, signed with another key.
    let forged = commit(Cid::of(&tree), 2);
    let file = car(Cid::of(&forged), &[forged, tree, leaf, record]);
    assert_eq!(judge(&file, "three"), Err(Error::BadSignature));
    let other = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
    assert_eq!(
        verify_record(&self::file(), &other, &key(1).public(), "a.b.c", "three"),
        Err(Error::WrongAccount)
    );
}

#[test]
fn missing_and_forged_blocks_are_refused() {
    let Repository { record, leaf, tree, commit } = repository();
    let all = [commit.clone(), tree, leaf, record];
    for skipped in 0..all.len() {
        let mut blocks = all.to_vec();
        blocks.remove(skipped);
        assert_eq!(judge(&car(Cid::of(&commit), &blocks), "three"), Err(Error::MissingBlock), "{skipped}");
    }
    let good = file();
    for at in 0..good.len() {
        let mut changed = good.clone();
        // Every byte is covered by a hash or by the signature.
        changed[at] ^= 1;
        assert!(judge(&changed, "three").is_err(), "byte {at}");
        assert!(judge(&good[..at], "three").is_err(), "cut at {at}");
    }
}

#[test]
fn trees_out_of_order_or_in_circles_are_refused() {
    let record = repository().record;
    let value = Cid::of(&record);
    for entries in [
        vec![entry(0, "b", value, None), entry(0, "a.b.c/three", value, None)],
        // The first entry has no entry before it with which it could share bytes.
        vec![entry(9, "a.b.c/three", value, None)],
        vec![entry(0, "", value, None), entry(0, "a.b.c/three", value, None)],
    ] {
        let tree = node(None, &entries);
        let commit = commit(Cid::of(&tree), 1);
        let judged = judge(&car(Cid::of(&commit), &[commit, tree, record.clone()]), "three");
        assert!(matches!(judged, Err(Error::Malformed | Error::NoRecord)), "{judged:?}");
    }
}

#[test]
fn files_are_bounded_and_no_input_panics() {
    let commit = repository().commit;
    let blocks: Vec<_> =
        (0..=u16::try_from(MAX_BLOCKS).unwrap()).map(|number| number.to_be_bytes().to_vec()).collect();
    assert_eq!(judge(&car(Cid::of(&commit), &blocks), "three"), Err(Error::TooLarge));
    assert_eq!(judge(&vec![0; 3 * 1024 * 1024], "three"), Err(Error::TooLarge));
    let deep = [vec![0x81; 100_000], vec![0x80]].concat();
    // A list that claims 2^64 members. The reader must not reserve memory for them.
    let huge = vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    for block in [
        deep,
        huge,
        vec![0x9f, 0xff],
        vec![0x18, 1],
        vec![],
        vec![0xf6, 0xf6],
        vec![0xa2, 0x61, 0x62, 0, 0x61, 0x61, 0],
    ] {
        assert_eq!(
            judge(&car(Cid::of(&block), std::slice::from_ref(&block)), "three"),
            Err(Error::Malformed)
        );
    }
    for bad in [&b""[..], b"\x00", b"\xff\xff\xff\xff\xff\xff", b"\x05hello"] {
        assert_eq!(judge(bad, "three"), Err(Error::Malformed));
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, at in 0..400_usize) {
        let _ = judge(&bytes, "three");
        let mut file = file();
        let at = at % file.len();
        file.splice(at..at, bytes.clone());
        proptest::prop_assert!(bytes.is_empty() || judge(&file, "three").is_err());
    }
}
