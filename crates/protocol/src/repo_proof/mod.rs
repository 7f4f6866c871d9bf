//! Proofs that an account's repository holds a record: the answer of `com.atproto.sync.getRecord`,
//! a CAR file with the signed commit, the nodes of the tree (MST) on the path to the record, and
//! the record (atproto Repository).
//!
//! ```
//! use genkan_protocol::crypto::K256PrivateKey;
//! use genkan_protocol::repo_proof::{Error, verify_record};
//!
//! let key = K256PrivateKey::from_bytes(&[7; 32]).unwrap().public();
//! let did = "did:plc:ewvi7nxzyoun6zhxrhs64oiz".parse().unwrap();
//! let refused = verify_record(b"not a CAR file", &did, &key, "com.atproto.lexicon.schema", "com.example.set");
//! assert_eq!(refused, Err(Error::Malformed));
//! ```

mod car;

use car::Car;

use crate::crypto::PublicKey;
pub use crate::dag_cbor::Cid;
use crate::dag_cbor::Value;
use crate::syntax::Did;

/// The longest file that is read, in bytes.
pub const MAX_LENGTH: usize = 2 * 1024 * 1024;

/// The most blocks that a file may have. A proof needs one for each level of the tree, and two
/// more.
pub const MAX_BLOCKS: usize = 1024;

/// Why a file proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a CAR file of version 1 with DAG-CBOR in it, or not a repository.
    #[error("the proof is malformed")]
    Malformed,
    /// More than [`MAX_LENGTH`] bytes or [`MAX_BLOCKS`] blocks.
    #[error("the proof is too large")]
    TooLarge,
    /// The hash of a block is not its address.
    #[error("a block of the proof is forged")]
    WrongBlock,
    /// A block on the path to the record is not in the file.
    #[error("a block of the proof is missing")]
    MissingBlock,
    /// The commit belongs to another account's repository.
    #[error("the proof is of another repository")]
    WrongAccount,
    /// The account's key did not sign the commit.
    #[error("the proof is not signed by the account's key")]
    BadSignature,
    /// The tree has no such record.
    #[error("there is no such record")]
    NoRecord,
}

/// Checks a proof from the commit down to the record and returns the record as JSON (atproto Data
/// Model, "JSON Representation"). `key` is the account's `#atproto` key.
///
/// # Errors
///
/// [`Error::NoRecord`] when the proof is good and shows that there is no such record; any other
/// error says nothing about the record.
pub fn verify_record(
    file: &[u8],
    did: &Did,
    key: &PublicKey,
    collection: &str,
    record_key: &str,
) -> Result<serde_json::Value, Error> {
    // Only blocks that are reached from the signed commit count: each step follows a hash, so the
    // signature covers the record.
    let car = Car::parse(file)?;
    let tree = verify_commit(&car.value(car.root)?, did, key)?;
    let record = find(&car, tree, format!("{collection}/{record_key}").as_bytes())?;
    Ok(car.value(record)?.to_json())
}

/// Checks the commit and returns the root of its tree.
fn verify_commit(commit: &Value, did: &Did, key: &PublicKey) -> Result<Cid, Error> {
    let Value::Map(members) = commit else { return Err(Error::Malformed) };
    let (Some(Value::Text(owner)), Some(Value::Bytes(signature)), Some(Value::Int(2 | 3))) =
        (commit.get("did"), commit.get("sig"), commit.get("version"))
    else {
        return Err(Error::Malformed);
    };
    // Checked before the signature: two accounts may share a signing key, so a good signature alone
    // does not tell whose repository this is.
    if owner != did.as_str() {
        return Err(Error::WrongAccount);
    }
    // The signature covers the commit without `sig`. Reading was strict, so writing gives back the
    // signed bytes.
    let unsigned = members.iter().filter(|(name, _)| name != "sig").cloned().collect();
    key.verify(&Value::Map(unsigned).to_bytes(), signature).map_err(|_| Error::BadSignature)?;
    commit.get("data").and_then(Value::as_link).ok_or(Error::Malformed)
}

/// Walks down the tree to the record under a key.
fn find(car: &Car<'_>, root: Cid, key: &[u8]) -> Result<Cid, Error> {
    let mut at = root;
    for _ in 0..MAX_HEIGHT {
        match step(&car.value(at)?, key)? {
            Step::Found(cid) => return Ok(cid),
            Step::Down(Some(below)) => at = below,
            Step::Down(None) => return Err(Error::NoRecord),
        }
    }
    Err(Error::Malformed)
}

/// The highest possible tree: a key's layer is half the number of leading zero bits of its SHA-256
/// (atproto Repository, "MST Structure"). It also ends the walk in a file whose nodes point in a
/// circle.
const MAX_HEIGHT: usize = 128;

enum Step {
    Found(Cid),
    /// The subtree between the entries around the key in this node. `None` if the node has no
    /// subtree there.
    Down(Option<Cid>),
}

/// Looks for a key in one node. Entries are sorted; each is spelled as the number of bytes that it
/// shares with the entry before (`p`) and the rest (`k`). Subtrees hang before the first entry
/// (`l`) and after each one (`t`).
fn step(node: &Value, key: &[u8]) -> Result<Step, Error> {
    let Some(Value::List(entries)) = node.get("e") else { return Err(Error::Malformed) };
    // The subtree for keys before the first entry. Each entry that sorts before the key replaces
    // it.
    let mut below = subtree(node, "l")?;
    let mut last: Vec<u8> = Vec::new();
    for entry in entries {
        let (Some(Value::Int(shared)), Some(Value::Bytes(suffix)), Some(Value::Link(value))) =
            (entry.get("p"), entry.get("k"), entry.get("v"))
        else {
            return Err(Error::Malformed);
        };
        // A negative or too large count fails here, before any byte is copied.
        let prefix = usize::try_from(*shared).ok().and_then(|shared| last.get(..shared));
        let current = [prefix.ok_or(Error::Malformed)?, suffix].concat();
        // Out of order, two walks might find different records under one key.
        if current <= last {
            return Err(Error::Malformed);
        }
        match current.as_slice().cmp(key) {
            // The key sorts after this entry, so it may be in the subtree that follows the entry.
            std::cmp::Ordering::Less => below = subtree(entry, "t")?,
            std::cmp::Ordering::Equal => return Ok(Step::Found(*value)),
            std::cmp::Ordering::Greater => break,
        }
        last = current;
    }
    Ok(Step::Down(below))
}

fn subtree(node: &Value, name: &str) -> Result<Option<Cid>, Error> {
    match node.get(name) {
        Some(Value::Link(cid)) => Ok(Some(*cid)),
        // The specification writes null for an absent subtree. A missing member is read alike.
        Some(Value::Null) | None => Ok(None),
        Some(_) => Err(Error::Malformed),
    }
}
