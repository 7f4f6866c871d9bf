//! Proof that a record stands in an account's repository, as `com.atproto.sync.getRecord` gives it: a CAR file with the
//! signed commit, the way down the tree (MST), and the record (atproto Repository).

mod car;
pub(crate) mod cbor;
mod cid;

use car::Car;
use cbor::Value;
pub use cid::Cid;

use crate::crypto::PublicKey;
use crate::syntax::Did;

/// The longest file that is read.
pub const MAX_LENGTH: usize = 2 * 1024 * 1024;

/// The most blocks that a file may have.
pub const MAX_BLOCKS: usize = 1024;

/// Why a file proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a CAR file of version 1 with DAG-CBOR in it, or not a repository.
    #[error("the proof is malformed")]
    Malformed,
    /// Longer, or of more blocks, than is read.
    #[error("the proof is too large")]
    TooLarge,
    /// A block is not what its address says.
    #[error("a block of the proof is forged")]
    WrongBlock,
    /// A block on the way is not in the file.
    #[error("a block of the proof is missing")]
    MissingBlock,
    /// The repository is another account's.
    #[error("the proof is of another repository")]
    WrongAccount,
    /// The account's key did not sign the commit.
    #[error("the proof is not signed by the account's key")]
    BadSignature,
    /// The repository has no such record.
    #[error("there is no such record")]
    NoRecord,
}

/// Checks a proof down to the record, and gives the record as JSON. `key` is the account's `#atproto` key.
pub fn verify_record(
    file: &[u8],
    did: &Did,
    key: &PublicKey,
    collection: &str,
    record_key: &str,
) -> Result<serde_json::Value, Error> {
    let car = Car::parse(file)?;
    let tree = verify_commit(&car.value(car.root)?, did, key)?;
    let record = find(&car, tree, format!("{collection}/{record_key}").as_bytes())?;
    Ok(car.value(record)?.to_json())
}

/// Checks the commit and gives the root of its tree.
fn verify_commit(commit: &Value, did: &Did, key: &PublicKey) -> Result<Cid, Error> {
    let Value::Map(members) = commit else { return Err(Error::Malformed) };
    let (Some(Value::Text(owner)), Some(Value::Bytes(signature)), Some(Value::Int(2 | 3))) =
        (commit.get("did"), commit.get("sig"), commit.get("version"))
    else {
        return Err(Error::Malformed);
    };
    if owner != did.as_str() {
        return Err(Error::WrongAccount);
    }
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

/// A tree of SHA-256 with two bits a layer has no more.
const MAX_HEIGHT: usize = 128;

enum Step {
    Found(Cid),
    /// To the subtree between the neighbours of the key, if there is one.
    Down(Option<Cid>),
}

fn step(node: &Value, key: &[u8]) -> Result<Step, Error> {
    let Some(Value::List(entries)) = node.get("e") else { return Err(Error::Malformed) };
    let mut below = subtree(node, "l")?;
    let mut last: Vec<u8> = Vec::new();
    for entry in entries {
        let (Some(Value::Int(shared)), Some(Value::Bytes(suffix)), Some(Value::Link(value))) =
            (entry.get("p"), entry.get("k"), entry.get("v"))
        else {
            return Err(Error::Malformed);
        };
        let prefix = usize::try_from(*shared).ok().and_then(|shared| last.get(..shared));
        let current = [prefix.ok_or(Error::Malformed)?, suffix].concat();
        if current <= last {
            return Err(Error::Malformed);
        }
        match current.as_slice().cmp(key) {
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
        Some(Value::Null) | None => Ok(None),
        Some(_) => Err(Error::Malformed),
    }
}
