//! The names of links.

use data_encoding::HEXLOWER;

use crate::base::{id_type, random};

id_type!(
    /// Names a link. The grant that rests on the link has the same id.
    LinkId
);

impl LinkId {
    pub(super) fn fresh() -> Self {
        HEXLOWER.encode(&random::bytes::<12>()).into()
    }
}
