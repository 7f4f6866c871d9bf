//! CAR files of version 1: a header that names the root, then blocks, each with its address
//! (IPLD, "`CARv1` Specification").

use std::collections::HashMap;

use super::{Error, MAX_BLOCKS, MAX_LENGTH};
use crate::dag_cbor::{Cid, Value};

/// A file's blocks, each checked against its address.
pub(super) struct Car<'a> {
    pub(super) root: Cid,
    blocks: HashMap<Cid, &'a [u8]>,
}

impl<'a> Car<'a> {
    pub(super) fn parse(file: &'a [u8]) -> Result<Self, Error> {
        // The file comes from an external PDS, so its size is bounded before it is read.
        if file.len() > MAX_LENGTH {
            return Err(Error::TooLarge);
        }
        let mut rest = file;
        let root = read_head(take_section(&mut rest)?).ok_or(Error::Malformed)?;
        let mut blocks = HashMap::new();
        while !rest.is_empty() {
            if blocks.len() == MAX_BLOCKS {
                return Err(Error::TooLarge);
            }
            let section = take_section(&mut rest)?;
            let (cid, block) = section.split_at_checked(Cid::LENGTH).ok_or(Error::Malformed)?;
            let cid = Cid::from_bytes(cid).ok_or(Error::Malformed)?;
            // Checked for every block, also those that are not on the path: a forged file is
            // refused whole.
            if Cid::of(block) != cid {
                return Err(Error::WrongBlock);
            }
            blocks.insert(cid, block);
        }
        Ok(Self { root, blocks })
    }

    /// Reads the block with this address. [`Error::MissingBlock`] when the file has none.
    pub(super) fn value(&self, cid: Cid) -> Result<Value, Error> {
        let block = self.blocks.get(&cid).ok_or(Error::MissingBlock)?;
        Value::read(block).ok_or(Error::Malformed)
    }
}

fn read_head(head: &[u8]) -> Option<Cid> {
    let head = Value::read(head)?;
    match (head.get("version")?, head.get("roots")?) {
        // Version 2 wraps a file of version 1; no PDS sends it.
        (Value::Int(1), Value::List(roots)) => roots.first()?.as_link(),
        _ => None,
    }
}

/// Takes the bytes that follow a length in LEB128. Four bytes of length, 256 MiB, are more than a
/// file may have.
fn take_section<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Error> {
    let mut length = 0_usize;
    // Seven bits per byte, the lowest first. The last shift is 21, so the sum has 28 bits and
    // cannot overflow.
    for shift in (0..28).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(Error::Malformed)?;
        *rest = after;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let (section, after) = rest.split_at_checked(length).ok_or(Error::Malformed)?;
            *rest = after;
            return Ok(section);
        }
    }
    Err(Error::Malformed)
}
