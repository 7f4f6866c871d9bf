//! DAG-CBOR and content addresses, which repositories and operations of the PLC directory are made of.

mod cid;
mod value;

pub use cid::Cid;
pub(crate) use value::Value;
